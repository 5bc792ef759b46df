"""Published figures: which of them belongs to a row, and what is said of the difference."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reports import published
from reports.published import figures, presets, published_frame
from suite.results import Row

MakeRow = Callable[..., Row]

HEADER = "preset,model,method,variant,statistics,protocol,metric,value,tolerance_percent,calibration"
LINES = [
    "table-9,org/Llama-9b-hf,wanda,2:4,sequential,wikitext2-raw/1@4096,perplexity,10.0,3,C4",
    "table-9,org/Llama-9b-hf,wanda,2:4,sequential,c4/1@4096,perplexity,16.0,3,C4",
    "table-9,org/Llama-9b-hf,wanda,2:4,sequential,arc_easy+piqa,acc,60.0,5,C4",
    "table-9,org/Llama-9b-hf,nowag-vq,2 bits,dense,wikitext2-raw/1@4096,stored bits/weight,2.0,0.5,C4",
]


@pytest.fixture(autouse=True)
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One published table in place of those of the package."""
    path = tmp_path / "published.csv"
    sources = "title,arxiv_id,table,confidence,note"
    lines = [f"{line},A Paper,1234.56789,Table 9,high," for line in LINES]
    path.write_text("\n".join([f"{HEADER},{sources}", *lines]), encoding="utf-8")
    monkeypatch.setattr(published, "FIGURES", path)
    figures.cache_clear()
    yield
    figures.cache_clear()


@pytest.fixture
def reproduced(make_row: MakeRow) -> MakeRow:
    """A row of Wanda 2:4 that runs the table again, under the first figure's protocol."""

    def make(row_id: str = "r", **given: Any) -> Row:
        usual = {
            "reproduces": "table-9",
            "model": "org/Llama-9b-hf",
            "statistics_mode": "sequential",
            "protocol": "wikitext2-raw/1@4096, joined by a blank line, 83 windows of 4096",
        }
        return make_row(row_id, **usual | given)

    return make


def line_of(row: Row) -> dict[str, Any]:
    (line,) = published_frame([row]).to_dict("records")
    return line


@pytest.mark.parametrize(
    ("perplexity", "verdict"),
    [(10.0, "within"), (10.29, "within"), (9.71, "within"), (10.31, "outside"), (9.6, "outside")],
)
def test_a_difference_is_within_the_tolerance_or_outside(
    reproduced: MakeRow, perplexity: float, verdict: str
) -> None:
    line = line_of(reproduced(perplexity=perplexity))
    assert (line["ours"], line["published"]) == (pytest.approx(perplexity), 10.0)
    assert line["difference_percent"] == pytest.approx(10 * (perplexity - 10.0))
    assert line["verdict"] == verdict


@pytest.mark.parametrize(
    "other",
    [
        {"protocol": "wikitext2-raw/1@2048, all windows"},
        {"protocol": "wikitext2-raw/1@4096 (first 8 windows), joined"},
        {"protocol": "wikitext2-raw/1@4096 on wiki.test.raw, joined"},
        {"protocol": "wikitext2-raw/1@4096 with BOS, joined"},
        {"protocol": "c4-new/1@4096, 256 windows"},
        {"model": "org/Llama-9b-chat"},
        {"method": "sparsegpt"},
        {"variant": "4:8"},
        {"statistics_mode": "dense"},
        {"layers": "*.0.*"},
        {"reproduces": "table-8"},
    ],
    ids=str,
)
def test_another_measurement_has_no_published_figure(reproduced: MakeRow, other: dict[str, str]) -> None:
    line = line_of(reproduced(perplexity=10.0, **other))
    assert (line["ours"], line["verdict"]) == (pytest.approx(10.0), "no published figure")
    assert math.isnan(line["published"]) and math.isnan(line["difference_percent"])


@pytest.mark.parametrize("copy", ["org/Llama-9b-hf@abc123", "mirror/llama-9b-hf", "./models/Llama-9b-hf/"])
def test_a_copy_of_the_model_is_known_by_its_last_name(reproduced: MakeRow, copy: str) -> None:
    assert line_of(reproduced(model=copy))["published"] == 10.0


def test_each_protocol_has_its_own_figure(reproduced: MakeRow) -> None:
    rows = [reproduced("a"), reproduced("b", protocol="c4/1@4096, drawn", protocol_id="c4")]
    assert published_frame(rows).set_index("protocol")["published"].to_dict() == {
        "wikitext2-raw/1@4096": 10.0,
        "c4/1@4096": 16.0,
    }


def test_of_several_seeds_the_mean_of_the_logarithms_counts(reproduced: MakeRow) -> None:
    rows = [reproduced("a", seed=0, perplexity=8.0), reproduced("b", seed=1, perplexity=12.5)]
    (line,) = published_frame(rows).to_dict("records")
    assert (line["ours"], line["seeds"], line["verdict"]) == (pytest.approx(10.0), 2, "within")


def test_a_cell_that_failed_was_not_measured(reproduced: MakeRow) -> None:
    line = line_of(reproduced(status="failed", reason="out of memory", quality=None))
    assert (line["published"], line["verdict"]) == (10.0, "not measured")


def on_tasks(make_task: MakeRow, **given: Any) -> list[Row]:
    usual = {"reproduces": "table-9", "model": "org/Llama-9b-hf", "statistics_mode": "sequential"}
    arc = make_task("a", "arc_easy", acc="1111", items_in_task=4, **usual)
    return [arc, make_task("b", "piqa", acc="1000", **usual | {"items_in_task": 4} | given)]


def test_a_mean_over_tasks_is_compared_with_the_mean(make_task: MakeRow) -> None:
    (line,) = published_frame(on_tasks(make_task)).to_dict("records")
    assert (line["ours"], line["published"]) == (100 * (1 + 0.25) / 2, 60.0)


def test_a_mean_that_lacks_a_task_or_a_part_of_one_has_no_figure(make_task: MakeRow) -> None:
    cut, whole = on_tasks(make_task, items_in_task=9), on_tasks(make_task)
    assert set(published_frame(cut)["verdict"]) == {"no published figure"}
    assert set(published_frame(cut)["protocol"]) == {"arc_easy", "piqa (first 4 items)"}
    assert set(published_frame(whole[:1])["verdict"]) == {"no published figure"}


def test_a_seed_that_lacks_a_task_does_not_count(make_task: MakeRow) -> None:
    rows = on_tasks(make_task)
    rows.append(rows[1].model_copy(update={"row_id": "c", "seed": 1}))
    (line,) = published_frame(rows).to_dict("records")
    assert (line["ours"], line["seeds"]) == (62.5, 1)


def test_a_published_size_is_compared_with_the_stored_one(reproduced: MakeRow) -> None:
    vq = {"method": "nowag-vq", "variant": "2 bits", "statistics_mode": "dense"}
    line = line_of(reproduced(stored_bits_per_weight=2.02, **vq))
    assert (line["ours"], line["published"], line["verdict"]) == (2.02, 2.0, "outside")


def test_rows_that_reproduce_nothing_have_no_line(reproduced: MakeRow) -> None:
    assert published_frame([reproduced(reproduces=None)]).empty


def test_a_preset_says_its_source_and_its_models() -> None:
    (found,) = presets()
    assert (found.name, found.models) == ("table-9", ("org/Llama-9b-hf",))
    assert found.citation == "A Paper, arXiv:1234.56789, Table 9"
