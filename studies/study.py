"""What a study is: one question, and the recipe that answers it."""

from typing import Any, Protocol


class Study(Protocol):
    """A module of this package."""

    NAME: str
    QUESTION: str

    def recipe(self) -> dict[str, Any]:
        """The values of a recipe, as a YAML file would give them; `--set` changes them."""
        ...
