"""Makes numpy.npz, which NumPy itself wrote. Usage: make.py numpy.npz"""
import sys

import numpy as np

np.savez_compressed(
    sys.argv[1],
    floats=np.arange(6, dtype="f4").reshape(2, 3),
    fortran=np.asfortranarray(np.arange(24, dtype="f8").reshape(2, 3, 4)),
    half=np.array([0.5, -2], "f2"),
    ids=np.array([[1, 2]], "i8"),
    scalar=np.array(7, "i4"),
    mask=np.array([True, False]),
    empty=np.zeros((0, 3), "u1"),
)
