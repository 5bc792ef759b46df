"""In which order work is done, and what becomes of work whose workers are lost."""

from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
import torch

from suite.derive import Derive, Survey
from suite.errors import CalibrationError
from suite.remaining import Expected
from suite.runner import bounds_of
from suite.schedule import ATTEMPTS, Ended, Found, GivenUp, Here, Schedule
from suite.work import Measure, Reference, Walk


@dataclass(frozen=True)
class Piece:
    """A piece of work that finds its own name, `times` over."""

    label: str
    times: int = 1
    model: str = "none"
    is_one_loop: bool = False

    def run(self, bench):
        yield from [self.label] * self.times


@dataclass
class Staff:
    """A pool in which pieces end in the order in which they were begun; `loses` says how often a piece is lost."""

    slots: int = 2
    shows_progress: bool = False
    loses: dict = field(default_factory=dict)
    begun: list = field(default_factory=list)
    most: int = 0
    under_way: deque = field(default_factory=deque)

    def start(self, work):
        self.begun.append(work.label)
        self.under_way.append(work)
        self.most = max(self.most, len(self.under_way))

    def wait(self):
        work = self.under_way.popleft()
        if self.loses.get(work.label, 0):
            self.loses[work.label] -= 1
            return [Ended(work, "killed")]
        return [*(Found(work, value) for value in work.run(None)), Ended(work)]


def done(pool, *added) -> list:
    schedule = Schedule(pool)
    for work, after in added:
        schedule.add(work, after)
    return [(work.label, value) for work, value in schedule.results()]


def test_a_piece_waits_for_those_it_needs_and_the_others_overtake_it():
    first, second, third = Piece("first"), Piece("second"), Piece("third")
    pool = Staff()
    done(pool, (first, ()), (second, [first]), (third, ()))
    assert pool.begun == ["first", "third", "second"]


@pytest.mark.parametrize(
    ("slots", "begun"), [(1, ["walk", "a", "b", "c", "d"]), (2, ["walk", "a", "c", "b", "d"])]
)
def test_of_a_kind_the_longest_is_begun_first_where_several_work_side_by_side(slots, begun):
    known = {
        **{"walk": Expected("walk", 1.0), "a": Expected("walk", 1.0)},
        **{"b": Expected("measure", 2.0), "c": Expected("measure", 3.0), "d": Expected("measure", 2.0)},
    }
    pool = Staff(slots=slots)
    schedule = Schedule(pool, lambda work: known[work.label])
    for label in known:
        schedule.add(Piece(label))
    assert len(list(schedule.results())) == 5 and pool.begun == begun


def test_no_more_is_under_way_than_there_are_slots():
    pool = Staff(slots=3)
    assert len(done(pool, *((Piece(str(number)), ()) for number in range(10)))) == 10
    assert pool.most == 3


def test_a_lost_piece_is_begun_again_before_all_others():
    pool = Staff(slots=1, loses={"a": ATTEMPTS - 1})
    assert done(pool, (Piece("a"), ()), (Piece("b"), ())) == [("a", "a"), ("b", "b")]
    assert pool.begun == ["a"] * ATTEMPTS + ["b"]


def test_a_piece_that_is_lost_time_and_again_is_given_up_and_what_needs_it_goes_on():
    pool = Staff(loses={"a": ATTEMPTS})
    found = done(pool, (Piece("a"), ()), (Piece("b"), [Piece("a")]))
    assert found == [("a", GivenUp("killed")), ("b", "b")]


def test_what_is_dropped_is_not_begun_and_what_is_added_twice_keeps_its_first_needs():
    pool, a, b = Staff(), Piece("a"), Piece("b")
    schedule = Schedule(pool)
    schedule.add(a)
    schedule.add(b, [a])
    schedule.add(a, [a, b])  # a circle, had it been taken
    schedule.drop(b)
    assert [work.label for work, _ in schedule.results()] == pool.begun == ["a"]


def test_a_piece_waits_for_one_that_is_added_later_and_not_for_one_that_never_is():
    first, second, never = Piece("first"), Piece("second"), Piece("never")
    pool = Staff()
    done(pool, (second, [first, never]), (first, ()))
    assert pool.begun == ["first", "second"]


def test_pieces_that_wait_for_each_other_are_a_bug_that_is_told():
    a, b = Piece("a"), Piece("b")
    with pytest.raises(RuntimeError, match="wait for each other: a, b"):
        done(Staff(), (a, [b]), (b, [a]))


def test_what_needs_a_piece_that_was_given_up_needs_those_that_take_its_place():
    pool = Staff(slots=3, loses={"a": ATTEMPTS})
    schedule = Schedule(pool)
    schedule.add(Piece("a"))
    schedule.add(Piece("b"), [Piece("a")])
    for work, value in schedule.results():
        if value == GivenUp("killed"):
            schedule.instead(work, [Piece("a1"), Piece("a2")])
    assert pool.begun == ["a"] * ATTEMPTS + ["a1", "a2", "b"]
    assert pool.most == 2  # b was not begun beside them


@dataclass
class Slow(Staff):
    """Each piece takes ten seconds."""

    clock: float = 0.0

    def wait(self):
        self.clock += 10
        return super().wait()


@pytest.fixture
def slow(monkeypatch):
    pool = Slow(slots=1)
    monkeypatch.setattr("suite.schedule.time.monotonic", lambda: pool.clock)
    return pool


def test_what_is_begun_is_said_with_what_is_left_and_how_long_that_takes(slow, caplog):
    with caplog.at_level("INFO"):
        done(slow, *((Piece(name), ()) for name in "abc"))
    assert [message for message in caplog.messages if "begun" in message] == [
        "a: begun; 0 pieces of work done, 3 to do",
        "b: begun; 1 pieces of work done, 2 to do, 33% of the time, about 20 s left",
        "c: begun; 2 pieces of work done, 1 to do, 67% of the time, about 10 s left",
    ]


@pytest.mark.parametrize(("is_one_loop", "left"), [(True, ", 25% of the time, about 30 s left"), (False, "")])
def test_a_part_of_a_loop_is_a_part_of_a_piece_that_is_one_loop(slow, is_one_loop, left):
    told = []

    @dataclass(frozen=True)
    class Looping(Piece):
        def run(self, bench):
            told.append(schedule._in_all(0.25))
            yield from ()

    schedule = Schedule(slow)
    schedule.add(Looping("a", is_one_loop=is_one_loop))
    list(schedule.results())
    assert told == [f"0 pieces of work done, 1 to do{left}"]


def test_of_all_work_a_walk_alone_is_one_loop():
    assert [kind.is_one_loop for kind in (Walk, Reference, Measure, Survey, Derive)] == [True] + 4 * [False]


@pytest.mark.parametrize("shows_progress", [True, False])
def test_a_pool_that_shows_what_it_does_need_not_have_it_announced(slow, caplog, shows_progress):
    slow.shows_progress = shows_progress
    with caplog.at_level("INFO"):
        done(slow, (Piece("a"), ()))
    assert caplog.messages == ([] if shows_progress else ["a: begun; 0 pieces of work done, 1 to do"])


def test_a_line_now_and_then_tells_of_all_the_work(slow, caplog):
    with caplog.at_level("INFO"):
        done(slow, *((Piece(name), ()) for name in "abcd"))
    told = [message for message in caplog.messages if "begun" not in message]
    assert told == ["2 pieces of work done, 2 to do, 50% of the time, about 20 s left"]


@pytest.fixture
def here(tiny_bench):
    """This process, with the tiny model on the bench."""
    pool = Here(tiny_bench.device)
    pool.take(tiny_bench)
    return pool


def test_here_nothing_is_begun_before_there_is_something_to_work_on():
    with pytest.raises(ValueError, match="before take"):
        Here(torch.device("cpu")).start(Piece("a"))


def test_here_each_finding_is_handed_over_before_the_next_is_sought(here):
    seen = []

    @dataclass(frozen=True)
    class Noting(Piece):
        def run(self, bench):
            for number in range(2):
                seen.append(f"made {number}")
                yield number

    schedule = Schedule(here)
    schedule.add(Noting("n"))
    for _, value in schedule.results():
        seen.append(f"had {value}")
    assert seen == ["made 0", "had 0", "made 1", "had 1"]


def test_here_an_error_ends_everything_and_keeps_its_kind(here):
    @dataclass(frozen=True)
    class Failing(Piece):
        def run(self, bench):
            raise CalibrationError("no tokens")
            yield

    with pytest.raises(CalibrationError, match="no tokens"):
        done(here, (Failing("f"), ()))


@pytest.mark.parametrize(("blocks", "parts"), [(32, 2), (80, 8), (4, 4), (6, 3), (5, 1)])
def test_parts_of_a_walk_cover_all_blocks_and_later_ones_have_fewer(blocks, parts):
    bounds = bounds_of(blocks, parts, 0.15)
    lengths = [stop - start for start, stop in pairwise(bounds)]
    assert (bounds[0], sum(lengths), len(lengths)) == (0, blocks, parts)
    assert min(lengths) > 0 and lengths[0] == max(lengths)
