"""Work that is done behind the back of a loop, one round later at most: writing what was computed before."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Behind:
    """Threads, which begin things in the order in which they are told of them: one also ends them so."""

    pool: ThreadPoolExecutor
    now: list[Future[None]] = field(default_factory=list)
    before: list[Future[None]] = field(default_factory=list)

    def do(self, work: Callable[[], None]) -> None:
        """Have it done. What it raises is raised by a later `turn`."""
        self.now.append(self.pool.submit(work))

    def turn(self) -> None:
        """A round is over: wait for what the one before it left, so that no more than two are in memory."""
        self.before, self.now = self.now, self.before
        while self.now:
            self.now.pop(0).result()


@contextmanager
def behind(threads: int = 1) -> Iterator[Behind]:
    """At the end everything is done; after an error in the loop itself, nothing more is begun."""
    pool = ThreadPoolExecutor(threads, "behind")
    found = Behind(pool)
    try:
        yield found
        found.turn()
        found.turn()
    finally:
        pool.shutdown(cancel_futures=True)
