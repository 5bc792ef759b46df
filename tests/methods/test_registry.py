import pytest

from methods import METHODS, method_named
from methods.settings import settings_of


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
