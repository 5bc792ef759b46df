"""Blocks that are trained through what is stored of them: gradients, rounding, the best state, steps left out."""

import math

import pytest
import torch

from methods.statistics import Statistic
from suite.architecture import Block, decoder_blocks, linears
from suite.calibrate import first_inputs, hidden_of, observe
from suite.cell import Cell, build_method
from suite.finetune import training
from suite.finetune.training import Data, fit
from suite.finetune.tuned import TunedBlock
from suite.finetuning import Training
from suite.layers import Failures, compress_linears
from suite.models import load_model
from suite.reproduction import LayerFailure
from suite.shards import CORRECTION

CPU = torch.device("cpu")
FORMATS = {
    "masked": ("nowag-p", {"sparsity": 0.5}),
    "nm-sparse": ("nowag-p", {"sparsity": "2:4"}),
    "codebook": ("nowag-vq", {"bits": 2, "dim": 2, "iterations": 2}),
    "shared codebook": ("nowag-vq", {"bits": 2, "dim": 2, "iterations": 2, "share": "block"}),
    "grouped-int": ("gptq", {"bits": 2, "group_size": 16}),
    "symmetric": ("rtn", {"bits": 3, "group_size": 16, "sym": True}),
    "lattice": ("quip-sharp", {"bits": 2, "sweeps": 0}),
    "real zeros": ("hqq", {"bits": 3, "group_size": 16}),
    "rotated codebook": ("higgs", {}),
    "trellis": ("qtip", {}),
    "outliers": ("rtn", {"bits": 2, "group_size": 16, "outliers": 0.02}),
}


@pytest.fixture(scope="module")
def subject(tiny_model):
    return load_model(str(tiny_model))


@pytest.fixture(scope="module")
def batches(subject):
    tokens = torch.randint(0, 250, (6, 16), generator=torch.Generator().manual_seed(0))
    return first_inputs(subject.model, tokens, 2, CPU)


@pytest.fixture
def block(subject) -> Block:
    return decoder_blocks(subject.model)[0]


@pytest.fixture
def tuned(block, batches, tmp_path):
    """A function that makes the first block by a method of the table, ready to be trained."""

    def make(kind: str = "grouped-int", **others: torch.Tensor) -> TunedBlock:
        name, settings = FORMATS[kind]
        said = build_method(name, settings)
        cell = Cell("tiny", said.method, None, 0, said.mode, outliers=said.outliers)
        statistics = observe(block, 0, batches, Statistic.GRAM)
        done = compress_linears(block, statistics, cell, torch.float16, Failures(tmp_path, "cell"))
        formats = {f"{block.name}.{linear}.weight": each.format for linear, each in done.items()}
        rest = {f"{block.name}.{name}": each.half() for name, each in block.module.state_dict().items()}
        kept = {name: each for name, each in rest.items() if name not in formats}
        return TunedBlock(block, formats, kept | others, norms=True)

    return make


@pytest.fixture
def losses(block, batches):
    """A function that makes the squared error of each token of a batch, given its number."""

    def of(tuned: TunedBlock):
        def each(number: int) -> torch.Tensor:
            (args, kwargs), hidden = batches[number].calls[0], batches[number].hidden
            wanted = hidden_of(block.module(hidden, *args, **kwargs))
            return (hidden_of(tuned(hidden, *args, **kwargs)) - wanted).square().sum(-1).flatten()

        return each

    return of


DATA = Data([0, 1], [0, 1])  # what so few sequences teach holds for no others


def trained(tuned, losses, **settings):
    chosen = Training(**({"epochs": 2, "learning_rate": 2e-4} | settings))
    return fit([tuned], losses, DATA, chosen, torch.Generator().manual_seed(0))


def reread(one: TunedBlock) -> TunedBlock:
    """A block as it would come back from its shard, its norms not to be trained."""
    return TunedBlock(Block("model.layers.0", one.dense), one.formats(), one.others(), norms=False)


@pytest.mark.parametrize("kind", FORMATS)
def test_all_that_is_stored_as_floats_has_a_gradient(tuned, losses, kind):
    one = tuned(kind)
    losses(one)(0).mean().backward()
    parts = {id(each.tensors()[part]) for each in one.formats().values() for part in each.continuous()}
    assert len(one.trained) == len(parts) + 2  # and two norm layers
    assert all(bool(each.grad.isfinite().all()) and bool(each.grad.any()) for each in one.trained)


@pytest.mark.parametrize("kind", FORMATS)
def test_training_lowers_the_loss_of_what_is_stored_and_takes_no_bit_more(tuned, losses, kind):
    one = tuned(kind)
    bits = [each.storage_bits() for each in one.formats().values()]
    course = trained(one, losses(one))
    assert course.after < course.before and course.steps == 4
    again = reread(one)
    assert training.judged([again], losses(again), DATA.validation) == course.after
    assert [each.storage_bits() for each in one.formats().values()] == bits


def test_a_shared_codebook_is_trained_once_and_stays_one_tensor(tuned, losses):
    one = tuned("shared codebook")
    before = next(iter(one.formats().values())).codebook
    trained(one, losses(one))
    books = [each.codebook for each in one.formats().values()]
    assert len({id(book) for book in books}) == 1 and not books[0].equal(before)


def test_an_untrained_block_is_the_block_with_decoded_weights(tuned, block, batches):
    one, layers = tuned(), linears(block)
    (args, kwargs), hidden = batches[0].calls[0], batches[0].hidden
    found = hidden_of(one(hidden, *args, **kwargs))
    decoded = {f"{name}.weight": one.formats()[f"{block.name}.{name}.weight"].dequantize() for name in layers}
    wanted = torch.func.functional_call(block.module, decoded, (hidden, *args), kwargs)
    assert found.detach().equal(hidden_of(wanted))


def test_the_dense_block_stays_as_it_was_even_when_a_loss_fails(tuned, block, losses):
    before = {name: each.clone() for name, each in block.module.state_dict().items()}
    one = tuned()

    def failing(number: int) -> torch.Tensor:
        if one.trained[0].requires_grad and torch.is_grad_enabled():
            raise RuntimeError("no luck today")
        return losses(one)(number)

    with pytest.raises(RuntimeError, match="no luck today"):
        trained(one, failing)
    after = block.module.state_dict()
    assert after.keys() == before.keys() and all(each.equal(before[name]) for name, each in after.items())
    assert not any(each.requires_grad for each in block.module.parameters())


def test_a_bias_that_corrects_a_linear_without_one_is_added(tuned, block, batches):
    correction = {f"{block.name}.mlp.down_proj{CORRECTION}": torch.ones(32, dtype=torch.float16)}
    (args, kwargs), hidden = batches[0].calls[0], batches[0].hidden
    plain, corrected = (hidden_of(each(hidden, *args, **kwargs)) for each in (tuned(), tuned(**correction)))
    torch.testing.assert_close(corrected, plain + 1)
    assert linears(block)["mlp.down_proj"].bias is None


def test_running_a_block_again_for_its_gradient_changes_none(tuned, losses):
    once, again = tuned("codebook"), tuned("codebook")
    again.recompute = True
    for each in (once, again):
        losses(each)(0).mean().backward()
    assert all(a.grad.equal(b.grad) for a, b in zip(once.trained, again.trained, strict=True))


def test_norms_are_trained_only_where_that_is_asked_for(tuned):
    one = tuned()
    without = reread(one)
    assert len(without.trained) == len(one.trained) - 2 and without.others().keys() == one.others().keys()


def test_training_that_only_harms_leaves_everything_as_it_was(tuned, losses):
    one = tuned()
    before = [each.clone() for each in one.stored()]
    course = trained(one, losses(one), learning_rate=1.0, epochs=4, stop_after=3)
    assert course.best_epoch == 0 and course.after == course.before
    assert all(a.equal(b) for a, b in zip(one.stored(), before, strict=True))
    assert course.stopped == "no gain in 3 epochs" and len(course.train) == 3


def broken(losses, when):
    """Losses of which some give no finite gradient."""
    calls = iter(range(1000))

    def each(number: int) -> torch.Tensor:
        found = losses(number)
        return found * math.nan if torch.is_grad_enabled() and when(next(calls)) else found

    return each


def test_a_step_without_a_finite_gradient_is_left_out_and_counted(tuned, losses):
    one = tuned()
    course = trained(one, broken(losses(one), lambda call: call == 1))
    assert (course.steps, course.skipped) == (3, 1) and course.after < course.before
    assert all(bool(each.isfinite().all()) for each in one.stored())


def test_many_such_steps_in_a_row_end_the_training(tuned, losses, monkeypatch):
    monkeypatch.setattr(training, "PATIENCE_WITH_STEPS", 2)
    one = tuned()
    course = trained(one, broken(losses(one), lambda call: True))
    assert course.stopped == "2 gradients in a row were not finite" and course.skipped == 2


def test_a_block_that_is_broken_from_the_start_is_void(tuned, losses):
    one = tuned()
    with pytest.raises(LayerFailure, match="void: the loss before fine-tuning is nan"):
        trained(one, lambda number: losses(one)(number) * math.nan)
