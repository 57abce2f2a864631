"""`minunet check`: lines, remedies and exit codes, with and without what it looks for."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from functools import partial
from types import SimpleNamespace

import pytest

from minunet import check
from minunet.backends import cuda, cuda_host
from minunet.backends.cuda import driver
from minunet.errors import DeviceMemoryError


def lines(capsys) -> dict[str, tuple[str, str]]:
    """{what: (ok or missing, text)} of what was printed."""
    found = {}
    for line in capsys.readouterr().out.splitlines():
        found[line[9:27].strip()] = (line[:9].strip(), line[27:])
    return found


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """A cache that can be written, for users who have no home as well."""
    monkeypatch.setattr(check.files, "cache_folder", lambda: tmp_path)


def test_everything_is_listed(capsys, cache):
    code = check.main([])
    found = lines(capsys)
    assert code == 0
    for what in ("Python", "numpy", "numba", "cache", "cpu kernel", "driver", "CuPy", "NVRTC", "C++ compiler"):
        assert what in found
    assert found["cpu kernel"] == ("ok", "runs")
    assert all(state in ("ok", "missing") for state, _ in found.values())


@pytest.mark.skipif(not cuda_host.available(), reason=cuda_host.reason())
def test_a_part_by_name(capsys):
    assert check.main(["cuda_host"]) == 0
    assert lines(capsys)["cuda_host kernel"] == ("ok", "runs")


def test_a_missing_gpu_is_an_error_only_where_it_was_asked_for(capsys, monkeypatch, cache):
    monkeypatch.setattr(driver, "find", lambda: (None, "no NVIDIA driver was found; install it"))
    monkeypatch.setattr(cuda, "cupy", lambda: (None, "CuPy is missing; install it"))
    cuda.reason.cache_clear()
    try:
        assert check.main([]) == 0
        assert check.main(["cuda"]) == 1
    finally:
        cuda.reason.cache_clear()
    found = lines(capsys)
    assert found["driver"] == ("missing", "no NVIDIA driver was found; install it")
    assert found["cuda kernel"] == ("missing", "not tried: CuPy is missing; install it")


def test_devices_are_listed_and_old_ones_marked(capsys, monkeypatch):
    devices = (driver.Device("NVIDIA H200", 90, 150 * 2**30), driver.Device("NVIDIA TITAN X", 52, 12 * 2**30))
    monkeypatch.setattr(driver, "find", lambda: (driver.Driver((13, 0), devices), ""))
    check.main(["cuda"])
    printed = capsys.readouterr().out
    assert "supports CUDA 13.0" in printed
    assert "NVIDIA H200, sm_90, 150.0 GiB\n" in printed
    assert "NVIDIA TITAN X, sm_52, 12.0 GiB; the kernels need sm_75 or newer\n" in printed


@pytest.mark.parametrize(
    ("why", "room", "expected"),
    [
        ("", 3 << 30, {"CUDA headers": "ok", "memory": "ok"}),
        ("", 1 << 20, {"CUDA headers": "ok", "memory": "missing"}),
        ("no headers; install them", 3 << 30, {"CUDA headers": "missing"}),
        ("", DeviceMemoryError("the GPU's memory is full"), {"CUDA headers": "ok", "memory": "missing"}),
    ],
)
def test_what_shows_only_in_use(capsys, monkeypatch, why, room, expected):
    """Headers that CuPy misses; a GPU whose memory others hold."""

    def capacity():
        if isinstance(room, Exception):
            raise room
        return room

    monkeypatch.setattr(driver, "find", lambda: (None, "no NVIDIA driver was found; install it"))
    monkeypatch.setattr(cuda, "available", lambda: True)
    monkeypatch.setattr(cuda, "headers", lambda: why)
    monkeypatch.setattr(cuda, "capacity", capacity)
    monkeypatch.setattr(check, "_kernel", lambda name: check.Finding(True, f"{name} kernel", "runs"))
    assert check.main(["cuda"]) == 1, "there is no driver"
    found = lines(capsys)
    assert {what: found[what][0] for what in ("CUDA headers", "memory") if what in found} == expected
    if why:
        assert found["CUDA headers"][1] == why
    if room == 1 << 20:
        assert "end other programs on the GPU" in found["memory"][1]


def test_a_missing_package_and_a_cache_that_cannot_be_written(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(check, "PACKAGES", ("numpy", "no-such-package"))
    monkeypatch.setenv("MINUNET_CACHE", str(tmp_path / "file" / "cache"))
    (tmp_path / "file").write_text("")
    assert check.main([]) == 1
    found = lines(capsys)
    assert found["no-such-package"] == ("missing", "not installed; pip install no-such-package")
    assert found["cache"][0] == "missing"
    assert "MINUNET_CACHE" in found["cache"][1]


def test_a_package_that_is_too_old(capsys, monkeypatch):
    monkeypatch.setattr(
        check.metadata, "requires", lambda name: ["numpy>=99.1", "numba>=0.1", 'numba>=99; extra == "x"']
    )
    assert check.main(["basics"]) == 1
    found = lines(capsys)
    assert found["numpy"][0] == "missing" and "needs 99.1 or newer: pip install --upgrade numpy" in found["numpy"][1]
    assert found["numba"][0] == "ok"


@pytest.mark.parametrize("package", ["numpy", "numba"])
def test_without_a_package_that_everything_needs(package, tmp_path):
    """Where it cannot be loaded, check says so to its end, and other commands end with one line."""
    code = (
        f"import sys\nsys.modules[{package!r}] = None\nfrom minunet.__main__ import main\nsys.exit(main(sys.argv[1:]))"
    )
    run = partial(subprocess.run, capture_output=True, text=True)
    done = run([sys.executable, "-c", code, "check"])
    assert done.returncode == 1 and not done.stderr
    basics = [row for row in done.stdout.splitlines() if row.startswith("missing  basics")]
    assert len(basics) == 1 and f"import of {package} halted" in basics[0]
    done = run([sys.executable, "-c", code, "train", "synthetic", "--steps", "1", "--out", str(tmp_path / "run")])
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: ") and "minunet check" in done.stderr


def test_an_unknown_part_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as caught:
        check.main(["gpu"])
    assert caught.value.code == 2
    assert "'gpu' is no part; there are basics, cuda_host, cuda, numba_cuda" in capsys.readouterr().err


class Library(SimpleNamespace):
    """Stands for libcuda: two devices."""

    code, count = 0, 2

    def cuInit(self, flags):
        return self.code

    def cuDriverGetVersion(self, p):
        p._obj.value = 12080

    def cuDeviceGetCount(self, p):
        p._obj.value = self.count

    def cuDeviceGet(self, p, index):
        p._obj.value = index

    def cuDeviceGetName(self, name, size, handle):
        name.value = b"GPU %d" % handle.value

    def cuDeviceGetAttribute(self, p, attribute, handle):
        p._obj.value = {driver.MAJOR: 8, driver.MINOR: 6 + handle.value}[attribute]

    def cuDeviceTotalMem_v2(self, p, handle):
        p._obj.value = ctypes.c_size_t(2**33).value


def test_the_driver_is_asked():
    found, why = driver.query(Library())
    assert why == ""
    assert found == driver.Driver((12, 8), (driver.Device("GPU 0", 86, 2**33), driver.Device("GPU 1", 87, 2**33)))
    assert driver.query(Library(code=100))[0] is None
    assert "error 100" in driver.query(Library(code=100))[1]
    assert "CUDA_VISIBLE_DEVICES" in driver.query(Library(count=0))[1]
