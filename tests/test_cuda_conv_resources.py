"""What the compiler reports for the ladder's tuned steps, with every tile that a launcher may ask for: no spills, and
at least two blocks on a multiprocessor."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from minunet.backends.cuda import nvrtc
from minunet.backends.cuda.choose import LADDER
from minunet.backends.cuda.resources import MULTIPROCESSORS, occupancy
from minunet.backends.cuda.sources import Program

pytestmark = pytest.mark.skipif(not nvrtc.available(), reason=f"NVRTC: {nvrtc.library()[1]}")
TILES = ((128, 128), (128, 64), (64, 128))  # 64 x 64 is what tests/test_cuda_sources.py compiles
ARCHITECTURES = ("sm_80", "sm_90a", "sm_100")
TUNED = [step.name for step in LADDER.values() if step.tiled]


@pytest.fixture(scope="module")
def reports():
    """{(step, tile, kind of 16 bits, architecture): {kernel: Resources}}"""
    jobs = [
        (step, tile, kind, architecture)
        for step in TUNED
        for tile in TILES
        for kind in ((0, 1) if step == "8_tensor_half" else (0,))
        for architecture in ARCHITECTURES
    ]

    def report(job):
        step, (m, n), kind, architecture = job
        defines = (("HALF", kind),) if step == "8_tensor_half" else ()
        program = Program(LADDER[step].file, "float", (*defines, ("TILE_M", m), ("TILE_N", n)))
        return nvrtc.resources(nvrtc.cubin(program, architecture).with_suffix(".log").read_text())

    nvrtc.architectures()  # the library is loaded once, before threads share it
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(jobs, pool.map(report, jobs)))


@pytest.mark.parametrize("step", TUNED)
def test_no_spills_and_two_blocks(reports, step):
    found = {job: kernels for job, kernels in reports.items() if job[0] == step}
    assert found
    for (_, tile, kind, architecture), kernels in found.items():
        capability = int(architecture[3:].rstrip("a"))
        for kernel, used in kernels.items():
            where = f"{kernel} of {step}, tile {tile}, kind {kind}, {architecture}"
            assert used.spills == used.stack == 0, f"{where}: {used}"
            shared = used.shared + LADDER[step].shared(kernel, tile)
            share = occupancy(used.registers, shared, 256, capability)
            if step != "4_register_tile":
                assert share * MULTIPROCESSORS[capability].threads >= 2 * 256, f"{where}: {used}, {shared} bytes shared"
            assert share > 0, f"{where}: {shared} bytes of shared memory are more than there are"
