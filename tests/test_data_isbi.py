"""ISBI 2012: where it is looked for, what is refused, and the download. No test here touches the network."""

from __future__ import annotations

import io
import os
import threading
import time
import zipfile
from pathlib import Path
from urllib.error import HTTPError, URLError

import numpy as np
import pytest

from minunet.data import download, isbi
from minunet.data.download import CONNECT_SECONDS, PIXELS_SHA256, pixels_sha256
from minunet.data.images import write_tiff
from minunet.data.isbi import IMAGES, LABELS, load_isbi, split
from minunet.errors import UserError
from minunet.files import cache_folder

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
TEST = "test-volume.tif"


def stack(seed: int = 0, shape: tuple[int, ...] = (4, 9, 11)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def mask(seed: int = 1, shape: tuple[int, ...] = (4, 9, 11), high: int = 255) -> np.ndarray:
    return np.where(np.random.default_rng(seed).random(shape) < 0.25, 0, high).astype(np.uint8)


def put(folder: Path, images: np.ndarray, labels: np.ndarray) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_tiff(folder / IMAGES, images)
    write_tiff(folder / LABELS, labels)
    return folder


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """No environment, an empty cache, and no network: whoever opens an address fails the test."""
    monkeypatch.delenv("MINUNET_DATA", raising=False)
    monkeypatch.setenv("MINUNET_CACHE", str(tmp_path / "cache"))

    def nobody(request, timeout):
        raise AssertionError(f"unexpected access to {request.full_url}")

    monkeypatch.setattr(download, "urlopen", nobody)
    monkeypatch.setattr(download, "CONNECT_SECONDS", 600.0)  # a busy machine's pause is no silent server
    monkeypatch.setattr(isbi, "synthetic_membranes", lambda seed: (stack(seed), mask(seed, high=1)))


def test_polarity_values_and_fingerprint(tmp_path):
    images, labels = stack(), mask()
    data = load_isbi(put(tmp_path / "d", images, labels))
    assert np.array_equal(data.images, images) and data.images.dtype == np.uint8
    assert data.labels.dtype == np.uint8
    assert np.array_equal(data.labels == 1, labels == 255)  # white is the cell
    assert np.array_equal(data.labels == 0, labels == 0)
    assert data.name == "isbi2012" and not data.synthetic
    assert "other pixels than the published" in data.source
    assert data.sha256 == pixels_sha256(images, (labels > 0).astype(np.uint8))
    zero_one = load_isbi(put(tmp_path / "e", images, (labels > 0).astype(np.uint8)))
    assert zero_one.sha256 == data.sha256


def test_swapped_polarity_is_noted(tmp_path):
    assert "exchanged" in load_isbi(put(tmp_path / "d", stack(), 255 - mask())).source
    assert "exchanged" not in load_isbi(put(tmp_path / "d", stack(), mask())).source


def test_a_single_section_is_a_stack_of_one(tmp_path):
    assert load_isbi(put(tmp_path, stack()[0], mask()[0])).images.shape == (1, 9, 11)


@pytest.mark.parametrize("below", ["", "isbi2012", "isbi"])
def test_places_and_their_order(tmp_path, monkeypatch, below):
    put(tmp_path / "given" / below, stack(1), mask())
    put(tmp_path / "own" / below, stack(2), mask())
    put(tmp_path / "cache" / "isbi2012", stack(3), mask())
    monkeypatch.setenv("MINUNET_DATA", str(tmp_path / "own"))
    assert np.array_equal(load_isbi(tmp_path / "given").images, stack(1))
    assert np.array_equal(load_isbi().images, stack(2))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setenv("MINUNET_DATA", str(tmp_path / "elsewhere"))
    assert np.array_equal(load_isbi().images, stack(3))
    drawn = load_isbi_without_cache(monkeypatch, tmp_path)
    assert drawn.synthetic and drawn.source.startswith("SYNTHETIC") and np.array_equal(drawn.images, stack(7))


def load_isbi_without_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("MINUNET_CACHE", str(tmp_path / "none"))
    data = load_isbi(download=False, seed=7)
    assert not (tmp_path / "none").exists()
    return data


def test_cache_folder_rules(monkeypatch):
    assert cache_folder() == Path(os.environ["MINUNET_CACHE"])
    monkeypatch.delenv("MINUNET_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_folder() == Path("/x/minunet")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "minunet"


def refused(folder: Path, *words: str) -> None:
    with pytest.raises(UserError) as caught:
        load_isbi(folder)
    text = str(caught.value)
    assert "\n" not in text and str(folder) in text
    for word in words:
        assert word in text, text


def test_what_is_refused(tmp_path, monkeypatch):
    refused(tmp_path / "none", "no such folder", IMAGES, LABELS)
    refused(tmp_path, "has no", IMAGES, LABELS, "isbi2012")
    write_tiff(tmp_path / IMAGES, stack())
    refused(tmp_path, LABELS, "missing")
    refused(put(tmp_path, stack(), mask()[:3]), "3 sections of 9 x 11", "4 sections of 9 x 11")
    refused(put(tmp_path, stack(), mask()[:, :, :10]), "9 x 10")
    grey = mask()
    grey[0, 0, 0] = 254
    refused(put(tmp_path, stack(), grey), "254")
    refused(put(tmp_path, stack(), stack(5)), "...")
    refused(put(tmp_path, stack().astype(np.uint16), mask()), "uint16", IMAGES)
    put(tmp_path, stack(), mask())
    whole = (tmp_path / LABELS).read_bytes()
    (tmp_path / LABELS).write_bytes(whole[:300])
    refused(tmp_path, LABELS, "cut short")
    monkeypatch.setenv("MINUNET_DATA", str(tmp_path / "typo"))
    with pytest.raises(UserError, match=r"MINUNET_DATA=.*typo: no such folder"):
        load_isbi()


def test_a_damaged_cache_says_how_to_mend_it(tmp_path):
    cache = put(tmp_path / "cache" / "isbi2012", stack(), mask())
    (cache / IMAGES).write_bytes(b"II*\0")
    with pytest.raises(UserError) as caught:
        load_isbi()
    assert f"delete {cache}" in str(caught.value)


class Answer(io.BytesIO):
    """What urlopen returns, as far as it is used."""

    def __init__(self, data: bytes, length: int | None = None, begin: int = 0) -> None:
        super().__init__(data[begin:])
        self.status = 206 if begin else 200
        self.headers = {"Content-Length": str(len(data[begin:]) if length is None else length)}
        if begin:
            self.headers["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A dict address ending -> bytes, Answer or exception, served instead of the network; known checksums fit."""
    arrays = {IMAGES: stack(11), LABELS: mask(12), TEST: stack(13)}
    files = {}
    for name, array in arrays.items():
        write_tiff(tmp_path / name, array)
        files[name] = (tmp_path / name).read_bytes()
        (tmp_path / name).unlink()
        monkeypatch.setitem(PIXELS_SHA256, name, pixels_sha256(array))
    served: dict = {"files": files, "asked": []}

    def urlopen(request, timeout):
        assert timeout == download.CONNECT_SECONDS
        address = request.full_url
        assert address.startswith("https://")
        name = address.rsplit("/", 1)[1]
        served["asked"].append(name)
        if name not in served:
            raise HTTPError(address, 404, "Not Found", {}, None)
        answer = served[name]
        if isinstance(answer, BaseException):
            raise answer
        begin = int(request.get_header("Range", "bytes=0-")[6:-1])
        if begin:
            served["resumed"] = begin
        return answer if isinstance(answer, Answer) else Answer(answer, begin=begin)

    monkeypatch.setattr(download, "urlopen", urlopen)
    return served


ZIP = "ISBI-2012-challenge.zip"


def zipped(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def only_the_stacks_in(tmp_path: Path) -> bool:
    left = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
    return left == sorted(f"cache/isbi2012/{name}" for name in (IMAGES, LABELS, TEST))


def test_download_of_the_archive(server, tmp_path):
    files = server["files"]
    extra = {"__MACOSX/x/train-volume.tif": b"?", "../evil.tif": b"?", "x/old-train-volume.tif": b"?"}
    server[ZIP] = zipped({f"ISBI/{name}": data for name, data in files.items()} | extra)
    data = load_isbi()
    assert np.array_equal(data.images, stack(11)) and np.array_equal(data.labels, mask(12) > 0)
    assert "downloaded from https://downloads.imagej.net" in data.source and "other pixels" not in data.source
    assert only_the_stacks_in(tmp_path)
    assert load_isbi().sha256 == data.sha256  # now from the cache
    assert server["asked"] == [ZIP]


@pytest.mark.parametrize("trouble", ["missing", "cut", "no zip", "twice", "absent", "checksum", "page"])
def test_single_files_when_the_archive_fails(server, tmp_path, trouble):
    files = dict(server["files"])
    whole = zipped(files)
    write_tiff(tmp_path / "other.tif", stack(99))
    other = (tmp_path / "other.tif").read_bytes()
    (tmp_path / "other.tif").unlink()
    server.update(files)
    if trouble == "cut":
        server[ZIP] = Answer(whole[:-40], len(whole))
    elif trouble == "no zip":
        server[ZIP] = whole[: len(whole) // 2]
    elif trouble == "twice":
        server[ZIP] = zipped(files | {"again/train-volume.tif": b"?"})
    elif trouble == "absent":
        server[ZIP] = zipped({IMAGES: files[IMAGES]})
    elif trouble == "checksum":
        server[ZIP] = zipped(files | {IMAGES: other})
    elif trouble == "page":
        server[ZIP] = zipped(files | {IMAGES: b"<html>log in</html>"})
    data = load_isbi()
    assert not data.synthetic and "raw.githubusercontent.com" in data.source
    assert np.array_equal(data.images, stack(11))
    assert only_the_stacks_in(tmp_path)


@pytest.mark.parametrize("single", [False, True])
def test_a_download_that_was_cut_off_goes_on(server, tmp_path, single):
    """Of the archive, or of the second of the single files."""
    files = dict(server["files"])
    name, whole = (LABELS, files[LABELS]) if single else (ZIP, zipped(files))
    server.update({IMAGES: files[IMAGES]} if single else {})
    server[name] = Answer(whole[:-40], len(whole))
    data = load_isbi()
    assert data.synthetic and f"ended after {len(whole) - 40} of {len(whole)} bytes" in data.source
    server.update(files if single else {})
    server[name] = whole
    data = load_isbi()
    assert not data.synthetic and server["resumed"] == len(whole) - 40
    assert np.array_equal(data.images, stack(11)) and np.array_equal(data.labels, mask(12) > 0)
    assert only_the_stacks_in(tmp_path)


def test_what_was_kept_of_another_file_is_given_up(server, tmp_path):
    part = tmp_path / "cache" / "isbi2012" / f".{ZIP}.part"
    part.parent.mkdir(parents=True)
    whole = zipped(server["files"])
    server[ZIP] = whole
    part.write_bytes(bytes(100) + whole[100:2000])
    assert load_isbi().synthetic  # damaged, and there are no single files
    assert not part.exists() and not load_isbi().synthetic


def test_sizes_are_limited(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "MAX_FILE_BYTES", 5000)
    monkeypatch.setattr(download, "MAX_ARCHIVE_BYTES", 60_000)
    files = server["files"]
    server[ZIP] = zipped(files | {IMAGES: bytes(3_000_000)})  # a bomb: 3 kB in the archive
    server[IMAGES] = Answer(bytes(10), 10**9)
    source = load_isbi().source
    assert "larger than" in source and "953 MiB" in source
    server[ZIP] = Answer(bytes(100_000), 100)  # sends more than it declared, and than the limit
    server[IMAGES] = URLError(OSError(101, "Network is unreachable"))
    source = load_isbi().source
    assert "sends more than" in source and "Network is unreachable" in source
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_without_a_connection_it_is_quick_and_plain(monkeypatch, tmp_path):
    ended = threading.Event()

    def hang(request, timeout):
        ended.wait(120)
        raise AssertionError("nobody waits for this")

    monkeypatch.setattr(download, "urlopen", hang)
    monkeypatch.setattr(download, "CONNECT_SECONDS", 0.1)
    start = time.monotonic()
    data = load_isbi()
    assert time.monotonic() - start < 60
    ended.set()
    assert data.synthetic and data.source.startswith("SYNTHETIC") and "no answer within" in data.source
    assert "\n" not in data.source
    assert 3 <= CONNECT_SECONDS <= 5  # two servers at the real setting: soon, but not too soon


def test_a_cache_that_cannot_be_made(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("MINUNET_CACHE", str(tmp_path / "file"))
    data = load_isbi()
    assert data.synthetic and "cannot be made" in data.source and "MINUNET_CACHE" in data.source


def test_split():
    train, held = split(30)
    assert held.tolist() == [25, 26, 27, 28, 29] and train.tolist() == list(range(25))
    for n in range(2, 40):
        train, held = split(n)
        assert sorted([*train, *held]) == list(range(n)) and 1 <= len(held) <= 5 and len(train) >= len(held)
    train, held = split(5, [3, 0, 3])
    assert train.tolist() == [1, 2, 4] and held.tolist() == [0, 3]
    assert split(5, np.array([4]))[1].tolist() == [4]
    for n, chosen in [(1, None), (0, None), (4, []), (4, [4]), (4, [-1]), (4, [1.5]), (4, [True]), (4, range(4))]:
        with pytest.raises(UserError) as caught:
            split(n, chosen)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("folder", [os.environ.get("MINUNET_DATA", str(SHARED))])
def test_the_real_data(folder):
    if not any((Path(folder) / below / IMAGES).exists() for below in ("", "isbi2012", "isbi")):
        pytest.skip("ISBI 2012 is not on this machine; set MINUNET_DATA to the folder that holds it")
    data = load_isbi(folder)
    assert data.images.shape == data.labels.shape == (30, 512, 512)
    assert "other pixels" not in data.source and "exchanged" not in data.source
    assert abs((data.labels == 0).mean() - 0.2196) < 5e-5
    assert abs(data.images.mean() - 126.16) < 0.005
    assert data.images[data.labels == 0].mean() < data.images[data.labels == 1].mean() - 30  # membranes are dark
