package ort

/*
#include <stdlib.h>
#ifdef __GLIBC__
#include <malloc.h>
static void ft_trim(void) { malloc_trim(0); }
#else
static void ft_trim(void) {}
#endif
*/
import "C"

// Trim gives memory that the runtime has freed back to the system, where the C library would keep it.
func Trim() { C.ft_trim() }
