"""What is recorded about a machine, and what stops a run before it starts."""

import getpass
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.request import Request

import pytest

from suite import environment
from suite.environment import Check, check_installation, describe, diagnose, variables
from suite.errors import EnvironmentProblem

Install = Callable[..., None]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Pretend that distributions are installed in these versions (None: not at all)."""
    real = environment._version

    def pretend(**versions: str | None) -> None:
        monkeypatch.setattr(environment, "_version", lambda name: versions.get(name, real(name)))

    return pretend


@pytest.fixture
def checks(tmp_path: Path) -> Callable[..., dict[str, Check]]:
    def look(**options: str) -> dict[str, Check]:
        found = diagnose(tmp_path / "out" / "new", tmp_path / "cache", offline=True, **options)
        return {check.name: check for check in found}

    return look


def test_the_hubs_kernels_package_stops_the_run_in_one_line_with_the_remedy(install: Install) -> None:
    install(kernels="0.9.0")
    with pytest.raises(EnvironmentProblem, match=r"kernels 0\.9\.0.*pip uninstall kernels") as caught:
        check_installation()
    assert "\n" not in str(caught.value)


def test_without_the_foreign_package_the_installation_is_fine(install: Install) -> None:
    install(kernels=None)
    check_installation()


def test_checking_the_installation_loads_no_torch() -> None:
    code = "import sys, suite.environment as e; e.check_installation(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0


def test_a_description_is_json_and_the_same_all_through_a_process() -> None:
    assert json.loads(json.dumps(describe())) == describe()
    assert describe() is describe()


def test_a_description_says_where_the_numbers_come_from() -> None:
    found = describe()
    assert found["python"] == sys.version.split()[0]
    assert found["cores"] == len(os.sched_getaffinity(0))
    assert {"torch", "transformers", "mlflow"} <= found["versions"].keys()
    assert found["processor"] in found["machine"]


def test_a_description_names_neither_host_nor_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    text = json.dumps(describe.__wrapped__())
    assert socket.gethostname() not in text
    assert "hf_secret" not in text
    assert f"/{getpass.getuser()}" not in text


def git(tree: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    return subprocess.check_output(["git", "-C", str(tree), *identity, *arguments], text=True).strip()


def test_the_commit_is_the_source_trees_and_a_changed_file_makes_it_dirty(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-qm", "first")
    clean = environment._source(tmp_path)
    (tmp_path / "a").write_text("2")
    assert clean == {"commit": git(tmp_path, "rev-parse", "HEAD"), "dirty": False}
    assert environment._source(tmp_path) == clean | {"dirty": True}


def test_an_installed_package_inside_somebody_elses_checkout_has_no_commit(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-qm", "theirs", "--allow-empty")
    (tmp_path / "lib").mkdir()
    assert environment._source(tmp_path / "lib") == {"commit": None, "dirty": None}


@pytest.mark.parametrize(
    ("name", "version", "ok"),
    [
        ("torch", "2.11.0+cpu", True),
        ("torch", "2.9.1", False),
        ("transformers", "5.16.9", False),
        ("torch", None, False),
    ],
)
def test_versions_compare_as_versions_and_not_as_text(
    install: Install, checks: Callable[..., dict[str, Check]], name: str, version: str | None, ok: bool
) -> None:
    install(**{name: version})
    check = checks()[name]
    assert check.ok is ok
    assert ("pip install" in check.remedy) is not ok


def test_little_disk_is_a_problem_and_nothing_is_created_by_looking(
    monkeypatch: pytest.MonkeyPatch, checks: Callable[..., dict[str, Check]], tmp_path: Path
) -> None:
    monkeypatch.setattr(environment, "FREE_GIB", 1e9)
    assert checks()["disk for results"].ok is False
    assert list(tmp_path.iterdir()) == []


def test_an_offline_diagnosis_asks_nobody(
    monkeypatch: pytest.MonkeyPatch, checks: Callable[..., dict[str, Check]]
) -> None:
    monkeypatch.setattr(environment, "_answers", lambda url: pytest.fail(f"asked {url}"))
    assert checks()["hub"].ok is None


def test_a_tracking_server_that_is_away_is_a_problem_found_quickly(
    checks: Callable[..., dict[str, Check]],
) -> None:
    start = time.monotonic()
    assert checks(tracking_uri="http://user:secret@127.0.0.1:9")["tracking server"].ok is False
    assert time.monotonic() - start < 30  # retries would take minutes


def test_credentials_of_a_tracking_server_are_not_shown(checks: Callable[..., dict[str, Check]]) -> None:
    assert "secret" not in str(checks(tracking_uri="http://user:secret@127.0.0.1:9"))


def test_the_hub_is_given_three_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, float]] = []

    def urlopen(request: Request, timeout: float) -> None:
        asked.append((request.full_url, timeout))
        raise TimeoutError

    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    monkeypatch.setenv("HF_ENDPOINT", "http://mirror.example")
    assert environment._hub().ok is None
    assert asked == [("http://mirror.example", 3.0)]


def test_variables_yield_to_the_users_and_are_taken_away_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOWAG_SET", "user")
    monkeypatch.delenv("NOWAG_UNSET", raising=False)
    with variables({"NOWAG_SET": "ours", "NOWAG_UNSET": "ours"}):
        assert (os.environ["NOWAG_SET"], os.environ["NOWAG_UNSET"]) == ("user", "ours")
    assert os.environ["NOWAG_SET"] == "user"
    assert "NOWAG_UNSET" not in os.environ


@pytest.mark.parametrize("theirs", [None, environment.ALLOCATOR, "PYTORCH_CUDA_ALLOC_CONF"])
def test_memory_of_gpus_grows_in_segments_where_the_user_says_nothing(
    theirs: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (environment.ALLOCATOR, "PYTORCH_CUDA_ALLOC_CONF"):
        monkeypatch.setenv(name, "")  # so that it is put back afterwards
        monkeypatch.delenv(name)
    if theirs:
        monkeypatch.setenv(theirs, "max_split_size_mb:64")
    environment.let_segments_grow()
    assert os.environ.get(environment.ALLOCATOR) == (
        {None: "expandable_segments:True", environment.ALLOCATOR: "max_split_size_mb:64"}.get(theirs)
    )
