"""In which order pieces of work are done, by whoever does them: dependencies, retries, and an end to all of it."""

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Protocol, Self

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

    def start(self, work: Work) -> None:
        """Begin a piece of work. The caller sees to it that no more than `slots` are under way."""

    def wait(self) -> list[Found | Ended]:
        """What has happened since the last time, at least one thing. Raises what a piece of work raised."""

    def close(self) -> None:
        """Stop whatever is under way, at once."""


@dataclass
class Here:
    """One piece after another, in this process."""

    bench: Bench
    slots: int = 1
    _work: Work | None = None
    _finding: Iterator[Any] = field(default_factory=lambda: iter(()))

    def start(self, work: Work) -> None:
        self._work, self._finding = work, work.run(self.bench)

    def wait(self) -> list[Found | Ended]:
        if self._work is None:
            return []
        with at_work(self.bench.device):
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


@dataclass
class Schedule:
    """Work to be done, each piece after those that it needs. Iterate to have it done."""

    pool: Pool
    _waiting: dict[Work, frozenset[Work]] = field(default_factory=dict)
    _running: set[Work] = field(default_factory=set)
    _attempts: dict[Work, int] = field(default_factory=dict)
    _began: dict[Work, float] = field(default_factory=dict)
    _took: dict[type, list[float]] = field(default_factory=lambda: defaultdict(list))  # seconds, by kind of work

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.close()

    def add(self, work: Work, after: Collection[Work] = ()) -> None:
        """Have `work` done once all of `after`, added before it, is over. Nothing is added twice."""
        if work not in self._waiting:
            self._waiting[work] = frozenset(each for each in after if each in self._waiting)

    def drop(self, work: Work) -> None:
        """Never mind."""
        self._waiting.pop(work, None)

    def instead(self, work: Work, parts: Collection[Work]) -> None:
        """Have `parts` done next, in place of a piece that was given up: what needs that one needs them all."""
        needs = {
            other: needed | set(parts) if work in needed else needed for other, needed in self._waiting.items()
        }
        self._waiting = {part: frozenset() for part in parts} | needs

    def results(self) -> Iterator[tuple[Work, Any]]:
        """Do everything -> what each piece finds, as it is found; GivenUp for one whose workers were lost."""
        while self._waiting or self._running:
            self._start()
            for event in self.pool.wait():
                if isinstance(event, Found):
                    yield event.work, event.value
                    continue
                self._running.discard(event.work)
                if event.lost is None:
                    self._took[type(event.work)].append(time.monotonic() - self._began[event.work])
                elif not self._again(event.work, event.lost):
                    yield event.work, GivenUp(event.lost)

    def _start(self) -> None:
        """As much as there is room for, in the order in which it was added."""
        slots, unfinished = self.pool.slots, self._running | self._waiting.keys()
        for work, needed in list(self._waiting.items()):
            if len(self._running) >= slots:
                return
            if needed.isdisjoint(unfinished):
                del self._waiting[work]
                self._running.add(work)
                self._attempts[work] = self._attempts.get(work, 0) + 1
                self._began[work] = time.monotonic()
                self._announce(work)
                self.pool.start(work)

    def _announce(self, work: Work) -> None:
        """Which piece of work is begun, how many there are still, and about how long they take."""
        if isinstance(self.pool, Here):
            return  # what it does it shows itself
        kinds = Counter(type(each) for each in (*self._running, *self._waiting))
        left = f"{sum(map(len, self._took.values()))} pieces of work done, {kinds.total()} to do"
        if kinds.keys() <= self._took.keys():
            seconds = sum(count * fmean(self._took[kind]) for kind, count in kinds.items()) / self.pool.slots
            left += f", about {seconds:.0f} s left"
        logger.info("%s: begun; %s", work.label, left)

    def _again(self, work: Work, reason: str) -> bool:
        """Put a piece of work back whose worker was lost, unless that happened too often."""
        if self._attempts[work] >= ATTEMPTS:
            logger.warning("%s: given up after %d workers were lost (%s)", work.label, ATTEMPTS, reason)
            return False
        logger.warning("%s: begun again, its worker was lost (%s)", work.label, reason)
        self._waiting = {work: frozenset(), **self._waiting}
        return True
