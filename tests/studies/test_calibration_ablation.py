"""Curves over calibration tokens and parts of a variance, on rows where both are planted."""

import math

import numpy as np
import pytest
from scipy import stats

from studies.calibration_ablation import conclude
from suite.budget import Budget

SEEDS = 3


def rows_at(seeded, kls, text="boolq", sequences=4, length=256):
    budget = Budget(source=text, split="train", sequences=sequences, length=length)
    return seeded(f"{text}-{sequences}-{length}", kls, calibration=budget.describe())


def curve(seeded, *points, **where):
    return [row for n, kl in points for row in rows_at(seeded, [kl] * SEEDS, sequences=n, **where)]


def test_the_curve_has_tokens_means_over_seeds_and_their_interval(seeded):
    table = conclude(rows_at(seeded, (0.1, 0.2, 0.3))).tables["KL by tokens"]
    line = table.iloc[0]
    assert (line["text"], line["tokens"], line["seeds"]) == ("boolq[train]", 1024, 3)
    half = 4.302653 * 0.1 / math.sqrt(3)  # Student's t, two degrees of freedom
    assert line["KL nats/token"] == pytest.approx(0.2) and line["±"] == pytest.approx(half)


def test_nothing_is_gained_beyond_the_budget_where_the_planted_curve_turns_flat(seeded):
    conclusion = conclude(curve(seeded, (1, 0.8), (4, 0.4), (16, 0.2), (64, 0.2), (256, 0.2)))
    line = conclusion.tables["enough tokens"].iloc[0]
    assert (line["enough tokens"], line["most tokens"]) == (16 * 256, 256 * 256)
    assert "between 4,096 tokens and 65,536 no gain can be told (KL 0.200 and 0.200)." in conclusion.sentences[0]


def test_a_budget_that_happens_to_be_as_good_is_not_enough_while_a_larger_one_is_worse(seeded):
    line = conclude(curve(seeded, (1, 0.2), (4, 0.4), (16, 0.2), (64, 0.2))).tables["enough tokens"].iloc[0]
    assert line["enough tokens"] == 16 * 256


def test_a_smaller_budget_that_is_better_is_enough(seeded):
    assert conclude(curve(seeded, (1, 0.1), (4, 0.2))).tables["enough tokens"].iloc[0]["enough tokens"] == 256


def test_where_the_largest_budget_still_gains_none_is_enough(seeded):
    conclusion = conclude(curve(seeded, (1, 0.4), (4, 0.2)))
    assert math.isnan(conclusion.tables["enough tokens"].iloc[0]["enough tokens"])
    assert "no budget below 1,024 tokens is known to be enough" in conclusion.sentences[0]


def test_too_few_windows_cannot_say_that_a_budget_is_enough(planted):
    few = {"window_kl": (1.0, 2.0), "window_nll": (1.0, 2.0), "scored_tokens": 200}
    rows = [planted(f"{n}", 0.2, calibration=f"boolq, {n} x 256 tokens, joined", **few) for n in (1, 4)]
    assert math.isnan(conclude(rows).tables["enough tokens"].iloc[0]["enough tokens"])


def test_lengths_and_texts_are_curves_of_their_own(seeded):
    rows = [
        *curve(seeded, (1, 0.4), (4, 0.4)),
        *curve(seeded, (1, 0.4), (4, 0.2), text="xsum"),
        *curve(seeded, (1, 0.3), (4, 0.3), length=512),
    ]
    table = conclude(rows).tables["enough tokens"]
    assert [(line.text, line.length) for line in table.itertuples()] == [
        ("boolq[train]", 256),
        ("boolq[train]", 512),
        ("xsum[train]", 256),
    ]


def test_the_variance_between_planted_sources_and_draws_is_found_again(seeded):
    rng = np.random.default_rng(0)
    rows = []
    for sequences in range(1, 61):
        for text in ("a", "b", "c"):
            source = 0.1 * rng.normal()
            logs = source + 0.2 * rng.normal(size=SEEDS)
            rows += rows_at(seeded, np.exp(logs), text=text, sequences=sequences)
    line = conclude(rows).tables["variance"].iloc[0]
    assert line["draw %"] == pytest.approx(20, rel=0.1) and line["source %"] == pytest.approx(10, rel=0.3)
    assert line["share of source %"] == pytest.approx(20, abs=10) and line["sizes"] == 60


def test_sources_that_do_not_differ_have_no_share(seeded):
    rows = [row for text in "ab" for row in rows_at(seeded, (0.18, 0.2, 0.22), text=text)]
    line = conclude(rows).tables["variance"].iloc[0]
    assert (line["source %"], line["share of draw %"]) == (0, 100)


def test_whether_sources_differ_at_all_is_the_f_test_of_their_draws(seeded):
    draws = {"a": (0.20, 0.22, 0.21), "b": (0.23, 0.22, 0.25), "c": (0.19, 0.24, 0.22)}
    conclusion = conclude([row for text, kls in draws.items() for row in rows_at(seeded, kls, text=text)])
    wanted = stats.f_oneway(*(np.log(kls) for kls in draws.values())).pvalue
    assert conclusion.tables["variance"].iloc[0]["p of no source"] == pytest.approx(wanted)
    assert (
        f"estimated from 3 sources at 1 size; F test that sources are alike: p {wanted:.2g})."
        in (conclusion.sentences[-1])
    )


def test_one_source_or_one_seed_has_no_variance_to_part(seeded):
    assert "variance" not in conclude(rows_at(seeded, (0.1, 0.2))).tables
    assert "variance" not in conclude([r for t in "ab" for r in rows_at(seeded, (0.1,), text=t)]).tables


@pytest.mark.parametrize("source", ["hub:acme/texts:en#body", "old, worn, 2 x 3.txt", "/data/plain.jsonl"])
@pytest.mark.parametrize(
    "other", [{}, {"join": None, "skip_first": 1}, {"token_weights": "unit", "split": "train"}]
)
def test_every_budget_in_words_is_read_back(planted, source, other):
    budget = Budget(source=source, sequences=4, length=256, **other)
    line = conclude([planted("a", 0.2, calibration=budget.describe())]).tables["KL by tokens"].iloc[0]
    assert (line["sequences"], line["length"]) == (4, 256)
    assert line["text"] == source.removeprefix("/data/") + "[train]" * ("split" in other)


def test_rows_without_data_are_no_budget(planted):
    assert conclude([planted("rtn", 0.2, calibration=None, statistics_mode="none")]).tables == {}
