"""The benchmark's lines are what was measured: medians, floors, references carried on, checks. No timing here."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kernels import backend
from methods.statistics import Statistic
from suite.bench import draw, linears
from suite.bench.case import Case, Floor, Work, relative_error, share_equal
from suite.bench.clock import Ceilings, Timing, timed
from suite.bench.report import EXPLANATION, HEADING, line, report
from suite.bench.session import Options, bench, chosen, save
from suite.errors import ConfigError
from suite.speed import at_work

CPU = torch.device("cpu")
OPTIONS = Options(CPU, "small", repeat=1)
LIMITS = Ceilings(copy_bytes=1e9, fp32_flops=1e10, bf16_flops=1e11)
SHAPE = (24, 40)

DRAWN = {
    "dense": (draw.dense, 16),
    "int": (draw.grouped(3, 16), 3),
    "codebook": (draw.codebook(12, 6), 2),
    "lattice 2": (draw.lattice(2), 2),
    "lattice 3": (draw.lattice(3), 3),
    "2:4": (draw.two_of_four, 8),
    "masked": (draw.masked, None),
}

SMALL_CASES = [
    "NoWag-VQ*256x256",
    "assignment d4 256x256",
    "NoWag-P",
    "mask alone",
    "SparseGPT 2:4",
    "GPTQ*256x256",
]
SMALL_CASES += [
    "QuIP#*256x256",
    "HQQ*",
    "HIGGS*",
    "AWQ*",
    "CVXQ*",
    "Hadamard*688",
    "Gram*x256",
    "linear int 2 bits, 1 token ",
    "linear lattice 3*8 tok*",
]


def case(run, *, rounds=1, reference_rounds=1, steps=1) -> Case:
    """A case of one's own making."""
    extent = {"rounds": rounds, "reference_rounds": reference_rounds, "steps": steps}
    work = Work(run=run, check=share_equal, floor=lambda _: Floor(1e6), **extent)
    return Case(
        name="made up", shape=(2, 3), prepare=lambda _: work, agreement="equal", budget_ms=7, unit="rounds"
    )


@pytest.mark.parametrize("pattern", SMALL_CASES)
def test_a_case_on_a_cpu_agrees_with_its_reference(pattern):
    options = replace(OPTIONS, only=pattern)
    for found in bench(chosen(options), options, LIMITS):
        assert found.error is None and found.ms > 0 and found.reference_ms > 0 and found.of_ceiling > 0
        perfect = 1.0 if "relative error" not in found.agreement_means else 0.0
        assert found.agreement == pytest.approx(perfect, abs=1e-5)
        assert found.budget_ms is None  # those are for the full scale


@pytest.mark.parametrize("name", DRAWN)
def test_drawn_weights_are_valid_and_never_flat(name):
    maker, bits = DRAWN[name]
    stored = maker(*SHAPE, draw.generator(CPU))
    weight = stored.dequantize()
    assert weight.shape == SHAPE and bool(weight.isfinite().all())
    assert bits is None or stored.nominal_bits == bits
    assert float((weight != 0).double().mean()) > 0.3 and 1e-3 < float(weight.square().mean().sqrt()) < 1
    assert not torch.equal(weight, maker(*SHAPE, draw.generator(CPU, seed=1)).dequantize())


def test_drawn_inputs_are_correlated_and_of_different_norms():
    mix = draw.mixing(48, draw.generator(CPU))
    size = mix.norm(dim=0)
    correlation = mix.T @ mix / (size[:, None] * size)  # of the inputs, whatever the sample
    assert float(size.max() / size.median()) > 3
    assert float(correlation.fill_diagonal_(0).abs().max()) > 0.3
    found = draw.statistics(48, draw.generator(CPU), Statistic.GRAM)
    assert found.tokens == 96 and float(torch.linalg.eigvalsh(found.gram.double()).min()) > 0


def test_a_rotation_holds_enough_different_weights(monkeypatch):
    monkeypatch.setitem(linears.ROTATION, "cpu", (3, 5 * 24 * 40 * 2))
    layers = linears._layers(draw.dense, SHAPE, CPU)
    assert len(layers) == 5
    assert len({float(layer.format.dequantize().sum()) for layer in layers}) == 5


def test_a_floor_is_the_longest_of_bytes_and_operations():
    assert Floor(2e6).milliseconds(LIMITS) == (2.0, "copy")
    assert Floor(2e6, fp32_flops=1e8).milliseconds(LIMITS) == (10.0, "fp32")
    assert Floor(2e6, fp32_flops=1e7, half_flops=1e9).milliseconds(LIMITS) == (10.0, "bf16")


def test_a_reference_with_rounds_is_carried_on_in_a_straight_line(monkeypatch):
    def pretend(run, device, repeat, *, warm=True):
        return Timing(0.0, 0.0, 1, run())

    asked = []

    def run(rounds):
        asked.append((rounds, backend._plain.get()))
        return torch.tensor(rounds)

    times = iter([2.0, 3.0, 7.0])  # ours, then the reference at no rounds and at four
    monkeypatch.setattr("suite.bench.session.timed", lambda *a, **k: replace(pretend(*a, **k), ms=next(times)))
    (found,) = bench([case(run, rounds=100, reference_rounds=4)], replace(OPTIONS, scale="full"), LIMITS)
    assert asked == [(1, False), (100, False), (4, False), (0, True), (4, True)]
    assert found.reference_ms == 7 + (100 - 4) * (7 - 3) / 4
    assert found.ms == 2 and found.of_ceiling == 0.5 and found.agreement == 1 and found.budget_ms == 7
    assert "reference from 4 of 100 rounds" in found.note


def test_a_reference_is_never_carried_on_to_less_than_was_measured(monkeypatch):
    times = iter([2.0, 9.0, 7.0])  # something else slowed down the run without rounds
    monkeypatch.setattr("suite.bench.session.timed", lambda *_, **__: Timing(next(times), 0.0, 1, torch.ones(1)))
    (found,) = bench([case(lambda _: torch.ones(1), rounds=100, reference_rounds=4)], OPTIONS, LIMITS)
    assert found.reference_ms == 7


def test_a_reference_of_as_many_rounds_is_timed_as_it_is(monkeypatch):
    asked = []
    times = iter([2.0, 5.0])
    monkeypatch.setattr("suite.bench.session.timed", lambda run, *_, **__: Timing(next(times), 0.0, 1, run()))
    (found,) = bench(
        [case(lambda n: asked.append(n) or torch.ones(1), rounds=3, reference_rounds=3)], OPTIONS, LIMITS
    )
    assert asked == [1, 3, 3] and found.reference_ms == 5 and found.note == ""


def test_a_run_over_many_weights_counts_for_one_of_them(monkeypatch):
    monkeypatch.setattr("suite.bench.session.timed_replays", lambda run, *_: Timing(12.0, 0.1, 3, run()))
    (found,) = bench([case(lambda _: torch.ones(2), steps=4)], OPTIONS, LIMITS)
    assert found.ms == found.reference_ms == 3


def test_a_case_that_fails_is_a_line_and_the_others_go_on():
    def broken(_):
        raise RuntimeError("no such\nkernel")

    cases = [case(broken), case(lambda _: torch.ones(3))]
    failed, fine = bench(cases, OPTIONS, LIMITS)
    assert failed.error == "RuntimeError: no such kernel" and "FAILED RuntimeError: no such kernel" in line(failed)
    assert fine.error is None and fine.agreement == 1 and "1 equal" in line(fine)


def test_without_a_reference_nothing_is_compared():
    (found,) = bench([case(lambda _: torch.ones(3))], replace(OPTIONS, reference=False), LIMITS)
    assert found.reference_ms is None and found.agreement is None and found.ms > 0
    assert line(found).split()[-1].endswith("copy") or "copy" in line(found)


def test_a_median_is_of_the_runs_after_the_warm_up(monkeypatch):
    spans = iter([(9.0, "warm"), (1.0, "a"), (5.0, "b"), (2.0, "c")])
    monkeypatch.setattr("suite.bench.clock._span", lambda work, device: work())
    found = timed(lambda: next(spans), CPU, 3)
    assert (found.ms, found.spread, found.runs, found.output) == (2.0, 2.0, 3, "c")
    long = iter([(1500.0, "only")])
    assert timed(lambda: next(long), CPU, 3, warm=False).runs == 1  # what takes a second runs once


def test_products_are_in_full_float32_whatever_the_user_allows():
    torch.set_float32_matmul_precision("high")
    try:
        with at_work(CPU):
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_the_checks_see_what_differs():
    one, other = torch.tensor([3.0, 4.0]), torch.tensor([3.0, 4.5])
    assert share_equal(one, other) == 0.5 and relative_error(other, one) == pytest.approx(0.1)
    assert linears._worst([one, other], [one, one]) == pytest.approx(0.1)
    assert linears._worst([one, one * torch.nan], [one, one]) != linears._worst([one], [one])


def test_every_budget_of_the_design_is_in_the_full_scale():
    budgets = {each.label: each.budget_ms for each in chosen(Options(CPU, "full")) if each.budget_ms}
    assert budgets["NoWag-VQ 2 bits d6, 100 iterations 4096x4096"] == 1000
    assert budgets["GPTQ 4 bits g128 4096x11008"] == 400 and budgets["QuIP# 2 bits, 10 sweeps 4096x11008"] == 3000
    assert budgets["Wanda 2:4 4096x4096"] == 1 and budgets["SparseGPT 2:4 4096x4096"] == 100
    assert budgets["linear lattice 2 bits, 1 token 11008x4096"] == 0.009


def test_a_pattern_that_matches_nothing_is_refused():
    with pytest.raises(ConfigError, match="matches no case. Cases: NoWag-VQ"):
        chosen(replace(OPTIONS, only="cusparse"))


def test_the_file_has_machine_ceilings_and_results(tmp_path):
    results = list(bench([case(lambda _: torch.ones(3))], OPTIONS, LIMITS))
    save(tmp_path / "bench.json", OPTIONS, LIMITS, results)
    found = json.loads((tmp_path / "bench.json").read_text())
    assert found["scale"] == "small" and found["environment"]["device"] == "cpu"
    assert found["ceilings"]["copy_bytes"] == 1e9
    assert found["results"][0]["case"] == "made up" and found["results"][0]["runs"] == 1
    assert HEADING and EXPLANATION


def test_a_file_that_cannot_be_written_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.write_text("", encoding="ascii")
    options = Options(torch.device("cpu"), only="mask alone, 2:4")
    said: list[str] = []
    for file in (taken / "numbers.json", tmp_path):
        with pytest.raises(ConfigError, match="cannot be written"):
            report(options, said.append, file)
    assert not said
