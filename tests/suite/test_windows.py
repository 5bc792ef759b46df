"""Windows of a protocol, against the few lines of code that define it."""

import random

import pytest

from suite.data import Texts
from suite.errors import CalibrationError
from suite.protocols import Protocol
from suite.windows import cut_windows


def protocol(**values) -> Protocol:
    return Protocol(**{"source": "test", "length": 32, "windows": 3} | values)


def texts_of(documents) -> Texts:
    return Texts(source="test", split="all", documents=tuple(documents), licence="none")


@pytest.fixture
def texts(evaluation_text):
    return texts_of(evaluation_text.read_text().split(". "))


@pytest.fixture
def windows(texts, tokenizer):
    return cut_windows(texts, tokenizer, protocol())


@pytest.fixture
def documents():
    """Forty documents of 1 to 40 sentences, the fifth of them in characters of several bytes."""
    words = [f"the old king saw house {i}. " * (1 + i % 40) for i in range(40)]
    return texts_of([*words[:5], "größer → über " * 40, *words[5:]])


def gptqs_draw(documents, tokenizer, length, windows):
    """What GPTQ's loader does, on lists."""
    random.seed(0)
    found = []
    for _ in range(windows):
        while True:
            ids = tokenizer(documents[random.randint(0, len(documents) - 1)])["input_ids"]  # noqa: S311
            if len(ids) > length:
                break
        start = random.randint(0, len(ids) - length - 1)  # noqa: S311
        found.append(ids[start : start + length])
    return found


def test_windows_are_neighbours_in_the_joined_text(texts, tokenizer, windows):
    ids = tokenizer("\n\n".join(texts.documents))["input_ids"]
    assert windows.tokens.flatten().tolist() == ids[: 3 * 32]


def test_scored_text_is_all_but_the_first_token_of_each_window(tokenizer, windows):
    texts = [tokenizer.decode(ids[1:]) for ids in windows.tokens]
    assert windows.bytes == sum(len(text.encode()) for text in texts)
    assert windows.words == sum(len(text.split()) for text in texts)


@pytest.mark.parametrize("bos", [False, None])
def test_drawn_windows_are_those_of_gptqs_loader(documents, tokenizer, bos):
    found = cut_windows(documents, tokenizer, protocol(cut="drawn", windows=40, bos=bos))
    assert found.tokens.tolist() == gptqs_draw(documents.documents, tokenizer, 32, 40)
    assert all(text in "".join(documents.documents) for text in found.texts)


def test_a_drawn_document_is_longer_than_a_window_and_a_start_leaves_room_for_one(documents, tokenizer):
    ids = [len(tokenizer(text)["input_ids"]) for text in documents.documents]
    length = sorted(ids)[20]  # some document has just as many tokens
    rule = protocol(cut="drawn", windows=400, length=length, bos=False)
    found = cut_windows(documents, tokenizer, rule)
    assert found.tokens.tolist() == gptqs_draw(documents.documents, tokenizer, length, 400)


def test_the_tokens_id_knows_where_the_tokens_are_cut(texts, tokenizer):
    two, four = (cut_windows(texts, tokenizer, protocol(length=128 // n, windows=n)) for n in (2, 4))
    assert two.tokens.flatten().equal(four.tokens.flatten()) and two.tokens_id != four.tokens_id


def test_a_tokenizers_own_bos_is_a_token_of_the_document_it_starts(documents, tokenizer):
    class WithBos:
        bos_token_id = tokenizer.bos_token_id

        def __call__(self, text, **options):
            found = tokenizer(text, **options)
            if options.get("add_special_tokens", True):
                found["input_ids"] = [tokenizer.bos_token_id, *found["input_ids"]]
            return found

    found = cut_windows(documents, WithBos(), protocol(cut="drawn", windows=40))
    assert found.tokens.tolist() == gptqs_draw(documents.documents, WithBos(), 32, 40)
    joined = cut_windows(documents, WithBos(), protocol())
    assert (joined.tokens == tokenizer.bos_token_id).sum() == 1 and joined.tokens[0, 0] == tokenizer.bos_token_id


def test_documents_none_of_which_is_long_enough_are_refused(tokenizer):
    with pytest.raises(
        CalibrationError, match="none of the 2 documents of test is longer; lower evaluation.length"
    ):
        cut_windows(texts_of(["the king", "the sea"]), tokenizer, protocol(cut="drawn"))


def test_only_the_first_documents_count_and_as_many_as_there_are(texts, tokenizer):
    first = cut_windows(texts, tokenizer, protocol(documents=5, windows=None))
    assert first.protocol_id == cut_windows(texts_of(texts.documents[:5]), tokenizer, first.protocol).protocol_id
    few = cut_windows(texts_of(texts.documents[:5]), tokenizer, protocol(documents=1100, windows=1))
    assert "first 5 documents" in few.protocol.describe(1)


def test_at_most_so_many_windows_takes_what_there_is(texts, tokenizer):
    every = cut_windows(texts, tokenizer, protocol(windows=None))
    most = cut_windows(texts, tokenizer, protocol(windows=10_000, at_most=True))
    assert most.tokens.equal(every.tokens)


def test_bos_in_each_window_makes_every_text_token_count(texts, tokenizer, windows):
    with_bos = cut_windows(texts, tokenizer, protocol(bos=True))
    assert (with_bos.tokens[:, 0] == tokenizer.bos_token_id).all()
    assert with_bos.tokens[:, 1:].flatten().tolist() == windows.tokens.flatten().tolist()[: 3 * 31]


def test_the_protocol_is_the_same_for_every_name_and_tokenizer_and_no_other_rule(texts, tokenizer, windows):
    expected = protocol(source="elsewhere", split="test", expect={"perplexity": 5, "tolerance": 1})
    renamed = cut_windows(texts, tokenizer, expected)
    assert (renamed.protocol_id, renamed.tokens_id) == (windows.protocol_id, windows.tokens_id)
    assert cut_windows(texts, tokenizer, protocol(windows=2)).protocol_id != windows.protocol_id
    assert cut_windows(texts_of(texts.documents[1:]), tokenizer, protocol()).protocol_id != windows.protocol_id


def test_too_little_text_says_how_much_there_is(texts, tokenizer):
    with pytest.raises(CalibrationError, match=r"asks for 999 windows of 32 tokens, but test holds only \d+"):
        cut_windows(texts, tokenizer, protocol(windows=999))
