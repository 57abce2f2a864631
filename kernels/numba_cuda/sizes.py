"""Block and tile sizes. Read when a kernel is compiled, so they are constants of the machine code.

Under Numba's simulator a thread is a thread of Python and costs a millisecond: there the same kernels have tiny
blocks, and grids so small that every loop over a grid takes several turns.
"""

from __future__ import annotations

from numba import cuda

SIMULATED = "simulator" in cuda.jit.__module__

THREADS = 4 if SIMULATED else 256  # of a block: a power of two, since sums halve it
MOST_BLOCKS = 2 if SIMULATED else 4096  # of a loop over elements: 132 multiprocessors x 8 blocks x a few waves
MOST_ROWS = 2 if SIMULATED else 65535  # of a loop over maps: the hardware's limit along y and z
MOST_PARTS = 2 if SIMULATED else 1024  # partial sums that a last block adds up
LANES = 2 if SIMULATED else 32  # most channels of a block side by side: a warp reads 128 bytes in a row

# Convolution, step 2: a tile of output pixels, a thread each, and the channels that a thread keeps in registers.
TILE_H, TILE_W = (2, 2) if SIMULATED else (8, 16)
TILE_CHANNELS = 2 if SIMULATED else 8
HALO_NUMBERS = 200 if SIMULATED else 4096  # of the input tile in shared memory: 32 KB in float64
WEIGHT_NUMBERS = 64 if SIMULATED else 1024  # 8 KB; together less than the 48 KB that a block has without asking
# Its weights' gradient: a tile of pixels, the taps that a thread keeps, and channels x channels of a block.
PIXELS_H, PIXELS_W, TAPS = (2, 3, 2) if SIMULATED else (4, 8, 9)
PIXELS = PIXELS_H * PIXELS_W
SIDE = 2 if SIMULATED else 16

# Convolution, step 3, and matmul: a block makes GEMM_M x GEMM_N of the product, a thread PER_THREAD x PER_THREAD.
PER_THREAD = 2 if SIMULATED else 4
GEMM_THREADS = 2 if SIMULATED else 16  # along each side
GEMM_M = GEMM_N = PER_THREAD * GEMM_THREADS
GEMM_K = 2 if SIMULATED else 8  # depth of a stage in shared memory
GEMM_ROWS = GEMM_THREADS * GEMM_THREADS // GEMM_K  # tile rows that the block loads at once, a column a thread
GEMM_DEEP = GEMM_THREADS * GEMM_THREADS // GEMM_M  # the same where it loads whole rows: so many of GEMM_K at once
# A row of a tile has one number more than it needs: a column then lies in different banks.
PITCH_M, PITCH_N = GEMM_M + 1, GEMM_N + 1

# Scatter by index: a block owns ROWS x COLUMNS pixels of LANES channels.
SEGMENT, ROWS, COLUMNS = (2, 2, 2) if SIMULATED else (16, 2, 64)
GROUPS = 2 if SIMULATED else 8
OWN = COLUMNS // GROUPS
