"""Progress on standard error: a bar with the time left on a terminal, a line now and then elsewhere."""

import logging
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from contextvars import ContextVar
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


def track(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Yield the items while showing how many are done and how long the rest will take."""
    count = total if total is not None else (len(items) if isinstance(items, Sized) else None)
    console = Console(stderr=True)
    if console.is_terminal and _alone.get():
        yield from _bar(items, what, count, console)
    else:
        yield from _lines(items, what, count)


def _bar(items: Iterable[T], what: str, total: int | None, console: Console) -> Iterator[T]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    times = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    with Progress(*columns, *times, console=console, transient=True) as progress:
        yield from progress.track(items, total=total, description=what)


def _lines(items: Iterable[T], what: str, total: int | None) -> Iterator[T]:
    start = last = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if total and now - last >= LINE_EVERY_SECONDS and _lines_wanted.get():
            last = now
            left = (now - start) / done * (total - done)
            logger.info("%s: %d of %d, about %.0f s left", what, done, total, left)
