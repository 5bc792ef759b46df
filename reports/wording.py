"""What a report says in sentences, and how it lays things out: templates, which a user's folder may replace."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, PackageLoader, StrictUndefined, select_autoescape


@dataclass(frozen=True)
class Caption:
    """What is to be said of a table or a figure: which template says it, and the facts that it may use.

    `kind` is the name of a file in templates/captions, without its ending.
    """

    kind: str
    facts: Mapping[str, str]


class Wording:
    """The templates of this package; those that `folder` has under the same names come first."""

    def __init__(self, folder: Path | None = None) -> None:
        own = [FileSystemLoader(folder)] if folder else []
        self._templates = Environment(
            loader=ChoiceLoader([*own, PackageLoader("reports")]),
            autoescape=select_autoescape(["html"]),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    def caption(self, caption: Caption) -> str:
        """One line of plain text; each medium escapes it as it has to."""
        text = self._templates.get_template(f"captions/{caption.kind}.txt").render(**caption.facts)
        return " ".join(text.split())

    def render(self, template: str, **values: Any) -> str:
        """A template, filled in; in HTML whatever comes from data is escaped, and a missing name is an error."""
        return self._templates.get_template(template).render(**values)
