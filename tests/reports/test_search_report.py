"""A search's page: what was tried, what mattered, and verdicts that rest on paired windows."""

import pandas as pd
import pytest

from reports.tuning import SearchReport, confirmations


def record(number, kl=None, bits=2.0, state="finished", **more):
    settings = {"settings.dim": 4, "settings.damping": 0.0123456}
    own = {"trial": number, "state": state, "best": False, "method": "nowag-vq", **settings}
    return {**own, "predicted_bits": bits, "kl": kl, "seconds": 1.0, **more}


TRIALS = [
    record(0, 0.5, 2.0),
    record(1, 0.4, 2.2, best=True),
    record(2, 0.6, 2.1),
    record(3, state="stopped", bits=2.0),
]


@pytest.fixture
def report():
    return SearchReport("s", TRIALS, "kl", {"kl": {"dim": 0.75, "damping": 0.25}}, ())


@pytest.fixture
def pair(make_row):
    """Rows of found and default settings on eight windows, the first better by `gain` nats per token."""

    def make(gain):
        windows = [70.0, 80.0, 75.0, 66.0, 90.0, 71.0, 64.0, 85.0]
        rows = []
        for dim, less in ((4, gain), (6, 0.0)):
            own = {"window_nll": [w - 10 * less for w in windows], "window_kl": [w - 10 * less for w in windows]}
            rows.append(make_row(f"r{dim}", settings={"dim": dim}, scored_tokens=80, **own))
        return rows

    return make


def test_the_best_trial_is_named_with_its_settings(report):
    assert "best: trial 1, kl 0.4, 2.200 stored bits per weight: nowag-vq dim=4 damping=0.0123" in report.text()
    assert report.text().startswith("s: 3 finished, 1 stopped")


def test_the_line_over_time_never_rises_and_stopped_trials_are_ticks(report):
    axes = report.figures(pd.DataFrame(TRIALS))["history"].axes[0]
    points, best, ticks = axes.lines
    assert list(points.get_ydata()) == [0.5, 0.4, 0.6] and list(best.get_ydata()) == [0.5, 0.4, 0.4]
    assert list(ticks.get_xdata()) == [3]


def test_the_front_joins_what_nothing_beats_in_both(report):
    front = report.figures(pd.DataFrame(TRIALS))["front"].axes[0].lines[0]
    assert list(front.get_xdata()) == [2.0, 2.2] and list(front.get_ydata()) == [0.5, 0.4]


def test_importances_are_bars_with_the_largest_on_top(report):
    axes = report.figures(pd.DataFrame(TRIALS))["importance-kl"].axes[0]
    assert [bar.get_width() for bar in axes.patches] == [0.25, 0.75]


def test_the_page_holds_every_figure_beside_it_as_png_and_svg(report, tmp_path):
    page = report.write(tmp_path / "search").read_text()
    assert page.count("<svg") == 3 and "Nothing to compare" in page
    assert {path.suffix for path in (tmp_path / "search").glob("history.*")} == {".png", ".svg"}
    assert len(pd.read_csv(tmp_path / "search" / "trials.csv")) == 4


@pytest.mark.parametrize(
    ("gain", "word"), [(0.1, "better"), (-0.1, "worse"), (0.0, "cannot be told apart (identical)")]
)
def test_the_verdict_is_from_the_found_settings_side(pair, gain, word):
    [found] = confirmations(pair(gain), [({"dim": 4}, {"dim": 6})])
    assert all(word in sentence for sentence in found.sentences()) and len(found.sentences()) == 2
    assert "(2.125 bits) against" in found.sentences()[0]


def test_the_default_against_itself_is_no_comparison(pair):
    assert confirmations(pair(0.1), [({"dim": 6}, {"dim": 6})]) == []
