"""What the GPU runs: CUDA C++ under cuda/, host/, the headers with which a C++17 compiler runs the same
files, and the same kernels in Python under numba_cuda/.

This folder is the package `minunet.kernels` of an installation (setup.py); README.md is the map.
"""
