"""A tracking server that is away, slow or broken for a while: the run goes on, and each row gets there once."""

import http.client
import itertools
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from harness import NAME, STORE, check_results, command, journal_of

from suite import tracking
from suite.commands import machine

PATIENCE, LATE = "1", 1.5  # seconds that the client waits, and after which a slow server answers
START_SECONDS = 60.0


class Proxy(BaseHTTPRequestHandler):
    """Stands before the server and passes requests on, but for those that `fault` says something else of."""

    server_port = 0
    fault: Callable[[int, str], str] = staticmethod(lambda number, path: "none")
    numbers: Iterator[int] = itertools.count()

    def _pass_on(self) -> None:
        fault = self.fault(next(self.numbers), self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if fault == "away":
            self.connection.shutdown(socket.SHUT_RDWR)
        elif fault == "broken":
            self._answer(500, b'{"error_code": "INTERNAL_ERROR", "message": "out of order"}')
        else:
            server = http.client.HTTPConnection("127.0.0.1", self.server_port)
            kept = {key: value for key, value in self.headers.items() if key not in ("Host", "Connection")}
            server.request(self.command, self.path, body, kept)
            found = server.getresponse()
            answer = found.status, found.read()
            server.close()
            if fault == "late":
                time.sleep(LATE)
            self._answer(*answer)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _pass_on  # noqa: N815 - http.server's names

    def _answer(self, status: int, body: bytes) -> None:
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except OSError:
            pass  # the client did not wait

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def database(whole, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """That of a real server, which the proxy passes requests on to."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(whole.folder.parent / STORE, folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        Proxy.server_port = free.getsockname()[1]
    where = ["--host=127.0.0.1", f"--port={Proxy.server_port}", "--workers=1"]
    stores = [f"--backend-store-uri=sqlite:///{folder / STORE}", f"--artifacts-destination={folder / 'artifacts'}"]
    with (folder / "log").open("wb") as log:
        command = [sys.executable, "-m", "mlflow", "server", *where, *stores]
        server = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for(Proxy.server_port, (folder / "log"))
        yield folder / STORE
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def wait_for(port: int, log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    pytest.fail(log.read_text())


@pytest.fixture
def proxy(database, monkeypatch) -> Iterator[str]:
    """Its address."""
    monkeypatch.setattr(Proxy, "numbers", itertools.count())
    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def rows_of_study(database: Path, folder: Path) -> Counter[str]:
    """How many runs each row of a results folder has on the server."""
    study = tracking.Tracker(folder / NAME, "").folder_id
    query = (
        "select own.value from runs join tags own using (run_uuid) join tags study using (run_uuid) where "
        "own.key = 'row_id' and study.key = 'study' and study.value = ? and lifecycle_stage = 'active' "
        "and status in ('FINISHED', 'RUNNING')"
    )
    with sqlite3.connect(database) as opened:
        return Counter(value for (value,) in opened.execute(query, [study]))


def tracked_at(folder: Path, uri: Path) -> None:
    """The run with a server, asked again at once after it failed."""
    os.environ |= {"MLFLOW_TRACKING_URI": str(uri).replace(":/", "://"), "MLFLOW_HTTP_REQUEST_TIMEOUT": PATIENCE}
    tracking.RETRY_SECONDS = 0.1
    command(folder)


def synced_to(folder: Path, uri: Path) -> None:
    os.environ["MLFLOW_TRACKING_URI"] = str(uri).replace(":/", "://")
    machine.sync(folder / NAME)


FOR_GOOD, A_WHILE, ONCE = range(1 << 30), range(2, 12), range(9, 10)
A_ROW = "the creation of a row's run"  # which the client asks for again, and the server then does twice
TABLE = [("away", FOR_GOOD), ("away", A_WHILE), ("broken", A_WHILE), ("late", A_ROW)]
MORE = [
    ("away", ONCE),
    ("broken", FOR_GOOD),
    ("broken", ONCE),
    ("late", ONCE),
    ("late", FOR_GOOD),
    ("late", A_WHILE),
]


@pytest.mark.parametrize(
    ("fault", "spell"), [*TABLE, *(pytest.param(*each, marks=pytest.mark.slow) for each in MORE)]
)
def test_rows_get_there_once_whatever_the_server_does(
    mortal, whole, folder, database, proxy, monkeypatch, fault, spell
) -> None:
    creations = itertools.count()

    def disturbing(number: int, path: str) -> str:
        now = path.endswith("runs/create") and next(creations) == 1 if spell is A_ROW else number in spell
        return fault if now else "none"

    monkeypatch.setattr(Proxy, "fault", staticmethod(disturbing))
    ended = mortal.ended(tracked_at, folder, proxy)
    assert ended.code == 0 and not ended.traceback, ended.said
    check_results(folder, whole.folder)
    monkeypatch.setattr(Proxy, "fault", staticmethod(lambda number, path: "none"))
    assert mortal.ended(synced_to, folder, proxy).code == 0
    assert rows_of_study(database, folder) == Counter(row.row_id for row in journal_of(folder))
