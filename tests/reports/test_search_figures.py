"""What a search's figures hold: values over time, shares, and the front."""

import math
from dataclasses import replace

import pytest

from reports.figures.search import drawings, history_frame, importance_frame, trial_frame
from reports.material import Material


def drawn(search):
    return {each.name: each for each in drawings(Material([], searches=[search]))}


def axes_of(drawing):
    [axes] = drawing.draw(drawing.data).axes
    return axes


def test_the_best_so_far_never_rises_and_goes_on_to_the_last_trial(search):
    frame = history_frame(search)
    assert list(frame["best"]) == [0.5, 0.4, 0.4, 0.4]
    assert list(frame["kl"].isna()) == [False, False, False, True]


def test_trials_that_were_stopped_are_marks_at_the_foot(search):
    points, best, foot = axes_of(drawn(search)["history-s"]).lines
    assert list(points.get_xdata()) == [0, 1, 2] and list(best.get_ydata()) == [0.5, 0.4, 0.4, 0.4]
    assert list(foot.get_xdata()) == [3] and foot.get_label() == "stopped"


def test_the_front_is_what_nothing_beats_in_both(search):
    frame = trial_frame(search)
    assert dict(zip(frame["trial"], frame["front"], strict=True)) == {0: True, 1: True, 2: False}
    front = axes_of(drawn(search)["search-front-s"]).lines[0]
    assert list(front.get_xdata()) == [2.0, 2.2] and list(front.get_ydata()) == [0.5, 0.4]


def test_settings_are_in_the_order_of_the_first_measure_and_have_a_bar_by_each(search):
    frame = importance_frame(search)
    assert list(frame["setting"]) == ["dim", "dim", "damping", "damping"]
    axes = axes_of(drawn(search)["importance-s"])
    assert [bar.get_width() for bar in sorted(axes.patches, key=lambda bar: bar.get_y())] == [0.75, 0.4, 0.25, 0.6]
    assert axes.yaxis_inverted() and [each.get_text() for each in axes.get_yticklabels()] == ["dim", "damping"]


def test_what_there_is_nothing_of_is_not_drawn(search):
    assert list(drawn(replace(search, importances={}))) == ["history-s", "search-front-s"]
    assert list(drawn(replace(search, importances={}, trials=search.trials[:1]))) == ["history-s"]
    assert drawn(replace(search, importances={}, trials=search.trials[3:])) == {}
    assert drawn(replace(search, importances={}, trials=[])) == {}


def test_two_searches_of_one_name_are_not_one_file(search):
    names = [each.name for each in drawings(Material([], searches=[search, search]))]
    assert len(set(names)) == len(names) == 6


@pytest.mark.parametrize("objective", ["kl", "perplexity"])
def test_axes_say_what_was_minimised(search, objective):
    trials = [trial | {"perplexity": trial["kl"]} for trial in search.trials]
    [history, *_] = drawings(Material([], searches=[replace(search, objective=objective, trials=trials)]))
    assert axes_of(history).get_ylabel().lower().startswith(objective)


def test_a_trial_that_ruined_the_model_is_no_point(search):
    trials = [search.trials[0] | {"kl": math.exp(700)}, *search.trials[1:]]
    ruined = replace(search, trials=trials)
    assert list(trial_frame(ruined)["trial"]) == [1, 2]
    assert list(history_frame(ruined)["best"].dropna()) == [0.4] * 3
    assert all(each.svg() for each in drawn(ruined).values())
