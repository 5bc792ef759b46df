"""Names that would be paths: refused in a line, or harmless; nothing is written outside the results."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from suite import hub
from suite.errors import AssetError
from suite.files import file_name, write_atomically
from suite.results import JOURNAL_NAME, Journal
from suite.tracking import Tracker

NAMES = {
    "upwards": "../../outside",
    "absolute": "/tmp/outside-of-the-results",
    "upwards within": "a/../../../outside",
    "NUL": "a\0b",
    "newline": "a\nb",
    "dash": "-rf",
    "dots": "..",
    "empty": "",
    "long": "n" * 300,
    "Windows": 'a<b>:"c|d?*',
    "backslash": "..\\outside",
    "device": "/dev/null",
}
PLACES: dict[str, Callable[[str], dict[str, Any]]] = {
    "recipe": lambda name: {"name": name},
    "model": lambda name: {"models": name},
    "model's revision": lambda name: {"models": f"organisation/model@{name}"},
    "method": lambda name: {"methods": {name: {}}},
    "setting": lambda name: {"methods": {"rtn": {name: 1}}},
    "layers": lambda name: {"methods": {"rtn": {"layers": name}}},
    "calibration": lambda name: {"calibration": {"source": name, "sequences": 4, "length": 32}},
    "calibration of the hub": lambda name: {
        "calibration": {"source": f"hub:{name}", "sequences": 4, "length": 32}
    },
    "protocol": lambda name: {"evaluation": name},
    "evaluation": lambda name: {"evaluation": {"source": name, "windows": 3, "length": 32}},
    "split": lambda name: {"evaluation": {"source": "boolq", "split": name or ".", "windows": 3, "length": 32}},
    "task": lambda name: {"tasks": [name]},
    "folder of tasks": lambda name: {"tasks": {"names": ["arc_easy"], "folder": name}},
    "published table": lambda name: {"reproduce": name or "."},
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
@pytest.mark.parametrize("place", PLACES)
def test_a_recipe_with_a_hostile_name_is_refused_in_a_line(
    refused: Any, recipe_values: dict[str, Any], write_recipe: Any, place: str, name: str
) -> None:
    refused("run", write_recipe(recipe_values | PLACES[place](name)), "--out", "runs", "--offline")


@pytest.mark.parametrize(
    "name", [each for each in NAMES.values() if each not in ("", "n" * 300, NAMES["Windows"])]
)
def test_no_revision_is_a_path_out_of_the_hubs_cache(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(hub, "snapshot_download", lambda *_, **__: pytest.fail("the hub's client was asked"))
    with pytest.raises(AssetError, match="cannot have a revision") as error:
        hub.snapshot("organisation/model", ["*"], revision=name, offline=True)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["main", "v1.0-rc+1", "refs/convert/parquet", "refs/pr/12", "f" * 40, None])
def test_branches_tags_and_commits_are_revisions(monkeypatch: pytest.MonkeyPatch, name: str | None) -> None:
    monkeypatch.setattr(hub, "snapshot_download", lambda *_, revision, **__: f"/cache/{revision}")
    assert hub.snapshot("organisation/model", ["*"], revision=name, offline=True) == Path(f"/cache/{name}")


def test_a_strangers_journal_sends_no_file_from_outside_its_folder(make_row: Any, tmp_path: Path) -> None:
    for name in ("x/manifest.json", "stolen.jsonl", "out/cells/a", "out/items/a"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    row = make_row("../../stolen", recipe="../a\nb", **dict.fromkeys(("title", "model", "protocol"), "n\n" * 300))
    Journal(tmp_path / "out" / JOURNAL_NAME).append(row.model_copy(update={"cell_id": "../../x"}))
    uri = f"sqlite:///{tmp_path / 'store/mlflow.db'}"
    (tmp_path / "store").mkdir()
    with Tracker(tmp_path / "out", uri) as tracker:
        pass
    assert tracker.sent == 1
    assert {file.name for file in (tmp_path / "store/mlartifacts").rglob("*") if file.is_file()} == {"row.json"}


def test_a_name_too_long_for_a_file_is_cut_and_told_apart(tmp_path):
    long = "a/very" * 60
    names = [file_name(text) for text in (long, f"{long}!", long)]
    assert names[0] == names[2] != names[1] and file_name("as it/was") == "as-it-was"
    write_atomically(tmp_path / f"{names[1]}.meta.json", b"{}")  # OSError where it is too long
    assert [path.name for path in tmp_path.iterdir()] == [f"{names[1]}.meta.json"]
