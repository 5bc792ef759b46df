"""What fine-tuning can be set to: the key `finetune` beside the settings of any method."""

from typing import Literal

from pydantic import Field

from suite.schema import Strict

Precision = Literal["float32", "bfloat16", "float16"]


class Training(Strict):
    """How something is trained: AdamW, a learning rate that falls when validation stops falling, an early end."""

    epochs: int = Field(default=5, ge=1, description="times over the sequences to train on, at most")
    batch: int = Field(default=2, ge=1, description="sequences in one step")
    learning_rate: float = Field(default=1e-4, gt=0, le=1, description="of AdamW, at the start")
    clip: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="most that the norm of a gradient may be"
    )
    precision: Precision = Field(default="float32", description="of the forward pass on a GPU")
    factor: float = Field(
        default=0.1, gt=0, lt=1, description="of the learning rate, once validation stops falling"
    )
    patience: int = Field(default=1, ge=0, description="epochs without a gain before that")
    stop_after: int = Field(default=3, ge=1, description="epochs without a gain before the end")


class EndToEnd(Training):
    """A second stage: all blocks at once, against the dense model's distributions over the next token."""

    epochs: int = Field(default=1, ge=1, description="times over the sequences to train on, at most")
    batch: int = Field(default=1, ge=1, description="sequences in one step")
    learning_rate: float = Field(default=1e-5, gt=0, le=1, description="of AdamW, at the start")
    clip: float | None = Field(
        default=1.0, gt=0, allow_inf_nan=False, description="most that the norm of a gradient may be"
    )


class Finetune(Training):
    """Training of what a compressed block stores as floats to put out what the dense block does (NoWag)."""

    validation: float = Field(
        default=0.25, gt=0, lt=1, description="share of the budget's sequences that is kept to judge by"
    )
    inputs: Literal["dense", "compressed"] = Field(
        default="compressed",
        description="what a block is fed: what the dense blocks before it put out, or the tuned",
    )
    norms: bool = Field(default=True, description="train the norm layers of the block, too")
    end_to_end: EndToEnd | None = Field(
        default=None, description="the second stage, {} as it is: the same of its own, inputs and norms apart"
    )

    def judged_by(self, sequences: int) -> int:
        """How many of the budget's sequences are kept to judge by: at least one."""
        return max(1, round(self.validation * sequences))

    def unfit(self, sequences: int) -> str | None:
        """Why so many sequences are too few, None if they are not."""
        if self.judged_by(sequences) < sequences:
            return None
        return (
            f"finetune.validation is {self.validation:g} of {sequences} calibration sequences, which leaves none "
            "to train on; lower it, or raise calibration.sequences"
        )

    @property
    def variant(self) -> str:
        """As a table prints it: what differs from the defaults."""
        stage = ["end to end", *_differs(self.end_to_end)] if self.end_to_end else []
        return " ".join(["fine-tuned", *_differs(self), *stage])


def _differs(settings: Training) -> list[str]:
    return [
        f"{name}={getattr(settings, name)}"
        for name, field in type(settings).model_fields.items()
        if name != "end_to_end" and getattr(settings, name) != field.default
    ]
