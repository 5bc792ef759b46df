"""A search in words: what was tried, what was found, and verdicts that rest on paired windows of unseen text."""

import json
import math
from dataclasses import replace

import pandas as pd
import pytest

from reports.material import Material, Search
from reports.searches import SHOWN, confirmations, read_search, search_sections, write_search
from suite.errors import ResultError


@pytest.fixture
def pair(make_row):
    """Rows of found and default settings on eight windows, the first better by `gain` nats per token."""

    def make(gain, **more):
        windows = [70.0, 80.0, 75.0, 66.0, 90.0, 71.0, 64.0, 85.0]
        rows = []
        for dim, less in ((4, gain), (6, 0.0)):
            own = {"window_nll": [w - 10 * less for w in windows], "window_kl": [w - 10 * less for w in windows]}
            settings = {"recipe": "s", "settings": {"dim": dim}, "scored_tokens": 80}
            rows.append(make_row(f"r{dim}", **{**settings, **own, **more}))
        return rows

    return make


def against(found=4, default=6, **more):
    return Search("s", "kl", [], {}, [({"dim": found}, {"dim": default})], **more)


def section(search, rows=()):
    [found] = search_sections(Material(rows, searches=[search]))
    return found


def test_the_best_trial_is_named_with_its_settings(search):
    found = section(search)
    assert found.found == ["best: trial 1, kl 0.4, 2.200 stored bits per weight: nowag-vq dim=4 damping=0.0123"]
    assert found.summary == "s: 3 finished, 1 stopped" and found.text().splitlines()[-1] == "a note"


def test_of_a_front_the_smallest_comes_first(search):
    front = [trial | {"best": trial["state"] == "finished"} for trial in search.trials]
    assert [line.split(",")[0] for line in section(replace(search, trials=front)).found] == [
        "best: trial 0",
        "best: trial 2",
        "best: trial 1",
    ]


def test_the_table_has_the_best_finished_trials_first(search):
    assert list(section(search).trials["trial"]) == ["1", "0", "2"]
    many = [search.trials[0] | {"trial": at, "kl": 1 / (1 + at)} for at in range(30)]
    assert list(section(Search("s", "kl", many, {}, [])).trials["trial"]) == [str(29 - at) for at in range(SHOWN)]


@pytest.mark.parametrize(
    ("gain", "word"), [(0.1, "better"), (-0.1, "worse"), (0.0, "cannot be told apart (identical)")]
)
def test_the_verdict_is_from_the_found_settings_side(pair, gain, word):
    (sentence,) = section(against(), pair(gain)).sentences
    assert sentence.count(word) == 2 and ": perplexity " in sentence and "; kl " in sentence
    assert "(2.125 bits) against" in sentence


def test_the_default_against_itself_is_no_comparison(pair):
    assert confirmations(against(6, 6), pair(0.1)) == []


@pytest.mark.parametrize("other", [{"recipe": "another"}, {"protocol_id": "seen"}, {"status": "void"}])
def test_rows_of_another_recipe_or_under_a_protocol_that_the_search_saw_confirm_nothing(pair, other):
    assert confirmations(against(seen=["seen"]), pair(0.1, **other)) == []


def test_equal_settings_of_two_methods_are_not_held_against_each_other(pair):
    found, default = pair(0.1)
    assert confirmations(against(), [found, default.model_copy(update={"method": "rtn"})]) == []


def test_what_was_written_is_read_back(search, tmp_path):
    write_search(search, tmp_path / "search")
    assert read_search(tmp_path / "search" / "search.json") == search
    assert list(pd.read_csv(tmp_path / "search" / "trials.csv")["trial"]) == [0, 1, 2, 3]


def test_the_file_is_strict_json_where_a_number_is_not_finite(tmp_path):
    trial = {"trial": 0, "kl": math.nan, "rung.proxy": math.inf}
    write_search(Search("s", "kl", [trial], {}, []), tmp_path)
    read = json.loads((tmp_path / "search.json").read_text(), parse_constant=pytest.fail)
    assert read["trials"] == [{"trial": 0, "kl": None, "rung.proxy": None}]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"name": "s"}', "\x00"])
def test_a_damaged_file_is_refused_in_one_line_that_names_it(tmp_path, text):
    (tmp_path / "search.json").write_text(text)
    with pytest.raises(ResultError, match=r"^.*search\.json is no search \(.*\); `nowag-bench tune` [^\n]*$"):
        read_search(tmp_path / "search.json")
