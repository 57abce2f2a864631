"""Every kernel file as text and as machine code: header card, parameters, every architecture, no spills.

NVRTC compiles without a GPU; the assembler's report says how many registers a kernel takes.
"""

from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from minunet.backends.cuda import disk, nvrtc, resources, sources
from minunet.backends.cuda.sources import CARD, Program
from minunet.errors import UserError

FILES = sources.files()
ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90a", "sm_100")
IN_DOUBLE = ("sm_80", "sm_90a")  # float everywhere, double where it is likely to be wanted: it doubles the time
needs_nvrtc = pytest.mark.skipif(not nvrtc.available(), reason=f"NVRTC: {nvrtc.library()[1]}")


def claimed(file: str, real: str) -> list[str]:
    """The architectures that a file must compile for."""
    least = sources.least_architecture(file)
    chosen = ARCHITECTURES if real == "float" else IN_DOUBLE
    return [a for a in chosen if int(re.search(r"\d+", a)[0]) >= least]


@pytest.fixture(scope="module")
def reports() -> dict[tuple[str, str, str], str | UserError]:
    """{(file, real, architecture): the compiler's log, or its error}."""
    jobs = [(f, r, a) for f in FILES for r in ("float", "double") for a in claimed(f, r)]

    def report(job: tuple[str, str, str]) -> str | UserError:
        file, real, architecture = job
        try:
            return nvrtc.cubin(Program(file, real), architecture).with_suffix(".log").read_text()
        except UserError as error:
            return error

    nvrtc.architectures()  # the library is loaded once, before threads share it
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(jobs, pool.map(report, jobs)))


@needs_nvrtc
@pytest.mark.parametrize("file", FILES)
def test_compiles_for_every_architecture_without_spills(reports, file):
    for (name, real, architecture), log in reports.items():
        if name != file:
            continue
        assert not isinstance(log, UserError), log
        found = nvrtc.resources(log)
        assert set(found) == set(sources.kernels(file, real)), f"{file} {real} {architecture}"
        for kernel, used in found.items():
            where = f"{kernel} of {file}, {real}, {architecture}"
            assert used.spills == 0, f"{where}: {used.spills} bytes of registers are spilled"
            assert used.stack == 0, f"{where}: {used.stack} bytes of local memory: index arrays by constants"
            assert 0 < used.registers <= 255
            assert used.shared <= 48 * 1024


@pytest.mark.parametrize("file", FILES)
def test_header_card(file):
    card = sources.card(file)
    assert tuple(card) == CARD, f"{file}: the card needs the lines {', '.join(CARD)}, in this order"
    assert all(card.values())
    assert sources.kernels(file, "float"), f"{file} has no kernel"


@pytest.mark.parametrize("file", FILES)
def test_every_kernel_is_read_from_the_text(file):
    """What the pattern misses would be launched by nobody: as many kernels as the word __global__."""
    plain = re.sub(r"//[^\n]*", "", sources.text(file))
    assert len(sources.kernels(file, "float")) == plain.count("__global__")


def test_files_and_lines_are_short():
    for path in sorted((sources.folder()).rglob("*")):
        if path.suffix in (".cu", ".cuh", ".h"):
            lines = path.read_text().splitlines()
            assert len(lines) <= 320, f"{path.name}: {len(lines)} lines"
            assert max(map(len, lines)) <= 120, f"{path.name}: a line of {max(map(len, lines))}"


def test_ptx_stands_in_one_header():
    found = {p.name for p in (sources.folder() / "cuda").rglob("*.cu*") if re.search(r"\basm\b", p.read_text())}
    assert found == {"ptx.cuh"}


def test_no_float_atomics():
    """Sums by float atomics have no order, so no second run has the same bits."""
    for file in FILES:
        assert not re.search(r"atomicAdd\s*\(\s*&?\s*\w*(sum|out|dx|dw|partial)", sources.text(file)), file


def test_parameters_are_read():
    found = sources.kernels("pointwise.cu", "double")["dropout"]
    assert [p.name for p in found] == ["y", "x", "n", "vectors", "seed", "threshold", "keep"]
    assert [p.dtype for p in found] == [np.dtype(t) for t in ("f8", "f8", "i4", "i4", "u8", "i4", "f8")]
    assert [p.array for p in found] == [True, True] + 5 * [False]


def test_a_type_that_cannot_be_read_is_named(tmp_path):
    file = tmp_path / "odd.cu"
    file.write_text('extern "C" __global__ void f(Out<REAL> y, long n) {}\n')
    with pytest.raises(ValueError, match=r"odd\.cu: f: parameter 'long n' is not"):
        sources.kernels(str(file), "float")


def test_a_missing_file_is_named():
    with pytest.raises(UserError, match=r"missing\.cu: there is no such kernel file; there are .*pool\.cu"):
        sources.text("missing.cu")


def broken(tmp_path, name: str) -> Program:
    file = tmp_path / name
    file.write_text(
        '#include "common.cuh"\n'
        'extern "C" __global__ void fine(Out<REAL> y) { y[0] = 1; }\n'
        'extern "C" __global__ void wrong(Out<REAL> y) {\n    y[0] = one;\n}\n'
    )
    return Program(str(file), "float", (("TILE", 8),))


@needs_nvrtc
def test_nvrtcs_error_names_kernel_line_and_options(tmp_path):
    with pytest.raises(UserError) as caught:
        nvrtc.compile_program(broken(tmp_path, "broken_gpu.cu"), "sm_80")
    text = str(caught.value)
    assert "\n" not in text
    assert "broken_gpu.cu, line 4 (wrong): identifier" in text
    assert '"one" is undefined' in text
    assert "-arch=sm_80" in text
    assert "-DREAL=float -DTILE=8" in text


@needs_nvrtc
def test_an_architecture_that_nvrtc_does_not_know(tmp_path):
    with pytest.raises(UserError, match=r"pool\.cu: NVRTC .* failed: .*arch.*sm_20"):
        nvrtc.compile_program(Program("pool.cu", "float"), "sm_20")


@needs_nvrtc
def test_cubins_are_kept_under_what_they_are_made_of(tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "folder", lambda: tmp_path)
    compiled = []
    real = nvrtc.compile_program
    monkeypatch.setattr(nvrtc, "compile_program", lambda *a: compiled.append(a) or real(*a))
    program = Program("optim.cu", "float")
    first = nvrtc.cubin(program, "sm_80")
    assert first == nvrtc.cubin(program, "sm_80")
    assert len(compiled) == 1
    assert first.read_bytes()[:4] == b"\x7fELF"
    others = {nvrtc.cubin(program, "sm_90a"), nvrtc.cubin(Program("optim.cu", "double"), "sm_80")}
    others.add(nvrtc.cubin(Program("optim.cu", "float", (("TILE", 8),)), "sm_80"))
    assert len({first, *others}) == 4
    assert not list(tmp_path.glob("*.tmp"))


@needs_nvrtc
def test_a_log_stays_as_long_as_its_cubin(tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "folder", lambda: tmp_path)
    program = Program("border.cu", "float")
    log = nvrtc.cubin(program, "sm_80").with_suffix(".log")
    said = log.read_text()
    os.utime(log, (0, 0))
    nvrtc.cubin(program, "sm_80")
    assert log.stat().st_mtime > 0, "in use, and yet old"
    log.unlink()
    nvrtc.cubin(program, "sm_80")
    assert nvrtc.resources(log.read_text()) == nvrtc.resources(said) != {}


@needs_nvrtc
def test_spills_show_in_the_assemblers_report(tmp_path):
    """64 numbers a thread, and 32 registers, since two blocks of 1024 threads are asked for."""
    file = tmp_path / "spilling.cu"
    file.write_text(
        '#include "common.cuh"\n'
        'extern "C" __global__ void __launch_bounds__(1024, 2) spilling(Out<REAL> y, In<REAL> x, int n) {\n'
        "    REAL a[64];\n"
        "#pragma unroll\n"
        "    for (int k = 0; k < 64; k++) a[k] = x[k * n + threadIdx.x];\n"
        "    __syncthreads();\n"
        "#pragma unroll\n"
        "    for (int k = 0; k < 64; k++) y[k * n + threadIdx.x] = a[k] * a[63 - k];\n"
        "}\n"
    )
    used = nvrtc.resources(nvrtc.compile_program(Program(str(file), "float"), "sm_80")[1])["spilling"]
    assert used.registers == 32
    assert used.spills > 0
    assert used.stack > 0


def test_what_was_not_used_for_long_goes(tmp_path, monkeypatch):
    monkeypatch.setenv("MINUNET_CACHE", str(tmp_path))
    disk.folder.cache_clear()
    try:
        new, old = (disk.folder() / name for name in ("new.cubin", "old.cubin"))
        for path in (new, old):
            path.write_bytes(b"")
        long_ago = new.stat().st_mtime - (disk.KEEP_DAYS + 1) * 86400
        os.utime(old, (long_ago, long_ago))
        disk.folder.cache_clear()
        assert disk.folder() == tmp_path / "cuda"
    finally:
        disk.folder.cache_clear()
    assert new.exists()
    assert not old.exists()


def test_the_hash_sees_headers_of_headers(tmp_path):
    (tmp_path / "kernel.cu").write_text('#include "one.cuh"\n#include "common.cuh"\n')
    (tmp_path / "one.cuh").write_text('#include "two.cuh"\n')
    (tmp_path / "two.cuh").write_text("// before\n")
    program = Program(str(tmp_path / "kernel.cu"), "float")
    names = [path.name for path in sources.headers(program.file, False)]
    assert sorted(names) == ["common.cuh", "one.cuh", "two.cuh"]
    before = sources.digest(program, False), sources.digest(program, True)
    (tmp_path / "two.cuh").write_text("// after\n")
    after = sources.digest(program, False), sources.digest(program, True)
    assert len({*before, *after}) == 4


def test_the_switch_shows_the_final_source(monkeypatch, capsys):
    for wanted, shown in (("relu", True), ("pointwise.cu", True), ("conv2d", False)):
        monkeypatch.setenv("MINUNET_SHOW_SOURCE", wanted)
        sources.show(Program("pointwise.cu", "double"), ("-O1", "-DREAL=double"))
        printed = capsys.readouterr().err
        assert bool(printed) is shown
    monkeypatch.setenv("MINUNET_SHOW_SOURCE", "relu")
    sources.show(Program("pointwise.cu", "double"), ("-O1", "-DREAL=double"))
    printed = capsys.readouterr().err
    assert printed.startswith("// options: -O1 -DREAL=double\n")
    assert "#define REAL double" in printed
    assert printed.count("----- vector.cuh") == 1  # each header once, in place of its #include
    assert "void relu(Out<REAL> y" in printed


def test_resources_are_read_from_the_assemblers_report():
    log = (
        "ptxas info    : Compiling entry function 'f' for 'sm_80'\n"
        "ptxas info    : Function properties for f\n"
        "    16 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads\n"
        "ptxas info    : Used 40 registers, used 1 barriers, 1024 bytes smem, 380 bytes cmem[0]\n"
        "ptxas info    : Compiling entry function 'g' for 'sm_80'\n"
        "    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n"
        "ptxas info    : Used 8 registers, 380 bytes cmem[0]\n"
    )
    assert nvrtc.resources(log) == {"f": nvrtc.Resources(40, 16, 20, 1024), "g": nvrtc.Resources(8, 0, 0, 0)}


@pytest.mark.parametrize(
    ("registers", "shared", "threads", "capability", "share"),
    [
        (64, 16384, 256, 90, 0.5),  # registers: 4 blocks of 256 x 64
        (32, 0, 256, 90, 1.0),
        (33, 0, 256, 90, 6 / 8),  # dealt out as 40
        (32, 0, 32, 86, 16 * 32 / 1536),  # blocks
        (32, 48 * 1024, 256, 86, 2 * 256 / 1536),  # shared memory: 100 KiB, 49 a block
        (255, 0, 256, 75, 0.25),
        (128, 0, 1024, 80, 0.0),  # does not fit at all
    ],
)
def test_occupancy(registers, shared, threads, capability, share):
    assert resources.occupancy(registers, shared, threads, capability) == pytest.approx(share)


@needs_nvrtc
def test_the_table_of_resources_names_every_kernel(reports):
    text = resources.rewrite("# Title\n\n<!-- resources: begin -->\nstale\n<!-- resources: end -->\nrest\n")
    assert text.startswith("# Title")
    assert text.endswith("<!-- resources: end -->\nrest\n")
    assert "stale" not in text
    assert "not measured" in text
    for file in FILES:
        assert file in text
        assert all(f"| {kernel} |" in text for kernel in sources.kernels(file, "float"))


def test_the_map_has_the_place_for_it_and_names_what_is_there():
    text = (sources.folder() / "README.md").read_text()
    assert text.count(resources.BEGIN) == text.count(resources.END) == 1
    for header in (sources.folder() / "cuda").glob("*.cuh"):
        assert header.name in text, header.name
