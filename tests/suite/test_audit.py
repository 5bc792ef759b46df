"""What all layers of a cell went through, in a few numbers."""

from suite.audit import summary


def test_a_count_says_in_how_many_layers_it_is_not_zero() -> None:
    layers = {name: {"damping_raised": times} for name, times in {"q": 0, "k": 3, "v": 1, "o": 0}.items()}
    assert summary(layers)["damping_raised"] == {"min": 0, "mean": 1.0, "max": 3, "layers": 2}


def test_a_measure_has_least_mean_and_greatest_and_passes_over_what_is_unknown() -> None:
    found = summary({"q": {"error": 0.5}, "k": {"error": None}, "v": {"error": 0.25}})
    assert found == {"layers": 3, "error": {"min": 0.25, "mean": 0.375, "max": 0.5}}


def test_a_flag_has_its_share_and_a_word_its_values() -> None:
    found = summary({"q": {"converged": True, "format": "b"}, "k": {"converged": False, "format": "a"}})
    assert (found["converged"], found["format"]) == ({"share": 0.5}, ["a", "b"])
