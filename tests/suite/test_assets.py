import errno
import hashlib
import subprocess
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from suite.assets import Wheel, built_once, cache_dir, fetch
from suite.errors import AssetError

MEMBERS = {"pack/text.txt": "hello", "pack/more.txt": "again"}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NOWAG_BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def index(tmp_path):
    return tmp_path / "index"


@pytest.fixture
def publish(index):
    def publish(members=MEMBERS):
        index.mkdir(exist_ok=True)
        file = index / "pack-1.0-py3-none-any.whl"
        with zipfile.ZipFile(file, "w") as archive:
            for name, text in members.items():
                archive.writestr(zipfile.ZipInfo(name), text)  # dated 1980: the same bytes whenever it is made
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        return Wheel(name="pack", version="1.0", filename=file.name, sha256=digest)

    return publish


@pytest.fixture
def pip(index, monkeypatch):
    """A pip that copies from `index` and keeps the commands it was called with."""
    commands = []

    def run(command, **_):
        commands.append(command)
        time.sleep(0.05)
        (folder := Path(command[-2].removeprefix("--dest="))).mkdir()
        for file in index.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        return subprocess.CompletedProcess(command, 0, stderr="")

    monkeypatch.setattr("suite.assets.subprocess.run", run)
    return commands


@pytest.fixture
def broken_pip(monkeypatch):
    stderr = "WARNING: Retrying\nERROR: No matching distribution found for pack==1.0\n"
    failed = subprocess.CompletedProcess([], 1, stderr=stderr)
    monkeypatch.setattr("suite.assets.subprocess.run", lambda *_, **__: failed)


def content(folder):
    return {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*.txt") if file.is_file()}


def test_a_fetched_folder_holds_the_wheel_and_nothing_else(publish, pip):
    assert content(fetch(publish())) == MEMBERS


def test_pip_is_asked_for_the_exact_version_as_a_wheel_without_dependencies(publish, pip):
    fetch(publish())
    assert {"pack==1.0", "--no-deps", "--only-binary=:all:"} <= set(pip[0])


def test_what_was_fetched_once_is_there_offline(publish, pip):
    wheel = publish()
    assert fetch(wheel) == fetch(wheel, offline=True)
    assert len(pip) == 1


def test_a_wheel_put_by_hand_replaces_the_download(publish, pip, index, cache):
    wheel = publish()
    (cache / "wheels").mkdir(parents=True)
    (index / wheel.filename).rename(cache / "wheels" / wheel.filename)
    assert content(fetch(wheel, offline=True)) == MEMBERS
    assert not pip


def test_another_sha256_is_refused_until_the_right_file_comes(publish, pip):
    pinned = publish()
    publish({"pack/text.txt": "forged"})
    with pytest.raises(AssetError, match=pinned.sha256):
        fetch(pinned)
    publish()
    assert content(fetch(pinned)) == MEMBERS


@pytest.mark.parametrize("name", ["../escaped.txt", "pack/../../escaped.txt", "/escaped.txt"])
def test_a_member_that_escapes_the_folder_is_refused_before_anything_is_written(publish, pip, cache, name):
    with pytest.raises(AssetError, match="outside"):
        fetch(publish({"pack/text.txt": "hello", name: "escaped"}))
    assert not list(cache.rglob("*.txt"))


def test_four_fetches_at_once_download_once(publish, pip):
    wheel = publish()
    with ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(fetch, [wheel] * 4))
    assert len(pip) == len(folders) == 1


def test_leftovers_of_a_killed_process_are_swept_away(publish, pip, cache):
    wheel = publish()
    leftover = cache / f"pack-1.0-{wheel.sha256[:12]}.partial"
    leftover.mkdir(parents=True)
    (leftover / "half.txt").write_text("hal")
    assert content(fetch(wheel)) == MEMBERS


def test_a_filling_that_fails_leaves_no_folder(tmp_path):
    def interrupted(folder):
        (folder / "half.txt").write_text("hal")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        built_once(tmp_path / "built", interrupted)
    assert not (tmp_path / "built").exists()


def test_offline_without_the_wheel_names_the_file_and_where_to_put_it(publish, cache):
    wheel = publish()
    with pytest.raises(AssetError, match=f"offline.*{wheel.filename} into {cache / 'wheels'}") as error:
        fetch(wheel, offline=True)
    assert "\n" not in str(error.value)


def test_what_stopped_pip_is_told_in_one_line(publish, broken_pip):
    with pytest.raises(AssetError, match=r"\(No matching distribution found for pack==1.0\); connect") as error:
        fetch(publish())
    assert "\n" not in str(error.value)


def test_a_full_disk_is_told_in_one_line(tmp_path):
    def full(folder):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(AssetError, match="No space left on device; free space there or set NOWAG_BENCH_CACHE"):
        built_once(tmp_path / "built", full)


def test_the_cache_lies_where_the_user_says(cache, monkeypatch):
    assert cache_dir() == cache
    monkeypatch.delenv("NOWAG_BENCH_CACHE")
    assert cache_dir().name == "nowag-bench"
