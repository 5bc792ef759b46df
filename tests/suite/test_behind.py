import threading

import pytest

from suite.behind import behind


def test_things_are_done_in_order_and_all_of_them_in_the_end():
    done = []
    with behind() as writer:
        for number in range(20):
            writer.do(lambda number=number: done.append(number))
            writer.turn()
    assert done == list(range(20))


def test_the_loop_goes_on_while_something_is_done():
    may = threading.Event()
    with behind() as writer:
        writer.do(may.wait)
        writer.turn()
        may.set()  # the loop came to this


def test_a_turn_waits_for_what_the_round_before_left():
    done, may = [], threading.Event()
    with behind() as writer:
        writer.do(lambda: may.wait(10) and done.append(1))
        writer.turn()
        threading.Timer(0.05, may.set).start()
        writer.turn()
        assert done == [1]


def test_what_fails_behind_fails_the_loop():
    def fail():
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"), behind() as writer:
        writer.do(fail)


def test_after_an_error_of_the_loop_nothing_more_is_begun():
    done, may = [], threading.Event()
    with pytest.raises(KeyError), behind() as writer:
        writer.do(lambda: may.wait(10))
        writer.do(lambda: done.append(1))
        threading.Timer(0.05, may.set).start()
        raise KeyError
    assert done == []
