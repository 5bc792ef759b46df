import threading
from functools import cache
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

from suite import hub
from suite.errors import AssetError


@pytest.fixture(autouse=True)
def fresh_probe(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "reachable", cache(hub.reachable.__wrapped__))


@pytest.fixture
def server(monkeypatch):
    """A server that answers every request with a refusal, at the hub's address."""
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        server.RequestHandlerClass.log_message = lambda *_: None
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setattr(hub.constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        yield server
        server.shutdown()


@pytest.fixture
def failing(monkeypatch):
    def failing(error):
        def download(*_, **__):
            raise error.__new__(error)

        monkeypatch.setattr(hub, "reachable", lambda: True)
        monkeypatch.setattr(hub, "snapshot_download", download)

    return failing


def test_any_answer_means_the_hub_is_there(server):
    assert hub.reachable()


def test_a_closed_port_means_it_is_not(monkeypatch):
    monkeypatch.setattr(hub.constants, "ENDPOINT", "http://127.0.0.1:1")
    assert not hub.reachable()


def test_the_hub_is_asked_once(server):
    hub.reachable()
    server.shutdown()
    server.server_close()
    assert hub.reachable()


def test_the_offline_switch_is_believed_without_asking(server, monkeypatch):
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    assert not hub.reachable()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RepositoryNotFoundError, "the hub knows no model 'org/name'; check the spelling"),
        (GatedRepoError, "accepted licence for model 'org/name'"),
        (LocalEntryNotFoundError, "cannot be reached; connect once"),
    ],
)
def test_each_failure_has_its_own_line(failing, error, words):
    failing(error)
    with pytest.raises(AssetError, match=words) as raised:
        hub.snapshot("org/name", ["*.json"])
    assert "\n" not in str(raised.value)


def test_offline_never_asks_the_hub(monkeypatch):
    monkeypatch.setattr(hub, "reachable", lambda: pytest.fail("the hub was asked"))
    with pytest.raises(AssetError, match="at 'v9' is not in .* and this run is offline"):
        hub.snapshot("nowag-bench/no-such-model", ["*.json"], revision="v9", offline=True)


def test_a_name_without_form_is_refused():
    with pytest.raises(AssetError, match="'a b' is no hub name"):
        hub.snapshot("a b", ["*.json"], offline=True)
