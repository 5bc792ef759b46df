"""Bars of seconds and memory: what is counted once, what adds up, and which cells stand together."""

import pytest

from reports.entries import entries
from reports.figures.costs import drawings, memory_frame, time_frame
from reports.figures.ink import WRAP
from reports.figures.naming import MOST
from reports.material import Material
from reports.wording import Wording
from suite.results import Cost

WIKI, C4 = {"protocol_id": "wiki"}, {"protocol_id": "c4"}


@pytest.fixture
def cell(make_row):
    """Rows of one cell, one for each of the protocols."""

    def make(name, *protocols, **given):
        return [make_row(f"{name}{at}", **{**given, **each, "cell_id": name}) for at, each in enumerate(protocols)]

    return make


def seconds(rows):
    frame = time_frame(entries(rows))
    return {entry: list(own["seconds"]) for entry, own in frame.groupby("entry", sort=False)}


def test_a_cell_is_compressed_once_and_its_evaluations_add_up(cell):
    rows = cell("a", WIKI | {"evaluate_seconds": 3.0}, C4 | {"evaluate_seconds": 4.0})
    assert seconds(rows) == {"Wanda 2:4 (dense)": [1.0, 2.0, 7.0]}


def test_seconds_are_the_mean_over_seeds(cell):
    rows = [*cell("a", WIKI), *cell("b", WIKI, seed=1, calibrate_seconds=3.0, evaluate_seconds=5.0)]
    assert seconds(rows) == {"Wanda 2:4 (dense)": [2.0, 2.0, 4.0]}
    assert set(time_frame(entries(rows))["seeds"]) == {2}


def test_only_the_evaluations_that_all_entries_have_are_counted(cell):
    rows = [*cell("a", WIKI, C4), *cell("b", WIKI, title="GPTQ", method="gptq")]
    assert [each[2] for each in seconds(rows).values()] == [3.0, 3.0]


def test_where_entries_share_no_evaluation_all_are_counted(cell):
    rows = [*cell("a", WIKI, C4), *cell("b", {"protocol_id": "other"}, title="GPTQ", method="gptq")]
    assert [each[2] for each in seconds(rows).values()] == [6.0, 3.0]


def test_memory_is_the_peak_over_a_cells_rows_and_the_mean_over_its_seeds(cell):
    first = cell(
        "a", WIKI | {"peak_memory_gib": 1.0}, C4 | {"peak_memory_gib": 2.0, "peak_device_memory_gib": 9.0}
    )
    rows = [*first, *cell("b", WIKI, seed=1, peak_memory_gib=4.0)]
    frame = memory_frame(entries(rows))
    assert frame[["memory", "GiB", "seeds"]].to_numpy().tolist() == [["host", 3.0, 2], ["device", 9.0, 1]]


def test_bars_are_stacked_in_the_order_of_the_work_with_their_sum_behind(study):
    time = drawings(Material(study))[0]
    axes = time.draw(time.data).axes[0]
    assert [bars[1].get_x() for bars in axes.containers] == [0.0, 1.0, 3.0]
    assert "6.0" in [text.get_text() for text in axes.texts]


def test_device_memory_has_a_panel_where_there_is_a_device(make_row):
    for given, count in (({}, 1), ({"peak_device_memory_gib": 3.0}, 2)):
        memory = drawings(Material([make_row(**given)]))[1]
        assert len(memory.draw(memory.data).axes) == count


def test_machines_and_models_do_not_share_a_figure(make_row):
    rows = [make_row("a"), make_row("b", environment={"machine": "other"}), make_row("c", model="third")]
    found = [each.name for each in drawings(Material(rows))]
    times = [name for name in found if name.startswith("time")]
    assert times == ["time-smollm2-135m", "time-smollm2-135m-2", "time-third"] and len(found) == 6


def test_what_another_machine_measured_later_does_not_make_it_the_cells(cell):
    elsewhere = {"environment": {"machine": "other"}, "created": "2031-01-01T00:00:00+00:00"}
    rows = cell("a", C4 | elsewhere, WIKI)
    [time, _] = drawings(Material(rows))
    assert list(time.data["seconds"]) == [1.0, 2.0, 3.0]
    assert "Test CPU" in Wording().caption(time.caption) and "other" not in Wording().caption(time.caption)


@pytest.mark.parametrize(("protocols", "said"), [([WIKI], "here once"), ([WIKI, C4], "here 2 times")])
def test_the_caption_says_how_often_cells_were_scored(cell, protocols, said):
    assert said in Wording().caption(drawings(Material(cell("a", *protocols)))[0].caption)


@pytest.mark.parametrize("given", [{"cost": None}, {"method": "dense"}, {"layers": "model.layers.0"}])
def test_where_nothing_was_compressed_as_a_whole_there_is_no_figure(make_row, given):
    assert drawings(Material([make_row(**given)])) == []


def test_of_several_budgets_the_largest_is_shown_and_the_caption_says_so(make_row):
    small, large = "c4, 8 x 512 tokens, joined by ' '", "c4, 16 x 512 tokens, joined by ' '"
    rows = [
        make_row("a", calibration=small),
        make_row("b", calibration=large, calibration_tokens=8192, title="GPTQ", method="gptq"),
        make_row("c", calibration=large, calibration_tokens=8192),
        make_row("d", calibration=None, calibration_tokens=0, title="RTN", statistics_mode="none"),
    ]
    for drawing in drawings(Material(rows)):
        assert list(drawing.data["entry"].unique()) == ["GPTQ 2:4 (dense)", "Wanda 2:4 (dense)", "RTN 2:4"]
        assert f"{large}, the largest of 2 budgets." in Wording().caption(drawing.caption)


def test_entries_that_differ_in_the_budget_say_which(make_row):
    rows = [make_row(str(n), calibration=f"c4, {n} x 512 tokens, joined by ' '") for n in (8, 16)]
    names = list(time_frame(entries(rows))["entry"].unique())
    assert names == ["Wanda 2:4 (dense), 8 x 512 c4", "Wanda 2:4 (dense), 16 x 512 c4"]


def test_a_long_name_is_written_in_lines_and_each_bar_stands_at_its_name(make_row):
    long = {"variant": "2 bits " + "init=kmeans++ " * 4, "settings": {"n": 1}}
    rows = [make_row("a", peak_memory_gib=1.0), make_row("b", peak_memory_gib=2.0, **long)]
    memory = drawings(Material(rows))[1]
    (axes,) = memory.draw(memory.data).axes
    names = [text.get_text() for text in axes.get_yticklabels()]
    assert max(len(line) for name in names for line in name.split("\n")) <= WRAP < len(memory.data["entry"][1])
    assert [bar.get_width() for bar in axes.patches] == [1, 2] and names[1].startswith("Wanda 2 bits")


def test_entries_that_nothing_in_print_tells_apart_are_numbered(make_row):
    rows = [make_row("a"), make_row("b", settings={"hidden": 1})]
    names = list(drawings(Material(rows))[0].data["entry"].unique())
    assert names == ["Wanda 2:4 (dense)", "Wanda 2:4 (dense) #2"]


def test_many_entries_are_cut_and_the_caption_says_so(make_row):
    rows = [make_row(f"r{at}", settings={"at": at}) for at in range(MOST + 1)]
    for drawing in drawings(Material(rows)):
        assert drawing.data["entry"].nunique() == MOST
        assert f"The first {MOST} of" in Wording().caption(drawing.caption)


def test_what_came_beside_the_walk_is_a_stage_where_any_entry_took_it(make_row):
    cost = Cost(calibrate_seconds=1, compress_seconds=2, further_seconds=4, evaluate_seconds=8, peak_memory_gib=1)
    for given, stages in ((cost, 4), (cost.model_copy(update={"further_seconds": 0.0}), 3)):
        time = next(each for each in drawings(Material([make_row("a", cost=given)])) if "time" in each.name)
        assert len(time.data) == stages
        assert ("fine-tuning" in Wording().caption(time.caption)) is (stages == 4)
