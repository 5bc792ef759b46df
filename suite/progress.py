"""Progress on standard error: a bar with the time left on a terminal, a line now and then elsewhere."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LINE_EVERY_SECONDS = 15.0

logger = logging.getLogger(__name__)
T = TypeVar("T")

_alone: ContextVar[bool] = ContextVar("alone", default=True)
_lines_wanted: ContextVar[bool] = ContextVar("lines_wanted", default=True)
_whole: ContextVar[Callable[[float], str] | None] = ContextVar("whole", default=None)


@contextmanager
def beside_others() -> Iterator[None]:
    """Inside, no bars: other processes write to the same terminal."""
    before = _alone.set(False)
    try:
        yield
    finally:
        _alone.reset(before)


@contextmanager
def without_lines() -> Iterator[None]:
    """Inside, no lines: whoever is above says in one line what became of it all. Bars, which vanish, stay."""
    before = _lines_wanted.set(False)
    try:
        yield
    finally:
        _lines_wanted.reset(before)


@contextmanager
def within(whole: Callable[[float], str]) -> Iterator[None]:
    """Inside, loops also say what `whole` says of all the work, given what part of their time is over."""
    before = _whole.set(whole)
    try:
        yield
    finally:
        _whole.reset(before)


def in_words(seconds: float) -> str:
    """A time as one would say it: 40 s, 12 min, 3.5 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"


def track(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Yield the items while showing how many are done and how long the rest will take."""
    count = total if total is not None else (len(items) if isinstance(items, Sized) else None)
    console = Console(stderr=True)
    if console.is_terminal and _alone.get():
        yield from _bar(items, what, count, console)
    else:
        yield from _lines(items, what, count)


@dataclass
class Pace:
    """How fast the items of a loop go. The first one, which compiles kernels and fills caches, is no measure."""

    total: int
    start: float  # on whatever clock
    first: float = 0.0  # when the first item was done

    def saw(self, done: int, now: float) -> None:
        """So many items are done."""
        if done == 1:
            self.first = now

    def left(self, done: int, now: float) -> float:
        """Seconds until all items are done, once so many are; of the first alone, as if all took as long."""
        rate = (now - self.first) / (done - 1) if done > 1 else now - self.start
        return rate * (self.total - done)

    def part(self, done: int, now: float) -> float:
        """The part of the loop's time that is over, 0 until a second item has told how fast they go."""
        passed = now - self.start
        return passed / (passed + self.left(done, now)) if passed and done > 1 else 0.0


def _bar(items: Iterable[T], what: str, total: int | None, console: Console) -> Iterator[T]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    times = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    pace = Pace(total or 0, time.monotonic())
    with Progress(*columns, *times, console=console, transient=True) as progress:
        task = progress.add_task(what + _in_all(0.0, total), total=total)
        for done, item in enumerate(items, 1):
            yield item
            now = time.monotonic()
            pace.saw(done, now)
            progress.update(task, completed=done, description=what + _in_all(pace.part(done, now), total))


def _lines(items: Iterable[T], what: str, total: int | None) -> Iterator[T]:
    last = time.monotonic()
    pace = Pace(total or 0, last)
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        pace.saw(done, now)
        if total and now - last >= LINE_EVERY_SECONDS and _lines_wanted.get():
            last = now
            said = _in_all(pace.part(done, now), total)
            own = f", about {pace.left(done, now):.0f} s left" if done > 1 or not said else ""
            logger.info("%s: %d of %d%s%s", what, done, total, own, said)


def _in_all(part: float, total: int | None) -> str:
    """What is to be said of all the work, after a semicolon; nothing where nobody knows."""
    whole = _whole.get()
    return f"; {whole(part)}" if whole and total else ""
