"""Squared gradients agree with those taken token by token, and are kept on disk."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from suite import gradients
from suite.architecture import decoder_blocks, linears
from suite.budget import Budget
from suite.config import Recipe
from suite.errors import CalibrationError, EnvironmentProblem
from suite.gradients import Source, gradients_cache, mean_squares, measure, principal_directions
from suite.ledger import draw
from suite.models import load_model
from suite.runner import Options, run
from suite.schedule import Here

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def source(tiny_model, calibration_text) -> Source:
    subject = load_model(str(tiny_model), offline=True)
    documents = [json.loads(line)["text"] for line in calibration_text.read_text().splitlines()]
    budget = Budget(source=str(calibration_text), split="all", sequences=3, length=4)
    return Source(subject, draw(documents, "sha", subject.tokenizer, budget, 0), components=2)


@pytest.fixture
def weights(source):
    return [layer.weight for block in decoder_blocks(source.subject.model) for layer in linears(block).values()]


def with_tokens(source, tokens):
    return replace(source, entry=replace(source.entry, tokens=tokens))


def token_by_token(source, weights):
    """By weight: a backward pass for each direction of each token."""
    body, tokens = source.subject.model.base_model, source.entry.tokens
    with torch.no_grad():
        states = [body(input_ids=each[None], use_cache=False).last_hidden_state for each in tokens]
    directions = principal_directions(iter(states), source.components).float()
    sums = [torch.zeros_like(weight) for weight in weights]
    for weight in weights:
        weight.requires_grad_()
    for each in tokens:
        outputs = body(input_ids=each[None], use_cache=False).last_hidden_state[0] @ directions
        for output in outputs.flatten():
            grads = torch.autograd.grad(output, weights, retain_graph=True)
            for total, grad in zip(sums, grads, strict=True):
                total += grad.square()
    for weight in weights:
        weight.requires_grad_(False)
    return [total / tokens.numel() for total in sums]


def test_one_direction_of_lone_tokens_needs_no_luck(source, weights):
    lone = replace(with_tokens(source, source.entry.tokens.reshape(-1, 1)), components=1)
    found = mean_squares(lone, weights)
    for weight, exact in zip(weights, token_by_token(lone, weights), strict=True):
        torch.testing.assert_close(found[weight], exact, rtol=1e-4, atol=1e-9)


def test_random_signs_give_the_sum_over_tokens_and_directions(source, weights):
    found = mean_squares(replace(source, passes=150), weights)
    for weight, exact in zip(weights, token_by_token(source, weights), strict=True):
        total = exact.sum()
        assert abs(found[weight].sum() - total) < 0.1 * total
        assert (found[weight] - exact).norm() < 0.25 * exact.norm()


def test_directions_are_those_of_most_variance():
    axes = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(0))).Q
    rows = torch.randn(400, 6, generator=torch.Generator().manual_seed(1)) * torch.tensor([9.0, 5, 1, 1, 1, 1])
    found = principal_directions(iter((rows @ axes.T + 100)[None].split(100, 1)), 2).float()
    assert torch.linalg.svdvals(axes[:, :2].T @ found).min() > 0.98


def test_directions_are_the_same_whatever_signs_a_solver_gives_them(monkeypatch):
    states = torch.randn(1, 50, 6, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 7)
    found, eigh = principal_directions(iter([states]), 4), torch.linalg.eigh
    signs = torch.tensor([1, -1, -1, 1, -1, 1])
    turned = SimpleNamespace(eigenvectors=eigh(states[0].double().T.cov(correction=0)).eigenvectors * signs)
    monkeypatch.setattr(torch.linalg, "eigh", lambda _: turned)
    torch.testing.assert_close(principal_directions(iter([states]), 4), found)


def test_they_are_kept_and_read_back(source, tmp_path, monkeypatch):
    first = measure(source, tmp_path, CPU)
    monkeypatch.setattr(gradients, "mean_squares", None)
    again = measure(source, tmp_path, CPU)
    for index, block in enumerate(decoder_blocks(source.subject.model)):
        assert {name: each.shape for name, each in again(index).items()} == {
            name: layer.weight.shape for name, layer in linears(block).items()
        }
        assert all(torch.equal(first(index)[name], each) and each.any() for name, each in again(index).items())
    assert again.spent.pop("seconds") > 0
    assert again.spent | {"seconds": 0} == {"tokens": 12, "gradient_passes": 1, "seconds": 0, "device": "cpu"}


def test_a_damaged_file_is_measured_again_to_the_same(source, tmp_path):
    before = {name: each.clone() for name, each in measure(source, tmp_path, CPU)(1).items()}
    path = tmp_path / source.id / "block_001.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    after = measure(source, tmp_path, CPU)(1)
    assert all(torch.equal(after[name], each) for name, each in before.items())


@pytest.mark.parametrize("change", [{"components": 3}, {"passes": 2}, {"seed": 1}], ids=str)
def test_each_setting_makes_other_files(source, change):
    assert replace(source, **change).id != source.id


def test_the_model_is_left_as_it_was(source, tmp_path):
    measure(source, tmp_path, CPU)
    assert all(not each.requires_grad and each.grad is None for each in source.subject.model.parameters())


def test_gradients_that_are_not_finite_are_refused(source, tmp_path, monkeypatch):
    monkeypatch.setattr(
        gradients, "mean_squares", lambda _, found: {w: torch.full_like(w, torch.nan) for w in found}
    )
    with pytest.raises(CalibrationError, match=r"model.layers.0.self_attn.q_proj: 1024 of 1024 squared gradients"):
        measure(source, tmp_path, CPU)


def test_hidden_states_that_are_not_finite_are_refused():
    with pytest.raises(CalibrationError, match="hidden states are NaN"):
        principal_directions(iter([torch.full((1, 3, 4), torch.inf)]), 2)


def test_a_full_disk_is_found_before_the_work(source, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("", (), {"free": 10})())
    with pytest.raises(EnvironmentProblem, match="no space left: gradients may take"):
        measure(source, gradients_cache(tmp_path / "out"), CPU)


def test_a_walk_waits_for_what_any_of_its_cells_has_surveyed(recipe_values, tmp_path, no_tracking, monkeypatch):
    begun, start = [], Here.start
    monkeypatch.setattr(Here, "start", lambda pool, work: begun.append(type(work).__name__) or start(pool, work))
    targets = [{"bits_per_weight": 4.0}, {"bits_per_weight": 5.0}]
    methods = {"wanda": {"statistics": "dense"}, "cvxq": {"target": targets}}
    outcome = run(Recipe.model_validate(recipe_values | {"methods": methods}), Options(tmp_path, offline=True))
    assert [row.status for row in outcome.rows] == ["ok"] * 3
    making = [name for name in begun if name in ("Survey", "Walk")]
    assert making == ["Survey", "Survey", "Walk"]
