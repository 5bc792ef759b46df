"""How long the rest of some work will take, from what is known of it beforehand and what was seen of it so far.

Each piece has a kind and a size, in seconds as one would guess them. What pieces of a kind took against their size
corrects the guess for the rest of that kind; a kind that was not seen yet is corrected as all others together, but
for the very first piece.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

DOUBT = 0.03
"""Of what is still to be done, the part that is held to be guessed right when one piece was seen."""


@dataclass(frozen=True)
class Expected:
    """What is known of a piece before it is begun."""

    kind: str
    seconds: float  # a guess: only how it compares with other pieces counts


@dataclass
class Remaining:
    """Pieces by whatever names them: anything that has a hash."""

    _waiting: dict[Any, Expected] = field(default_factory=dict)
    _took: dict[str, float] = field(default_factory=dict)  # seconds, by kind
    _guessed: dict[str, float] = field(default_factory=dict)  # of the same pieces
    _first: tuple[float, float] = (0.0, 0.0)  # seconds and guess of the piece that was over first

    def add(self, piece: Any, expected: Expected) -> None:
        """Something is to be done."""
        self._waiting[piece] = expected

    def expected(self, piece: Any) -> Expected:
        """What is known of a piece that is not over."""
        return self._waiting[piece]

    def drop(self, piece: Any) -> None:
        """It will not be done after all."""
        self._waiting.pop(piece, None)

    def done(self, piece: Any, seconds: float) -> None:
        """It is over, and took so long."""
        expected = self._waiting.pop(piece)
        if not self._guessed:
            self._first = seconds, expected.seconds
        self._learn(self._took, self._guessed, expected, 1.0, seconds)

    def left(self, running: Mapping[Any, tuple[float, float]], workers: int = 1) -> float | None:
        """Seconds until all is done; None before anything is known.

        `running` has, of pieces that were begun, the seconds that they took so far and the part of them that is
        done, 0 where nobody knows.
        """
        took, guessed = dict(self._took), dict(self._guessed)
        for piece, (seconds, part) in running.items():
            if part > 0:
                self._learn(took, guessed, self._waiting[piece], part, seconds)
        if not sum(guessed.values()) or not sum(took.values()):
            return None
        overall = self._overall(took, guessed)
        total = 0.0
        for piece, expected in self._waiting.items():
            known = guessed.get(expected.kind, 0.0)
            rate = took[expected.kind] / known if known else overall
            seconds, part = running.get(piece, (0.0, 0.0))
            whole = seconds / part if part > 0 else expected.seconds * rate
            total += max(0.0, whole - seconds)
        return total / workers

    def _overall(self, took: Mapping[str, float], guessed: Mapping[str, float]) -> float:
        """How pieces compare with their guesses. The first begins much for the first time: it counts if alone,
        and the less, the smaller it is.
        """
        seconds, guess = sum(took.values()), sum(guessed.values())
        others = guess - self._first[1]
        if others > 1e-9 * guess:
            return (seconds - self._first[0]) / others
        doubt = DOUBT * sum(expected.seconds for expected in self._waiting.values())
        return (seconds + doubt) / (guess + doubt)

    @staticmethod
    def _learn(
        took: dict[str, float], guessed: dict[str, float], expected: Expected, part: float, seconds: float
    ) -> None:
        took[expected.kind] = took.get(expected.kind, 0.0) + seconds
        guessed[expected.kind] = guessed.get(expected.kind, 0.0) + part * expected.seconds
