"""The best of each size, on rows where it is planted."""

import pytest

from studies import paper_pruning, paper_quantization

GPTQ = {"method": "gptq", "title": "GPTQ", "variant": "2 bits"}
RTN = {"method": "rtn", "title": "RTN", "variant": "2 bits", "settings": {"bits": 2}}


def test_the_lowest_kl_of_a_size_is_best_and_the_others_are_multiples_of_it(planted):
    rows = [planted("a", 0.3, **GPTQ), planted("b", 0.2), planted("c", 0.6, **RTN)]
    conclusion = paper_pruning.conclude([planted("d", 0.0, method="dense"), *rows])
    table = conclusion.tables["KL by size"]
    assert list(table["x the best of its size"]) == pytest.approx([1, 1.5, 3])
    assert list(table["against the best"]) == ["", "worse", "worse"]
    assert (
        conclusion.sentences[0].endswith("last is RTN with 3.00 times that KL.") and "Wanda" in table["method"][0]
    )


def test_what_cannot_be_told_apart_from_the_best_is_named(planted):
    rows = [planted("a", 0.2, **GPTQ), planted("b", 0.2 + 1e-6)]
    sentence = paper_quantization.conclude([*rows, planted("c", 0.4, **RTN)]).sentences[0]
    assert "GPTQ, KL 0.200, is best; not told apart from it: Wanda; last is RTN" in sentence


def test_sizes_have_a_best_each_and_one_alone_beats_nobody(planted):
    rows = [planted("a", 0.9, stored_bits_per_weight=2.0), planted("b", 0.1, stored_bits_per_weight=4.0, **GPTQ)]
    sentences = paper_pruning.conclude(rows).sentences
    assert [sentence.startswith(f"{bits:.2f} stored") for sentence, bits in zip(sentences, (2, 4), strict=True)]
    assert all(sentence.endswith("is alone in its size.") for sentence in sentences)


def test_an_entry_off_its_budget_takes_no_part(planted):
    rows = [
        planted(str(kl), kl, settings={"kl": kl}, match={"bits_per_weight": 2.0}, stored_bits_per_weight=bits)
        for kl, bits in ((0.1, 2.09), (0.2, 2.0), (0.4, 2.01))
    ]
    conclusion = paper_quantization.conclude(rows)
    table = conclusion.tables["KL by size"]
    assert list(table["against the best"]) == ["", "worse", "off budget"]
    assert list(table["x the best of its size"])[:2] == pytest.approx([1, 2])
    assert conclusion.sentences[-2] == "Wanda 2:4 (dense) is off budget with 2.09."
