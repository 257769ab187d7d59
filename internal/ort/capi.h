// What onnxruntime_go lacks of ONNX Runtime's C API. Functions that can fail return NULL where they did not.
#include "include/onnxruntime_c_api.h"

// ft_open loads the library and makes the process's environment with one pool of threads (0: as many as
// cores). It returns a message, which the caller frees, where that fails.
char *ft_open(const char *library, int threads);

int ft_code(const OrtStatus *s);
const char *ft_message(const OrtStatus *s);
void ft_release_status(OrtStatus *s);

OrtStatus *ft_container(OrtPrepackedWeightsContainer **out);
void ft_release_container(OrtPrepackedWeightsContainer *c);

// ft_options makes settings for sessions that run on the environment's threads. An arena keeps what runs have freed.
OrtStatus *ft_options(bool deterministic, bool arena, OrtSessionOptions **out);
// ft_provider has kernels run on a kind of device, where it has them.
OrtStatus *ft_provider(OrtSessionOptions *o, const char *name);
OrtStatus *ft_config(OrtSessionOptions *o, const char *key, const char *value);
OrtStatus *ft_initializer(OrtSessionOptions *o, const char *name, const OrtValue *v);
void ft_release_options(OrtSessionOptions *o);

// ft_session reads a model; container may not be NULL, and outlives the session.
OrtStatus *ft_session(const void *model, size_t length, const OrtSessionOptions *o,
                      OrtPrepackedWeightsContainer *container, OrtSession **out);
void ft_release_session(OrtSession *s);

// ft_tensor wraps memory on the host, which stays the caller's.
OrtStatus *ft_tensor(void *data, size_t bytes, const int64_t *dims, size_t rank, int type, OrtValue **out);
// ft_describe tells a tensor's type, dims (at most FT_MAX_RANK) and elements. Of a value that is no tensor it tells
// the type ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED.
enum { FT_MAX_RANK = 16 };
OrtStatus *ft_describe(OrtValue *v, int *type, size_t *rank, int64_t *dims, void **data);
void ft_release_value(OrtValue *v);

OrtStatus *ft_run_options(OrtRunOptions **out);
void ft_terminate(OrtRunOptions *r);
void ft_release_run_options(OrtRunOptions *r);

// ft_run computes the outputs: into those that are not NULL, and makes the others.
OrtStatus *ft_run(OrtSession *s, const OrtRunOptions *r, const char *const *input_names, const OrtValue *const *inputs,
                  size_t input_count, const char *const *output_names, size_t output_count, OrtValue **outputs);
