"""The same kernels in Python, compiled by Numba: for readers of Python, and for writing a new operation in an hour.

Each file has the stem, the header card and the kernel names of its CUDA C++ twin under kernels/cuda. The launchers
(grids, blocks, arguments) are in minunet/backends/numba_cuda. Under Numba's simulator the same files run on a CPU.
"""
