"""In which order pieces of work are done, by whoever does them: dependencies, retries, and an end to all of it."""

import logging
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import torch

from suite.progress import LINE_EVERY_SECONDS, in_words, within
from suite.remaining import Expected, Remaining
from suite.speed import at_work
from suite.work import Bench, Work

logger = logging.getLogger(__name__)

ATTEMPTS = 3
"""Times a piece of work is begun before it is given up, because its worker was lost each time."""


@dataclass(frozen=True)
class Found:
    """Something that a piece of work found; more may follow."""

    work: Work
    value: Any


@dataclass(frozen=True)
class Ended:
    """A piece of work is over: done, or its worker was `lost` and why."""

    work: Work
    lost: str | None = None


class Pool(Protocol):
    """Whoever does the work: this process, others on this machine, a cluster."""

    @property
    def slots(self) -> int:
        """How many pieces it can do at a time."""

    @property
    def shows_progress(self) -> bool:
        """Whether what it does it shows itself, loop by loop, in this process."""

    def take(self, bench: Bench) -> None:
        """Learn where the work is done, and what is prepared of it, before any is begun."""

    def start(self, work: Work) -> None:
        """Begin a piece of work. The caller sees to it that no more than `slots` are under way."""

    def wait(self) -> list[Found | Ended]:
        """What has happened since the last time, at least one thing. Raises what a piece of work raised."""

    def close(self) -> None:
        """Stop whatever is under way, at once."""


@dataclass
class Here:
    """One piece after another, in this process."""

    shows_progress: ClassVar[bool] = True
    device: torch.device
    slots: int = 1
    _bench: Bench | None = None
    _work: Work | None = None
    _finding: Iterator[Any] = field(default_factory=lambda: iter(()))

    def take(self, bench: Bench) -> None:
        self._bench = bench

    def start(self, work: Work) -> None:
        if self._bench is None:
            raise ValueError("start() before take(): there is nothing to work on")
        self._work, self._finding = work, work.run(self._bench)

    def wait(self) -> list[Found | Ended]:
        if self._work is None:
            return []
        with at_work(self.device):
            for value in self._finding:
                return [Found(self._work, value)]
        ended, self._work = self._work, None
        return [Ended(ended)]

    def close(self) -> None:
        self._work = None


@dataclass(frozen=True)
class GivenUp:
    """In place of what a piece of work would have found: its worker was lost, time and again."""

    reason: str


def alike(work: Work) -> Expected:
    """Where nothing is known: that pieces of one class take as long."""
    return Expected(type(work).__name__, 1.0)


@dataclass
class Schedule:
    """Work to be done, each piece after those that it needs. Iterate to have it done."""

    pool: Pool
    expected: Callable[[Work], Expected] = alike
    _waiting: dict[Work, frozenset[Work]] = field(default_factory=dict)
    _running: set[Work] = field(default_factory=set)
    _attempts: dict[Work, int] = field(default_factory=dict)
    _began: dict[Work, float] = field(default_factory=dict)
    _remaining: Remaining = field(default_factory=Remaining)
    _done: int = 0
    _said: float = 0.0  # when a line was last written

    def add(self, work: Work, after: Collection[Work] = ()) -> None:
        """Have `work` done once all of `after` is over, as far as that is to be done. Nothing is added twice."""
        if work not in self._waiting:
            self._waiting[work] = frozenset(after)
            self._remaining.add(work, self.expected(work))

    def drop(self, work: Work) -> None:
        """Never mind, unless it was begun."""
        if self._waiting.pop(work, None) is not None:
            self._remaining.drop(work)

    def instead(self, work: Work, parts: Collection[Work]) -> None:
        """Have `parts` done next, in place of a piece that was given up: what needs that one needs them all."""
        needs = {
            other: needed | set(parts) if work in needed else needed for other, needed in self._waiting.items()
        }
        self._waiting = {part: frozenset() for part in parts} | needs
        for part in parts:
            self._remaining.add(part, self.expected(part))

    def results(self) -> Iterator[tuple[Work, Any]]:
        """Do everything -> what each piece finds, as it is found; GivenUp for one whose workers were lost."""
        self._said = time.monotonic()
        while self._waiting or self._running:
            self._start()
            with within(self._in_all):
                events = self.pool.wait()
            for event in events:
                if isinstance(event, Found):
                    yield event.work, event.value
                    continue
                self._running.discard(event.work)
                if event.lost is None:
                    self._done += 1
                    self._remaining.done(event.work, time.monotonic() - self._began[event.work])
                    self._tell()
                elif not self._again(event.work, event.lost):
                    self._remaining.drop(event.work)
                    yield event.work, GivenUp(event.lost)

    def _start(self) -> None:
        """As much as there is room for, in the order in which it was added, of a kind the longest first."""
        slots, unfinished = self.pool.slots, self._running | self._waiting.keys()
        ready = [work for work, needed in self._waiting.items() if needed.isdisjoint(unfinished)]
        while ready and len(self._running) < slots:
            work = self._longest_like(ready[0], ready) if slots > 1 else ready[0]
            ready.remove(work)
            del self._waiting[work]
            self._running.add(work)
            self._attempts[work] = self._attempts.get(work, 0) + 1
            self._began[work] = time.monotonic()
            self._announce(work)
            self.pool.start(work)
        if not self._running:
            raise RuntimeError(f"pieces of work wait for each other: {', '.join(w.label for w in self._waiting)}")

    def _longest_like(self, first: Work, ready: Sequence[Work]) -> Work:
        """Of the kind that comes first: begun last, a long piece would leave the other workers with nothing."""
        kind = self._remaining.expected(first).kind
        like = [work for work in ready if self._remaining.expected(work).kind == kind]
        return max(like, key=lambda work: self._remaining.expected(work).seconds)

    def _announce(self, work: Work) -> None:
        """Which piece of work is begun, and how far all of it is."""
        if not self.pool.shows_progress:
            logger.info("%s: begun; %s", work.label, self._in_all(0.0))

    def _tell(self) -> None:
        """A line now and then."""
        if time.monotonic() - self._said >= LINE_EVERY_SECONDS and self._waiting:
            self._said = time.monotonic()
            logger.info("%s", self._in_all(0.0))

    def _in_all(self, part: float) -> str:
        """How far the recipe is, and how long it takes still; `part` of a loop that runs here is done."""
        now = time.monotonic()
        running = {work: (now - self._began[work], part if work.is_one_loop else 0.0) for work in self._running}
        pieces = len(self._running) + len(self._waiting)
        said = f"{self._done} pieces of work done, {pieces} to do"
        left = self._remaining.left(running, self.pool.slots)
        if left is None:
            return said
        passed = now - min(self._began.values())
        share = passed / (passed + left) if passed else 0.0
        return f"{said}, {share:.0%} of the time, about {in_words(left)} left"

    def _again(self, work: Work, reason: str) -> bool:
        """Put a piece of work back whose worker was lost, unless that happened too often."""
        if self._attempts[work] >= ATTEMPTS:
            logger.warning("%s: given up after %d workers were lost (%s)", work.label, ATTEMPTS, reason)
            return False
        logger.warning("%s: begun again, its worker was lost (%s)", work.label, reason)
        self._waiting = {work: frozenset(), **self._waiting}
        return True
