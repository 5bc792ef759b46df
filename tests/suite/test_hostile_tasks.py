"""Whatever lies beside a recipe, tasks and texts run no code: no definition, script or pickle is opened."""

import json
import pickle
import re
from pathlib import Path
from typing import Any

import pytest

from suite.data import load_texts
from suite.errors import AssetError, ConfigError
from suite.protocols import Tasks
from suite.tasks import load_task

ITEM = {"question": "Which?", "choices": {"text": ["wood", "stone"], "label": ["A", "B"]}, "answerKey": "B"}
DEFINITION = """
task: {task}
dataset_path: allenai/ai2_arc
output_type: multiple_choice
test_split: test
process_docs: !function evil.run
doc_to_text: !function evil.run
doc_to_choice: !function evil.run
doc_to_target: 0
"""


class Evil:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, left: Path) -> None:
        self.left = left

    def __reduce__(self) -> Any:
        return Path.touch, (self.left,)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory in which every file that could be code is."""
    monkeypatch.chdir(tmp_path)
    code = f"open({str(tmp_path / 'executed')!r}, 'w').close()\n\ndef run(*_):\n    return []\n"
    for name in ("evil", "arc_easy", "arc_easy_test", "allenai/ai2_arc/ai2_arc", "arc_easy/test", "data/data"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).with_suffix(".py").write_text(code)
        task = Path(name).name
        (tmp_path / name).with_suffix(".yaml").write_text(DEFINITION.format(task=task))
        (tmp_path / name).with_suffix(".pkl").write_bytes(pickle.dumps(Evil(tmp_path / "executed")))
    return tmp_path


def load(name: str, folder: str | None = None) -> Any:
    return load_task(name, Tasks(names=(name,), folder=folder), offline=True)


def test_the_files_would_run_if_they_were_opened(here: Path) -> None:
    pickle.loads((here / "evil.pkl").read_bytes())  # noqa: S301 - our own
    assert (here / "executed").exists()
    (here / "executed").unlink()
    exec(compile((here / "evil.py").read_text(), "evil.py", "exec"))  # noqa: S102 - our own
    assert (here / "executed").exists()


@pytest.mark.parametrize("name", ["evil", "evil.yaml", "./evil", "evil.py", "data", "!function evil.run"])
def test_a_task_is_one_that_lm_eval_defines(here: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="has no task") as error:
        load(name, str(here))
    assert "\n" not in str(error.value) and not (here / "executed").exists()


def test_a_folder_of_items_is_read_as_items_alone(here: Path) -> None:
    with pytest.raises(AssetError, match="has no items of arc_easy"):
        load("arc_easy", str(here))
    (here / "arc_easy.jsonl").write_text(json.dumps(ITEM))
    assert len(load("arc_easy", str(here)).items) == 1
    assert not (here / "executed").exists()


def test_a_definition_beside_the_items_is_not_taken_for_lm_evals(here: Path) -> None:
    (here / "arc_easy.jsonl").write_text(json.dumps(ITEM))
    [item] = load("arc_easy", str(here)).items
    assert item.pairs[0][0] == "Question: Which?\nAnswer:"


@pytest.mark.parametrize("items", [False, True])
def test_a_folder_with_the_name_of_a_data_set_is_not_taken_for_the_hubs(here: Path, items: bool) -> None:
    if items:
        (here / "allenai/ai2_arc/test.jsonl").write_text(json.dumps(ITEM))
    with pytest.raises(AssetError, match=re.escape("allenai/ai2_arc is a folder here")) as error:
        load("arc_easy")
    assert "\n" not in str(error.value) and not (here / "executed").exists()


@pytest.mark.parametrize("source", ["evil.py", "evil.pkl", "evil.yaml", "data", "hub:data", "hub:allenai/ai2_arc"])
def test_no_text_is_read_from_a_script_or_a_pickle(here: Path, source: str) -> None:
    with pytest.raises(AssetError) as error:
        load_texts(source, offline=True)
    assert "\n" not in str(error.value) and not (here / "executed").exists()


@pytest.mark.parametrize("ending", [".parquet", ".jsonl", ".json.gz", ".txt"])
def test_a_pickle_by_another_name_is_not_read_as_one(here: Path, ending: str) -> None:
    (here / "evil.pkl").rename(here / f"arc_easy{ending}")
    with pytest.raises(AssetError):
        load_texts(f"arc_easy{ending}", offline=True)
    with pytest.raises(AssetError):
        load("arc_easy", str(here))
    assert not (here / "executed").exists()
