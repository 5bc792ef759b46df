"""Filters choose lines by comparisons, run nothing, and say in one line what they do not take."""

import math

import pytest

from reports.filters import EXAMPLE, chosen
from suite.errors import ConfigError

LINES = [
    {"method": "wanda", "seed": 0, "kl_mean_nats": 0.25, "settings.sparsity": "2:4", "off_budget": True},
    {"method": "rtn", "seed": 1, "kl_mean_nats": math.nan, "settings.sparsity": None, "off_budget": False},
    {"method": "wanda", "seed": 2, "kl_mean_nats": 0.75, "settings.sparsity": 0.5},
]


@pytest.mark.parametrize(
    ("text", "fitting"),
    [
        ("method == 'wanda'", [0, 2]),
        ("method = 'wanda' AND seed > 0", [2]),
        ("params.method = 'wanda' and metrics.kl_mean_nats < 0.5", [0]),
        ("seed == 0 or seed == 1 and method == 'wanda'", [0]),
        ("not (seed == 0 or seed == 1)", [2]),
        ("0 < seed <= 2", [1, 2]),
        ("seed != -1", [0, 1, 2]),
        ("seed in (0, 2)", [0, 2]),
        ("seed not in [0, 2]", [1]),
        ("'and' in method", [0, 2]),
        ("method == 'a = b'", []),
        ("off_budget == True", [0]),
    ],
)
def test_comparisons_choose_lines(text: str, fitting: list[int]) -> None:
    assert [line for line, fits in enumerate(chosen(text, LINES)) if fits] == fitting


def test_a_missing_value_fits_no_comparison() -> None:
    for sign in ("<", ">", "==", "!="):
        assert not chosen(f"kl_mean_nats {sign} 0.1", LINES)[1]
        assert not chosen(f"settings.sparsity {sign} 0.1", LINES)[1]


def test_text_and_numbers_of_one_column_are_told_apart() -> None:
    assert chosen("settings.sparsity == 0.5", LINES) == [False, False, True]
    assert chosen("settings.sparsity == '2:4'", LINES) == [True, False, False]
    assert chosen("settings.sparsity < 1", LINES) == [False, False, True]


def test_what_mlflow_keeps_as_text_is_compared_as_text() -> None:
    assert chosen("params.seed = '1'", LINES) == [False, True, False]
    assert chosen("seed = '1'", LINES) == [False, False, False]


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "method.upper() == 'WANDA'",
        "method == [x for x in 'ab'][0]",
        "seed == 1 if seed else 2",
        "(lambda: 1) == 1",
        "f'{seed}' == '0'",
        "seed := 1",
        "seed == 1; seed",
        pytest.param("not " * 3000 + "seed == 1", id="deep"),
        "@seed == 1",
        "seed is 0",
        "seed",
        "seed ==",
        "seed == None",
        "method LIKE 'w%'",
        "'",
        "((",
        "\0",
        " ",
    ],
)
def test_all_else_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ConfigError) as error:
        chosen(text, LINES)
    assert str(error.value).startswith("--filter is") and EXAMPLE in str(error.value)
    assert "\n" not in str(error.value)


def test_a_wrong_name_is_told_the_nearest_even_where_it_decides_nothing() -> None:
    with pytest.raises(ConfigError, match="no metod. Did you mean 'method'"):
        chosen("seed >= 0 or metod == 'wanda'", LINES)
