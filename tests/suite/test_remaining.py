"""The time that is left of simulated runs, once a tenth of the work is done."""

import random

import pytest

from suite.progress import Pace
from suite.remaining import DOUBT, Expected, Remaining

GUESSES = {"walk": 10.0, "sequential walk": 4.0, "measure": 1.0}  # seconds of one piece


def predicted_against_actual(truth: dict[str, float], noise: float, seed: int) -> float:
    """The whole run as it is foretold after a tenth, over what it took; pieces take as long as `truth` says."""
    draw, left, kinds = random.Random(seed), Remaining(), sorted(truth) * 20
    pieces = dict(enumerate(draw.sample(kinds, len(kinds))))
    seconds = {piece: truth[kind] * draw.uniform(1 - noise, 1 + noise) for piece, kind in pieces.items()}
    for piece, kind in pieces.items():
        left.add(piece, Expected(kind, GUESSES[kind]))
    passed, whole = 0.0, sum(seconds.values())
    for piece in pieces:
        left.done(piece, seconds[piece])
        passed += seconds[piece]
        if passed >= whole / 10:
            break
    return (passed + left.left({})) / whole


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("machine", [0.01, 1.0, 100.0])
def test_the_time_left_is_right_to_a_fifth_on_any_machine(machine, seed):
    truth = {kind: machine * seconds for kind, seconds in GUESSES.items()}
    assert 0.8 < predicted_against_actual(truth, noise=0.2, seed=seed) < 1.2


def test_guesses_that_are_wrong_for_a_kind_are_mended_by_what_its_pieces_took():
    left = Remaining()
    for piece, kind in enumerate(["walk", "walk", "measure", "measure"]):
        left.add(piece, Expected(kind, 1.0))
    left.done(0, 2.0)
    left.done(2, 30.0)
    assert left.left({}) == pytest.approx(32.0)


def test_a_kind_that_was_not_seen_yet_is_as_far_off_as_the_others_together():
    left = Remaining()
    left.add("a", Expected("walk", 2.0))
    left.add("b", Expected("measure", 5.0))
    left.done("a", 6.0)
    assert left.left({}) == pytest.approx(5 * (6 + 5 * DOUBT) / (2 + 5 * DOUBT))  # about 15


def test_a_first_piece_that_is_next_to_nothing_says_little_of_the_rest():
    left = Remaining()
    left.add("a", Expected("cold", 1.0))
    left.add("b", Expected("walk", 200.0))
    left.done("a", 3.0)
    expected = 200 * (3 + 200 * DOUBT) / (1 + 200 * DOUBT)
    assert left.left({}) == pytest.approx(expected) and expected < 300


def test_a_piece_that_is_half_done_takes_as_long_again_and_tells_of_its_kind():
    left = Remaining()
    left.add("a", Expected("walk", 1.0))
    left.add("b", Expected("walk", 3.0))
    assert left.left({"a": (4.0, 0.5)}) == pytest.approx(4.0 + 24.0)


def test_what_is_dropped_or_done_is_not_waited_for_and_workers_share_the_rest():
    left = Remaining()
    for piece in "abcd":
        left.add(piece, Expected("walk", 1.0))
    assert left.left({}) is None
    left.done("a", 3.0)
    left.drop("b")
    assert left.left({}, workers=2) == pytest.approx(3.0)


def test_a_piece_that_takes_longer_than_was_thought_is_as_good_as_done():
    left = Remaining()
    left.add("a", Expected("walk", 1.0))
    left.add("b", Expected("walk", 1.0))
    left.done("a", 1.0)
    assert left.left({"b": (5.0, 0.0)}) == 0.0


def test_a_slow_first_item_is_no_measure_for_the_others():
    pace = Pace(32, start=100.0)
    pace.saw(1, 136.0)
    assert pace.left(1, 136.0) == 36 * 31  # nothing else is known
    assert pace.part(1, 136.0) == 0  # but of all the work there is a guess, which is better
    pace.saw(3, 154.0)
    assert pace.left(3, 154.0) == 9 * 29
    assert pace.part(3, 154.0) == 54 / (54 + 9 * 29)


def test_what_the_first_piece_takes_says_nothing_of_other_kinds_once_another_was_done():
    left = Remaining()
    for piece, kind in enumerate(["cold", "cold", "walk"]):
        left.add(piece, Expected(kind, 1.0))
    left.done(0, 9.0)
    assert left.left({}) == pytest.approx(9.0 + (9 + 2 * DOUBT) / (1 + 2 * DOUBT))  # all that is known
    left.done(1, 2.0)
    assert left.left({}) == pytest.approx(2.0)
