"""Ratios of KL between values of one setting, on rows where they are planted."""

import pytest

from reports import compare
from studies import contrast, normalizer_ablation, statistics_mode

RTN = {"method": "rtn", "title": "RTN", "variant": "3 bits", "calibration": None, "statistics_mode": "none"}


def modes(seeded, **kls):
    return [
        row for mode, values in kls.items() for row in seeded(mode, values, statistics_mode=mode, variant="50%")
    ]


def test_each_mode_is_a_multiple_of_dense_over_the_means_of_seeds(seeded):
    rows = modes(seeded, dense=(0.4, 0.4, 0.4), sequential=(0.19, 0.2, 0.21))
    conclusion = statistics_mode.conclude(rows)
    line = conclusion.tables["KL by method"].iloc[0]
    assert line["method"] == "Wanda 50%" and line["sequential / dense"] == pytest.approx(0.5)
    assert line["not told apart from dense"] == ""
    assert "0.500 (Wanda 50%) to 0.500 (Wanda 50%) times the KL of dense; 1 of 1" in conclusion.sentences[0]


def test_modes_that_chance_may_explain_are_named(seeded):
    rows = modes(seeded, dense=(0.40, 0.44, 0.36), sequential=(0.41, 0.37, 0.44))
    line = statistics_mode.conclude(rows).tables["KL by method"].iloc[0]
    assert line["not told apart from dense"] == "sequential"


def test_verdicts_are_adjusted_over_all_of_a_study_and_say_what_they_rest_on(seeded, monkeypatch):
    asked = []
    monkeypatch.setattr(
        contrast, "verdicts_on", lambda pairs, metric: asked.append(pairs) or verdicts(pairs, metric)
    )
    verdicts = compare.verdicts_on
    conclusion = statistics_mode.conclude(
        modes(seeded, dense=(0.4,), sequential=(0.2,), **{"true-sequential": (0.3,)})
    )
    assert [len(pairs) for pairs in asked] == [2]
    assert conclusion.sentences[-1] == (
        "Told apart by KL: paired bootstrap over 8 windows, Holm, 5 %; one seed, so of this draw of calibration "
        "tokens alone."
    )


def test_methods_without_data_have_no_mode_and_no_line(seeded, planted):
    rows = [*modes(seeded, dense=(0.4,), sequential=(0.2,)), planted("rtn", 0.1, **RTN)]
    assert list(statistics_mode.conclude(rows).tables["KL by method"]["method"]) == ["Wanda 50%"]


def test_a_value_that_failed_leaves_a_gap_and_the_sentence_says_so(seeded):
    conclusion = statistics_mode.conclude(modes(seeded, sequential=(0.2,), dense=()))
    assert conclusion.sentences == ("sequential: no method has been measured both with it and with dense.",)


def test_settings_that_differ_beside_the_normaliser_are_lines_of_their_own(planted):
    rows = [
        planted(
            f"{bits}-{how}", kl, settings={"bits": bits, "normalize": how}, **RTN | {"variant": f"{bits} bits"}
        )
        for bits, how, kl in ((2, "none", 0.8), (2, "nowag", 0.6), (3, "none", 0.2), (3, "nowag", 0.3))
    ]
    table = normalizer_ablation.conclude(rows).tables["KL by method"]
    assert list(table["nowag / none"]) == pytest.approx([0.75, 1.5])
    assert list(table["method"]) == ["RTN 2 bits", "RTN 3 bits"]


def test_the_dense_model_has_no_normaliser(planted):
    rows = [planted("d", 0.0, method="dense", settings={})]
    rows += [planted(how, 0.2, settings={"normalize": how}, **RTN) for how in ("none", "rows")]
    assert len(normalizer_ablation.conclude(rows).tables["KL by method"]) == 1
