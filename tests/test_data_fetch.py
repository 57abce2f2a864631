"""Fetching and unpacking archives: resumed, bounded, checked; nothing is ever written outside the folder."""

from __future__ import annotations

import hashlib
import io
import socket
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from minunet import cli
from minunet.data import fetch as module
from minunet.data import hela
from minunet.data.__main__ import main
from minunet.data.download import DownloadError
from minunet.data.fetch import fetch, unpack
from minunet.data.images import write_tiff

BODY = np.random.default_rng(0).bytes(700_001)
SHA = hashlib.sha256(BODY).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves BODY (or `server.body`); `server.cut` bytes only of the first answer, `server.ranges`: honours Range."""

    def do_GET(self):
        if self.path == "/gone.zip":
            self.send_error(404)
            return
        if self.path in ("/loop.zip", "/far.zip", "/file.zip"):
            self.send_response(302)
            there = {"/loop.zip": "/loop.zip", "/far.zip": "/a.zip", "/file.zip": "file:///etc/passwd"}[self.path]
            self.send_header("Location", there)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body, begin = self.server.body, 0
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        if asked and self.server.ranges:
            begin = int(asked.removeprefix("bytes=").rstrip("-"))
            if begin >= len(body):
                self.send_error(416)
                return
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin + self.server.shift}-{len(body) - 1}/{len(body)}")
        if self.server.tell:
            self.send_header("Content-Length", str(len(body) - begin))
        self.end_headers()
        self.wfile.write(body[begin : begin + self.server.cut])
        self.server.cut = len(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(module, "SECONDS", 600.0)  # for a server on a busy machine
    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.body, made.cut, made.ranges, made.tell, made.asked = BODY, len(BODY), True, True, []
    made.shift = 0
    made.address = f"http://127.0.0.1:{made.server_port}/a.zip"
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


@pytest.mark.parametrize("ranges", [True, False])
def test_a_cut_download_goes_on(server, tmp_path, ranges):
    server.cut, server.ranges, target = 300_000, ranges, tmp_path / "new" / "a.zip"
    with pytest.raises(DownloadError, match="call again to go on"):
        fetch(server.address, target, SHA, 1 << 20)
    assert not target.exists() and (tmp_path / "new" / "a.zip.part").stat().st_size == 300_000
    fetch(server.address, target, SHA, 1 << 20)
    assert target.read_bytes() == BODY and not (tmp_path / "new" / "a.zip.part").exists()
    assert server.asked == [None, "bytes=300000-"]


def test_a_whole_part_is_checked_and_a_wrong_one_removed(server, tmp_path):
    (tmp_path / "a.zip.part").write_bytes(BODY)
    fetch(server.address, tmp_path / "a.zip", SHA, 1 << 20)
    assert (tmp_path / "a.zip").read_bytes() == BODY
    (tmp_path / "b.zip.part").write_bytes(b"x" * 1000)
    with pytest.raises(DownloadError, match="checksum"):
        fetch(server.address, tmp_path / "b.zip", SHA, 1 << 20)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zip"]


@pytest.mark.parametrize("tell", [True, False])
def test_limits_and_errors(server, tmp_path, tell):
    server.tell = tell
    with pytest.raises(DownloadError, match=r"limit of 0 MiB|more than 0 MiB"):
        fetch(server.address, tmp_path / "a.zip", SHA, 600_000)
    with pytest.raises(DownloadError, match="404"):
        fetch(server.address.replace("a.zip", "gone.zip"), tmp_path / "c.zip", SHA, 1 << 20)
    with socket.socket() as nobody, pytest.raises(DownloadError, match="refused"):
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        fetch(f"http://127.0.0.1:{nobody.getsockname()[1]}/x.zip", tmp_path / "d.zip", SHA, 1 << 20)
    assert not [p for p in tmp_path.iterdir() if p.suffix == ".zip"]


def test_redirects(server, tmp_path):
    fetch(server.address.replace("a.zip", "far.zip"), tmp_path / "a.zip", SHA, 1 << 20)
    assert (tmp_path / "a.zip").read_bytes() == BODY
    for name, words in (("loop.zip", "infinite loop"), ("file.zip", "302")):
        with pytest.raises(DownloadError, match=words) as caught:
            fetch(server.address.replace("a.zip", name), tmp_path / name, SHA, 1 << 20)
        assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["a.zip"]


def test_a_cut_body_without_a_length_and_another_part_than_asked_for(server, tmp_path):
    server.cut, server.tell = 300_000, False  # nothing but the checksum tells
    with pytest.raises(DownloadError, match="checksum"):
        fetch(server.address, tmp_path / "a.zip", SHA, 1 << 20)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a.zip.part").write_bytes(BODY[:1000])
    server.shift = 7
    with pytest.raises(DownloadError, match="from byte 1007 on, not from 1000"):
        fetch(server.address, tmp_path / "a.zip", SHA, 1 << 20)
    server.shift = 0
    fetch(server.address, tmp_path / "a.zip", SHA, 1 << 20)
    assert (tmp_path / "a.zip").read_bytes() == BODY


def zipped(members: dict[str, bytes], link: str | None = None) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as z:
        for name, data in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (0o120777 if name == link else 0o100644) << 16
            z.writestr(info, data, zipfile.ZIP_DEFLATED)
    return file.getvalue()


def test_unpack(tmp_path):
    (tmp_path / "a.zip").write_bytes(zipped({"X/01/t0.tif": b"1", "X/r.txt": b"22", "__MACOSX/._r": b"3"}))
    unpack(tmp_path / "a.zip", tmp_path / "out", 10)
    assert (tmp_path / "out" / "01" / "t0.tif").read_bytes() == b"1"
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["01", "r.txt"]


@pytest.mark.parametrize(
    ("members", "word"),
    [
        ({"X/ok": b"", "X/../../evil": b"x"}, "evil"),
        ({"/etc/evil": b"x"}, "evil"),
        ({"../evil": b"x"}, "evil"),
        ({"X\\..\\evil": b"x"}, "evil"),
        ({"loose": b"x"}, "loose"),
        ({"X/link": b"/etc"}, "link"),
        ({"X/bomb": bytes(10**7)}, "more than is allowed"),
    ],
)
def test_unpack_refuses_and_leaves_nothing(tmp_path, members, word):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.zip").write_bytes(zipped(members, "X/link"))
    with pytest.raises(DownloadError, match=word):
        unpack(tmp_path / "in" / "a.zip", tmp_path / "in" / "out", 10**6)
    assert [p.name for p in tmp_path.rglob("*")] == ["in", "a.zip"]


def test_damaged_archives(tmp_path):
    whole = zipped({f"X/{k}": bytes(range(200)) * 9 for k in range(4)})
    for at in range(0, len(whole), 7):
        (tmp_path / "a.zip").write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :])
        try:
            unpack(tmp_path / "a.zip", tmp_path / f"out{at}", 10**5)
        except DownloadError as error:
            assert "\n" not in str(error)
        assert {p.name for p in tmp_path.iterdir()} <= {"a.zip", *(f"out{k}" for k in range(0, len(whole), 7))}


def test_the_command(server, tmp_path, monkeypatch, capsys):
    file = io.BytesIO()
    write_tiff(tmp_path / "t.tif", np.zeros((4, 4), np.uint8))
    file.write(zipped({"DIC-C2DH-HeLa/01/t000.tif": (tmp_path / "t.tif").read_bytes()}))
    server.body, server.cut = file.getvalue(), 10**9
    monkeypatch.setenv("MINUNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hela, "ADDRESS", server.address.replace("a.zip", "{}.zip"))
    monkeypatch.setitem(hela.SHA256, "hela", "0" * 64)
    assert cli.run(main, ["download", "hela"]) == 1
    err = capsys.readouterr().err
    assert "checksum" in err and err.count("\n") == 1
    monkeypatch.setitem(hela.SHA256, "hela", hashlib.sha256(server.body).hexdigest())
    assert cli.run(main, ["download", "hela"]) == 0
    assert (tmp_path / "cache" / "DIC-C2DH-HeLa" / "01" / "t000.tif").exists()
    assert not list((tmp_path / "cache").glob("*.zip*"))
    assert cli.run(main, ["download", "hela"]) == 0 and "is there already" in capsys.readouterr().out
