from typing import Annotated

import pytest
from pydantic import Field, TypeAdapter
from pydantic.dataclasses import dataclass

from methods import METHODS, method_named
from methods.settings import Search, settings_of


def test_every_method_is_found_by_the_name_it_bears() -> None:
    assert {method_named(name).name: method_named(name) for name in METHODS} == METHODS


def test_a_misspelt_name_is_met_with_the_right_one() -> None:
    with pytest.raises(LookupError, match="No method 'nowagvq'. Did you mean 'nowag-vq'. Known: dense, "):
        method_named("nowagvq")


def test_a_wild_name_is_met_with_the_list() -> None:
    with pytest.raises(LookupError, match=r"No method 'zzz'\. Known: dense, magnitude, "):
        method_named("zzz")


def test_a_setting_says_what_it_may_be() -> None:
    lines = {setting.name: str(setting) for setting in settings_of(METHODS["nowag-vq"])}
    assert lines["share"].startswith("share = linear, one of linear | input | block: ")
    assert lines["reseed"].startswith("reseed = False, one of True | False: ")
    assert lines["iterations"].startswith("iterations = 100, >= 0, <= 10000: ")
    assert lines["iterations"].endswith("(searched: 5 to 200, logarithmic)")


def test_a_search_range_is_the_fields_own_or_its_choices_or_its_closed_bounds() -> None:
    vq, gptq = (
        {setting.name: setting.search for setting in settings_of(METHODS[n])} for n in ("nowag-vq", "gptq")
    )
    assert vq["dim"] == Search(low=2, high=8) and vq["reseed"] == Search(choices=(True, False))
    assert gptq["bits"] == Search(low=2, high=8) and gptq["bits"].whole


def test_a_setting_that_is_open_at_one_end_has_no_search_range() -> None:
    @dataclass(frozen=True)
    class Open:
        half: Annotated[float, Field(gt=0, le=1)] = 0.5
        closed: Annotated[float, Field(ge=0, le=1)] = 0.5

    half, closed = (setting.search for setting in settings_of(Open))
    assert half is None and closed == Search(low=0.0, high=1.0) and not closed.whole


def test_the_values_of_a_range_are_its_steps_with_both_ends() -> None:
    assert Search(low=2, high=5).values() == (2, 3, 4, 5)
    assert Search(low=16, high=40, step=8).values() == (16, 24, 32, 40)
    assert Search(low=0.1, high=0.7, step=0.1).values() == (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
    assert Search(low=0.1, high=1.0).values() == ()


@pytest.mark.parametrize("name", METHODS)
def test_what_is_searched_by_default_may_be_set(name: str) -> None:
    for setting in settings_of(METHODS[name]):
        search = setting.search
        if search is None:
            continue
        for value in search.values() or (search.low, search.high):
            TypeAdapter(METHODS[name].__pydantic_fields__[setting.name].rebuild_annotation()).validate_python(
                value
            )
