"""Where tokens come from and how they are cut, and calibration budgets: so many of them, drawn by a seed."""

from typing import Any, Literal

from pydantic import Field, model_validator

from suite.schema import Strict

TokenWeights = Literal["uniform", "unit"]


class Tokens(Strict):
    """Where tokens come from and how they are cut: what a budget and a protocol have in common."""

    source: str = Field(description="a text by name, a hub data set, or a .txt/.jsonl file")
    split: str | None = Field(default=None, description="part of the source; None is the source's own default")
    length: int = Field(ge=2, description="tokens of one sequence or window")
    join: str | None = Field(default="\n\n", description="put between documents; null keeps documents apart")
    bos: bool | None = Field(
        default=None, description="BOS at the start of each sequence; null: as the tokenizer does by itself"
    )

    @property
    def _text(self) -> str:
        name = self.source if self.source.startswith("hub:") else self.source.rpartition("/")[2]
        return name if self.split in (None, "all") else f"{name}[{self.split}]"


class Budget(Tokens):
    """Calibration tokens: `sequences` × `length`, drawn by the cell's seed and kept in the ledger.

    The last two keys say what part each token has in the statistics.
    """

    sequences: int = Field(ge=1)
    skip_first: int = Field(
        default=0, ge=0, description="tokens at the start of each sequence that are context only (attention sinks)"
    )
    token_weights: TokenWeights = Field(
        default="uniform", description="unit: each token's input is scaled to length 1 before it is counted"
    )

    @model_validator(mode="after")
    def _some_token_counts(self) -> "Budget":
        if self.skip_first >= self.length:
            raise ValueError(
                f"skip_first is {self.skip_first}: of a sequence of {self.length} no token would count; lower it"
            )
        return self

    def describe(self) -> str:
        """The budget in words, as a caption says it."""
        joined = "documents apart" if self.join is None else f"joined by {self.join!r}"
        first = f", first {self.skip_first} of each left out" if self.skip_first else ""
        weighted = "" if self.token_weights == "uniform" else f", {self.token_weights} token weights"
        return f"{self._text}, {self.sequences} x {self.length} tokens, {joined}{first}{weighted}"

    def drawn(self, split: str) -> "Budget":
        """What the ledger records: the split by name, and nothing that changes no token."""
        return self.model_copy(update={"split": split, "skip_first": 0, "token_weights": "uniform"})

    def counted(self) -> dict[str, Any]:
        """The part of each token in the statistics: these keys change a cell, but no token."""
        return {"skip_first": self.skip_first, "token_weights": self.token_weights}
