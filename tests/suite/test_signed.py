"""Files whose hashes are known: each is read once in a process, and again whenever it has changed."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from suite import files, shards, signed, work
from suite.errors import CheckpointError
from suite.shards import holds_shard, write_shard
from suite.signed import is_sealed, once, read_signed, seal, sha256_of, signed_or_none, write_signed, written

HOUR_NS = 3600 * 10**9


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch):
    monkeypatch.setattr(signed, "_known", {})


@pytest.fixture
def file(tmp_path) -> Path:
    """Written an hour ago."""
    path = tmp_path / "file"
    path.write_bytes(b"as it was")
    aged(path)
    return path


def aged(path: Path) -> None:
    time = path.stat().st_mtime_ns - HOUR_NS
    os.utime(path, ns=(time, time))


class Reader:
    """Stands in for hashing, and counts."""

    def __init__(self):
        self.times = 0

    def __call__(self, path):
        self.times += 1
        return path.read_text()


def flip(path: Path) -> None:
    """One bit, where it lies."""
    with path.open("r+b") as opened:
        opened.seek(-1, os.SEEK_END)
        last = opened.read(1)[0]
        opened.seek(-1, os.SEEK_END)
        opened.write(bytes([last ^ 1]))


def test_a_record_is_given_whole_or_not_at_all(tmp_path):
    path = tmp_path / "record.json"
    assert signed_or_none(path) is None
    write_signed(path, {"a": [1, 2]})
    assert signed_or_none(path) == read_signed(path) == {"a": [1, 2]}
    path.write_text(path.read_text().replace("2", "3"))
    assert signed_or_none(path) is None
    with pytest.raises(CheckpointError, match=r"record\.json is missing or damaged"):
        read_signed(path)


@pytest.mark.parametrize("empty", ["[]", '"text"', "{}", "null"])
def test_what_is_json_but_no_record_is_none(tmp_path, empty):
    (tmp_path / "record.json").write_text(empty)
    assert signed_or_none(tmp_path / "record.json") is None


def test_an_old_file_is_read_once_by_whatever_name(file):
    reader, link = Reader(), file.with_name("link")
    link.hardlink_to(file)
    assert [once(reader, file), once(reader, file), once(reader, link)] == ["as it was"] * 3
    assert reader.times == 1


def test_each_way_of_hashing_has_its_own_results(file):
    assert once(lambda _: "one", file) + once(lambda _: "two", file) == "onetwo"


def test_a_file_that_has_just_changed_may_change_again_within_a_tick_of_the_clock(file):
    reader, time = Reader(), file.stat().st_mtime_ns + HOUR_NS
    os.utime(file, ns=(time, time))
    once(reader, file)
    file.write_bytes(b"otherwise")
    os.utime(file, ns=(time, time))
    assert once(reader, file) == "otherwise"


@pytest.mark.parametrize("how", ["in place", "another file"])
def test_a_file_that_changed_is_read_again(file, how):
    reader, stat = Reader(), file.stat()
    once(reader, file)
    if how == "another file":
        file.rename(file.with_name("kept"))
    file.write_bytes(b"otherwise")
    if how == "another file":
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert once(reader, file) == "otherwise"


def test_what_was_written_is_not_read_until_it_changes(file):
    reader = Reader()
    written(file, {reader: "as it was"})
    assert once(reader, file) == "as it was" and not reader.times
    flip(file)
    assert once(reader, file) != "as it was"


def test_what_changes_in_the_tick_of_the_clock_in_which_it_was_written_is_read_again(file):
    tick = file.stat().st_mtime_ns
    written(file, {Path.read_text: "as it was"})
    flip(file)
    os.utime(file, ns=(tick, tick))
    assert once(Path.read_text, file) != "as it was"


def test_forgetting_has_everything_read_again(file):
    reader = Reader()
    once(reader, file)
    signed.forget()
    once(reader, file)
    assert reader.times == 2


def test_hashes_of_files_that_are_there_by_their_names(file):
    found = sha256_of(file.parent, ["nobody", "file"])
    assert found == {"file": files.file_sha256(file)}


def test_a_seal_breaks_with_any_file_of_the_folder(file):
    seal(file.parent)
    assert is_sealed(file.parent)
    flip(file)
    assert not is_sealed(file.parent)
    file.unlink()
    assert not is_sealed(file.parent)


def test_a_shard_that_is_damaged_as_soon_as_it_is_written_is_noticed(tmp_path):
    path = tmp_path / "block_000.safetensors"
    for _ in range(20):
        write_shard(path, {}, {"w": torch.arange(64.0)}, "mine")
        assert holds_shard(path, "mine") and not holds_shard(path, "another's")
        flip(path)
        assert not holds_shard(path, "mine")


@pytest.fixture
def hashed(monkeypatch) -> SimpleNamespace:
    """Bytes of shards hashed as they are written, and names of files that were read for their hash."""
    found, sha256, file_digest = (
        SimpleNamespace(bytes=0, read=[]),
        shards.hashlib.sha256,
        files.hashlib.file_digest,
    )

    class Counted:
        def __init__(self, data=b""):
            self.inner = sha256()
            self.update(data)

        def update(self, data):
            found.bytes += memoryview(data).nbytes
            self.inner.update(data)

        def hexdigest(self):
            return self.inner.hexdigest()

    def counting(file, name):
        found.read.append(Path(file.name))
        return file_digest(file, name)

    monkeypatch.setattr(shards, "hashlib", SimpleNamespace(sha256=Counted))
    monkeypatch.setattr(files, "hashlib", SimpleNamespace(file_digest=counting))
    return found


METHODS = {
    "dense": {},
    "nowag-p": {"sparsity": 0.5},
    "rtn": {"bits": 4, "group_size": 16, "layers": "model.layers.1.*"},
}


def shards_of(folder: Path) -> dict[int, Path]:
    """The files with tensors of a results folder, each once."""
    found = [path for place in ("cells", "shared") for path in folder.glob(f"{place}/*/*.safetensors")]
    return {path.stat().st_ino: path for path in found}


def test_a_run_hashes_every_shard_twice_as_it_is_written_and_never_reads_it_for_that(
    no_tracking, run_with, hashed
):
    outcome = run_with(methods=METHODS)
    assert {row.status for row in outcome.rows} == {"ok"}
    stored = sum(path.stat().st_size for path in shards_of(outcome.folder).values())
    assert stored < hashed.bytes <= 2 * stored  # its tensors, for the header, and all of the file
    assert not [
        path for path in hashed.read if path.suffix == ".safetensors" and outcome.folder.name in path.parts
    ]


def test_a_shard_that_is_damaged_between_writing_and_loading_makes_no_row(no_tracking, run_with, monkeypatch):
    finish = work.finish

    def harmed(subject, job, *rest):
        finish(subject, job, *rest)
        if job.cell.method.name == "nowag-p":
            flip(job.shard(1))

    monkeypatch.setattr(work, "finish", harmed)
    row = next(row for row in run_with().rows if row.method == "nowag-p")
    assert row.status == "failed" and "block_001.safetensors is missing or damaged" in row.reason


def test_a_shard_that_is_damaged_between_writing_and_finishing_is_no_cells(no_tracking, run_with, monkeypatch):
    finish = work.finish

    def harmed(subject, job, *rest):
        flip(job.shard(0))
        finish(subject, job, *rest)

    monkeypatch.setattr(work, "finish", harmed)
    with pytest.raises(CheckpointError, match=r"block_000\.safetensors is missing or damaged"):
        run_with()
