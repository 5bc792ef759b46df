"""The list of rows for a terminal: ids that name one row, and rows that differ in their seed alone."""

from reports.listing import listing, over_seeds
from suite.results import TaskScore


def first_words(text):
    return [line.split()[0] for line in text.splitlines()[1:]]


def test_an_id_is_cut_to_as_many_digits_as_tell_all_rows_apart(make_row):
    assert first_words(listing([make_row("0123456789ab"), make_row("fedcba987654")])) == ["01234567", "fedcba98"]
    assert first_words(listing([make_row("0123456789ab"), make_row("0123456780ab")])) == [
        "0123456789",
        "0123456780",
    ]


def test_rows_that_may_be_compared_stand_together(make_row):
    rows = [make_row(f"r{n}", protocol=f"{name}, rest") for n, name in enumerate(("c4@8", "ptb@8", "c4@8"))]
    assert first_words(listing(rows)) == ["r0", "r2", "r1"]


def test_a_line_says_what_was_scored_or_what_came_of_it(make_row):
    score = TaskScore(
        **{
            "task": "arc_easy",
            "harness": "lm-eval 0",
            "task_version": "1",
            "origin": "f",
            "stderr": {},
            "limit": None,
        },
        **{"metrics": {"acc": 0.25, "acc_norm": 0.5, "other": 3.0}, "items": {"acc": "0100", "acc_norm": "0101"}},
        **{"scored_items": 4, "items_in_task": 4, "batch_size": 1},
    )
    rows = [
        make_row("r0", perplexity=1234.567),
        make_row("r1", quality=None, task=score),
        make_row("r2", quality=None, status="void"),
    ]
    lines = listing(rows).splitlines()[1:]
    assert lines[0].endswith("  perplexity 1,234.57")
    assert lines[1].endswith("  acc 25.0 %, acc_norm 50.0 %")
    assert lines[2].endswith("  void")


def test_a_line_says_recipe_and_stored_bits(make_row):
    lines = listing([make_row("r0", recipe="mine", stored_bits_per_weight=2.0004), make_row("r1", size=None)])
    assert [line.split()[1] for line in lines.splitlines()[1:]] == ["mine", "quickstart"]
    assert [line.split()[6] for line in lines.splitlines()[1:]] == ["2.000", "–"]


def test_a_protocols_name_has_digits_of_its_id_where_several_share_it(make_row):
    one = {"protocol": "c4@8 (first 8 windows), rest", "protocol_id": "aaaabbbb"}
    rows = [make_row("r0", **one), make_row("r1", **one), make_row("r2", protocol="ptb@8, rest")]
    assert "aaaa" not in listing(rows)
    text = listing([*rows, make_row("r3", **{**one, "protocol_id": "ccccdddd"})])
    assert [text.count(f"(first 8 windows) {digits}  ") for digits in ("aaaa", "cccc")] == [2, 1]
    assert "ptb@8  " in text


def test_columns_begin_under_their_headers(make_row):
    header, line, longer = listing([make_row("r0"), make_row("r1", model="a-much-longer-name")]).splitlines()
    assert {each.index("Wanda") for each in (line, longer)} == {header.index("method")}


def test_rows_over_seeds_differ_in_the_seed_and_nothing_else(make_row):
    rows = [make_row(f"r{seed}", seed=seed) for seed in range(3)]
    others = [
        make_row("s0", seed=7, settings={"keep": 4, "of": 8}),
        make_row("s1", seed=7, statistics_mode="sequential"),
        make_row("s2", seed=7, calibration="boolq, 8 x 512 tokens"),
        make_row("s3", seed=7, protocol_id="another"),
        make_row("s4", seed=7, evaluated_tokens="others"),
        make_row("s5", seed=7, model_fingerprint="f2"),
        make_row("s6", seed=7, method="magnitude"),
    ]
    assert over_seeds(rows[1], [*others, *rows]) == rows
    assert over_seeds(others[0], [*others, *rows]) == others[:1]
