"""Statistics kept on disk are those of a walk, and a walk that was cut short goes on."""

import json
from dataclasses import replace

import pytest
import torch

from methods.statistics import Statistic
from suite.architecture import decoder_blocks
from suite.budget import Budget
from suite.calibrate import Counted, first_inputs, observe
from suite.errors import EnvironmentProblem
from suite.gathered import Gathered, Source, gather
from suite.ledger import Entry, draw
from suite.models import load_model

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def source(tiny_model, calibration_text) -> Source:
    subject = load_model(str(tiny_model), offline=True)
    documents = [json.loads(line)["text"] for line in calibration_text.read_text().splitlines()]
    budget = Budget(source=str(calibration_text), split="all", sequences=4, length=16, skip_first=2)
    entry: Entry = draw(documents, "sha", subject.tokenizer, budget.drawn("all"), 0)
    return Source(subject, entry, budget, batch_tokens=32)


@pytest.fixture(scope="module")
def walked(source):
    """By block and linear, straight from a walk."""
    model = source.subject.model
    batches = first_inputs(model, source.entry.tokens, 2, CPU)
    counted = Counted(skip_first=2)
    return [
        observe(block, index, batches, Statistic.GRAM, counted, move_on=True)
        for index, block in enumerate(decoder_blocks(model))
    ]


def assert_same(found: Gathered, walked) -> None:
    for index, block in enumerate(walked):
        kept = found(index)
        assert list(kept) == list(block)
        for name, each in block.items():
            assert torch.equal(kept[name].gram, each.gram) and torch.equal(kept[name].mean, each.mean)
            assert torch.equal(kept[name].x_abs, each.x_abs)
            assert torch.equal(kept[name].x_sq, each.x_sq) and kept[name].tokens == each.tokens == 4 * 14


def test_what_is_kept_is_to_the_bit_what_a_walk_gives(source, walked, tmp_path):
    assert_same(gather(source, tmp_path, CPU), walked)


def test_linears_of_one_input_share_their_statistics(source, tmp_path):
    kept = gather(source, tmp_path, CPU)(0)
    assert kept["self_attn.q_proj"] is kept["self_attn.v_proj"] is not kept["mlp.down_proj"]


def test_a_walk_that_was_killed_keeps_its_blocks_and_goes_on_at_the_next(source, walked, tmp_path, monkeypatch):
    keep = Gathered.keep

    def until_second(self, index, statistics):
        if index == 1:
            raise KeyboardInterrupt
        keep(self, index, statistics)

    monkeypatch.setattr(Gathered, "keep", until_second)
    with pytest.raises(KeyboardInterrupt):
        gather(source, tmp_path, CPU)
    written: list[int] = []
    monkeypatch.setattr(Gathered, "keep", lambda *each: written.append(each[1]) or keep(*each))
    assert_same(gather(source, tmp_path, CPU), walked)
    assert written == [1]


def test_a_damaged_block_is_gathered_again(source, walked, tmp_path):
    found = gather(source, tmp_path, CPU)
    path = found.folder / "block_001.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert not found.holds(1) and found.holds(0)
    assert_same(gather(source, tmp_path, CPU), walked)


def test_only_the_blocks_that_were_asked_for_are_kept(source, walked, tmp_path):
    found = gather(source, tmp_path, CPU, only=[1])
    assert not found.holds(0)
    assert torch.equal(found(1)["mlp.up_proj"].gram, walked[1]["mlp.up_proj"].gram)


def test_other_tokens_other_parts_of_them_and_another_order_are_other_statistics(source):
    other = replace(source, budget=source.budget.model_copy(update={"skip_first": 0}))
    reordered, redrawn = replace(source, batch_tokens=16), replace(source, entry=replace(source.entry, id="other"))
    assert len({each.id for each in (source, other, reordered, redrawn)}) == 4


def test_a_full_disk_is_found_before_the_walk(source, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("", (), {"free": 10})())
    with pytest.raises(EnvironmentProblem, match="statistics may take"):
        gather(source, tmp_path, CPU)
    assert not list(tmp_path.iterdir())
