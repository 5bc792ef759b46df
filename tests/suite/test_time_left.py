"""The time left of recipes that ran, as it would have been told: with the seconds that each piece really took."""

import json
import random
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch

from suite import effort, recipes, runner, schedule
from suite.bench.plan import plan_of
from suite.config import Recipe
from suite.effort import expected
from suite.prepare import prepare
from suite.results import JOURNAL_NAME, Journal
from suite.sizes import Layout
from suite.work import Bench, Measure, Reference
from suite.yaml_text import load_yaml

# of one core: references first, then each walk, after what is surveyed for it, with the evaluations of its cells
WITH_TASK = [
    *[2.60, 2.35, 0.83, 1.29, 1.32, 1.29, 1.61, 1.58, 1.26, 1.53, 1.22, 2.48, 1.37, 2.80, 1.29],
    *[6.89, 1.26, 1.27, 1.29, 1.20, 2.38, 1.21],
]
WITHOUT = [
    *[2.74, 1.12, 0.60, 0.66, 0.59, 0.61, 1.53, 0.64, 1.50, 0.64, 2.54, 0.59, 2.97, 0.63],
    *[6.52, 0.65, 0.65, 0.69, 0.61, 2.85, 0.77],
]
EVERYTHING = [
    *[3.92, 1.70, 4.56, 1.14, 1.19, 1.18, 1.21, 1.18, 1.16, 1.21, 1.21, 1.39, 1.20, 1.37],
    *[1.39, 2.47, 1.25, 2.52, 1.11, 2.96, 10.75, 1.32, 1.31, 1.44, 1.45, 1.37, 1.28, 1.29],
    *[1.18, 2.25, 1.21, 8.78, 1.31, 13.61, 1.15],
]
# of one H100, 14 blocks of Llama-2-7B: the reference, the dense cell, then six cells that share a walk
LARGE = [10.7, 19.4, 7.1, 137.0, 4.1, 3.8, 4.5, 4.1, 4.0, 4.8]
# twenty blocks, 128 windows, no dense cell; the reference is there and begins much: an actor of Ray on an H100
THERE = [8.9, 181.8, 24.5, 22.8, 22.6, 35.4, 35.9, 38.7]
ITEMS, CHARACTERS = 32, 9934  # of the task: its items, and the characters of all requests
WORDS = "the a one old new red wise river house stone king sea grew built found lost saw under over near".split()


@dataclass
class Replay:
    """A pool and a clock: each piece takes its seconds from a list, and finds nothing."""

    shows_progress: ClassVar[bool] = True
    seconds: list[float]
    slots: int = 1
    now: float = 0.0
    begun: list[object] = field(default_factory=list)

    def monotonic(self) -> float:
        return self.now

    def start(self, work: object) -> None:
        self.begun.append(work)

    def wait(self) -> list[schedule.Ended]:
        self.now += self.seconds[len(self.begun) - 1]
        return [schedule.Ended(self.begun[-1])]

    def close(self) -> None:
        pass


def prose(words: int, seed: int) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=words))


def write_items(folder: Path) -> None:
    choices = {"text": ["one", "two", "red", "old"], "label": list("ABCD")}
    each = CHARACTERS // ITEMS // len(choices["text"]) - len("Question: \nAnswer: one")
    asked = [prose(each, seed)[:each] for seed in range(ITEMS)]
    lines = [json.dumps({"question": question, "choices": choices, "answerKey": "A"}) for question in asked]
    (folder / "arc_easy.jsonl").write_text("\n".join(lines))


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """A function that lays out the cells of one of the package's recipes for its model, with a task or without."""

    def lay_out(name: str, with_task: bool) -> Bench:
        folder = tmp_path_factory.mktemp("quickstart")
        path = Path(recipes.__file__).with_name(f"{name}.yaml")
        values = load_yaml(path.read_text(), path.name)
        for use, seed in (("calibration", 0), ("evaluation", 1)):
            (folder / f"{use}.txt").write_text(prose(5000, seed))
            values[use] |= {"source": str(folder / f"{use}.txt"), "split": None}
        write_items(folder)
        task = {"names": "arc_easy", "folder": str(folder)} if with_task else None
        recipe = Recipe.model_validate(values | {"models": "tiny", "tasks": task})
        prepared = {each.model: each for each in prepare(recipe, folder / "results", offline=True)}
        return Bench(recipe, folder / "results", torch.device("cpu"), True, prepared)

    return lay_out


def foretold(bench: Bench, seconds: list[float], monkeypatch) -> list[tuple[float, float]]:
    """As each piece but the last ended: the part of all time that was over, and the time left over what it was."""
    pool = Replay(seconds)
    monkeypatch.setattr(schedule, "time", pool)
    plan = schedule.Schedule(pool, lambda work: expected(bench, work))
    desk = SimpleNamespace(journal=Journal(bench.folder / JOURNAL_NAME))
    runner._Study(bench, desk, plan).begin()
    told, whole = [], sum(seconds)

    def tell() -> None:
        if len(pool.begun) < len(seconds):
            told.append((pool.now / whole, plan._remaining.left({}) / (whole - pool.now)))

    monkeypatch.setattr(plan, "_tell", tell)
    assert not [*plan.results()] and len(pool.begun) == len(seconds)
    return told


@pytest.mark.parametrize("part", [0.1, 0.3, 0.5])
@pytest.mark.parametrize(
    ("recipe", "with_task", "seconds"),
    [("quickstart", True, WITH_TASK), ("quickstart", False, WITHOUT), ("everything", True, EVERYTHING)],
)
def test_from_a_tenth_on_the_time_left_is_right_to_a_fifth(
    bench, monkeypatch, recipe, with_task, seconds, part
) -> None:
    told = foretold(bench(recipe, with_task), seconds, monkeypatch)
    assert next(ratio for over, ratio in told if over >= part) == pytest.approx(1, abs=0.2)


@pytest.fixture
def large(tmp_path, monkeypatch):
    """As `bench --only scale` lays it out on a GPU: 14 blocks of Llama-2-7B, as far as guesses look at them."""
    return laid_out(plan_of("full", ()).methods, 14, 8, tmp_path, monkeypatch)


def laid_out(methods, blocks: int, windows: int, tmp_path, monkeypatch) -> Bench:
    sources = {}
    for use, seed in (("calibration", 0), ("evaluation", 1)):
        (tmp_path / f"{use}.txt").write_text(prose(5000, seed))
        sources[use] = {"source": str(tmp_path / f"{use}.txt"), "length": 64}
    sources["calibration"]["sequences"] = sources["evaluation"]["windows"] = 2
    methods["nowag-vq"] |= {"dim": 4}
    methods["gptq"] |= {"group_size": 16}
    recipe = Recipe.model_validate({"name": "l", "models": "tiny", "methods": methods} | sources)
    found = prepare(recipe, tmp_path / "results", offline=True)[0]
    tokens = torch.zeros(128, 2048, dtype=torch.int64)
    (evaluation,) = found.evaluations
    evaluation.cut = replace(evaluation.cut, tokens=tokens[:windows])
    entries = {key: replace(entry, tokens=tokens) for key, entry in found.entries.items()}
    block = [(4096, 4096)] * 4 + [(11008, 4096)] * 2 + [(4096, 11008)]
    monkeypatch.setattr(effort, "shapes_of", lambda subject: dict(enumerate(block * blocks)))
    sizes = replace(found.sizes, layout=Layout(found.sizes.layout.blocks[:1] * blocks))
    prepared = {"tiny": replace(found, entries=entries, sizes=sizes)}
    return Bench(recipe, tmp_path / "results", torch.device("cuda"), True, prepared)


@pytest.mark.parametrize("part", [0.05, 0.1])
def test_on_a_gpu_the_time_left_is_as_right(large, monkeypatch, part) -> None:
    told = foretold(large, LARGE, monkeypatch)
    assert next(ratio for over, ratio in told if over >= part) == pytest.approx(1, abs=0.2)


def test_where_the_dense_reference_is_there_a_worker_s_start_does_not_pass_for_it(tmp_path, monkeypatch) -> None:
    methods = plan_of("full", ()).methods
    del methods["dense"]
    bench = laid_out(methods, 20, 128, tmp_path, monkeypatch)
    monkeypatch.setattr(effort, "bytes_of_reference", lambda *_: 0)
    told = foretold(bench, THERE, monkeypatch)
    assert [ratio for _, ratio in told] == pytest.approx([1] * len(told), abs=0.2)


def test_a_reference_that_is_there_takes_what_is_begun_with_it(tiny_bench) -> None:
    (model,) = tiny_bench.recipe.models
    stand = tiny_bench.stand(model)
    for evaluation in stand.evaluations:
        before = expected(tiny_bench, Reference(model, evaluation)).seconds
        stand.refer(evaluation)
        assert expected(tiny_bench, Reference(model, evaluation)).seconds == effort.CPU.first < before


def test_a_cell_with_decoded_weights_is_evaluated_longer_on_a_gpu_alone(large) -> None:
    (model,) = large.recipe.models
    stand = large.stand(model)
    kept, decoded = (
        Measure(model, next(job.id for job in stand.jobs.values() if job.cell.method.name == name), (evaluation,))
        for evaluation in stand.evaluations
        for name in ("wanda", "gptq")
    )
    on_cpu = replace(large, device=torch.device("cpu"))
    on_cpu.stands = {model: replace(stand, bench=on_cpu)}
    assert expected(large, decoded).seconds > expected(large, kept).seconds
    assert expected(on_cpu, decoded) == expected(on_cpu, kept)


def test_only_running_a_block_takes_its_part_of_a_walk_with_such_methods(large) -> None:
    stand = large.stand(large.recipe.models[0])
    fed = [job for job in stand.jobs.values() if job.cell.budget]
    light = [job for job in fed if job.cell.method.name in ("wanda", "nowag-p")]
    unfed = [job for job in stand.jobs.values() if not job.cell.budget]
    # of 9.8 seconds 0.8 in products, besides reading
    assert effort.passing(stand, fed) == pytest.approx(0.12, abs=0.01)
    assert 0.5 < effort.passing(stand, light) < 1 / effort.GPU.statistics
    assert effort.passing(stand, unfed) == 0
