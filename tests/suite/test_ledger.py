"""The ledger: exact budgets, the same text for every tokenizer, and entries that survive or say so."""

import json
import re

import pytest

from suite.budget import Budget
from suite.errors import CalibrationError
from suite.ledger import draw, load_entry, refuse_leaks, save_entry

DOCUMENTS = [f"Document {i} tells of {'house and river ' * (i + 1)}near the sea." for i in range(20)]


def budget(**values) -> Budget:
    return Budget(**{"source": "test", "sequences": 3, "length": 24} | values)


def drawn(tokenizer, seed=0, **values):
    return draw(DOCUMENTS, "sha", tokenizer, budget(**values), seed)


class Letters:
    """Another tokenizer: one token a character."""

    bos_token_id = None

    def __call__(self, text, **_):
        return {"input_ids": [ord(c) for c in text], "offset_mapping": [(i, i + 1) for i in range(len(text))]}


def test_a_budget_is_exact(tokenizer):
    assert drawn(tokenizer).tokens.shape == (3, 24)


def test_spans_hold_the_text_that_the_tokens_spell(tokenizer):
    entry = drawn(tokenizer)
    assert [tokenizer.decode(ids) for ids in entry.tokens] == entry.text(DOCUMENTS)


def test_sequences_share_no_text(tokenizer):
    spans = [span for sequence in drawn(tokenizer).spans for span in sequence]
    taken = [(s.document, i) for s in spans for i in range(s.start, s.end)]
    assert len(taken) == len(set(taken))


def test_a_seed_repeats_and_another_seed_does_not(tokenizer):
    assert drawn(tokenizer, seed=1).id == drawn(tokenizer, seed=1).id != drawn(tokenizer, seed=2).id


def test_two_tokenizers_read_the_same_text_from_the_same_place(tokenizer):
    ours, letters = drawn(tokenizer, sequences=1), drawn(Letters(), sequences=1)
    assert ours.text(DOCUMENTS)[0].startswith(letters.text(DOCUMENTS)[0])


def test_documents_apart_are_beginnings_of_long_enough_documents(tokenizer):
    entry = drawn(tokenizer, join=None)
    assert all(len(spans) == 1 and spans[0].start == 0 for spans in entry.spans)


def test_bos_takes_the_place_of_a_token(tokenizer):
    tokens = drawn(tokenizer, bos=True).tokens
    assert tokens.shape == (3, 24) and (tokens[:, 0] == tokenizer.bos_token_id).all()


def test_a_tokenizer_without_bos_refuses_one():
    with pytest.raises(CalibrationError, match="no BOS token"):
        drawn(Letters(), bos=True)


def test_a_budget_larger_than_the_text_says_what_there_is(tokenizer):
    with pytest.raises(CalibrationError, match=r"asks for 1000 x 24 .* holds only \d+ such sequences"):
        drawn(tokenizer, sequences=1000)


def test_an_entry_comes_back_from_disk_as_it_was(tokenizer, tmp_path):
    entry = drawn(tokenizer)
    back = load_entry(save_entry(entry, tmp_path))
    assert (back.id, back.spans, back.budget) == (entry.id, entry.spans, entry.budget)
    assert back.tokens.equal(entry.tokens)


def test_an_entry_whose_tokens_were_changed_is_refused(tokenizer, tmp_path):
    path = save_entry(drawn(tokenizer, seed=1), tmp_path)
    other = save_entry(drawn(tokenizer, seed=2), tmp_path)
    path.with_suffix(".safetensors").write_bytes(other.with_suffix(".safetensors").read_bytes())
    with pytest.raises(CalibrationError, match="not those of its id"):
        load_entry(path)


@pytest.mark.parametrize("damage", ["{", json.dumps({"id": "x"})])
def test_a_damaged_entry_is_refused(tokenizer, tmp_path, damage):
    path = save_entry(drawn(tokenizer), tmp_path)
    path.write_text(damage)
    with pytest.raises(CalibrationError, match=re.escape(str(path))):
        load_entry(path)


def test_a_small_task_that_lies_whole_in_a_large_budget_is_a_leak():
    words = [str(i) for i in range(20_000)]
    with pytest.raises(CalibrationError, match="100% of the evaluation text is also calibration text"):
        refuse_leaks([" ".join(words)], [" ".join(words[500:520])], "a, b")


def test_copied_text_is_a_leak_and_common_phrases_are_not():
    words = [f"word{i}" for i in range(200)]
    with pytest.raises(CalibrationError, match="allow_overlap"):
        refuse_leaks([" ".join(words)], [" ".join(words[50:100])], "a, b")
    refuse_leaks([" ".join(words)], [" ".join(reversed(words))], "a, b")
