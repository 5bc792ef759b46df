"""What a report says in sentences, and how it lays things out: templates, which a user's folder may replace.

`.html` is escaped by Jinja, `.tex` and `.md` by `reports.escape`, captions (`.txt`) by whatever prints them. In
`.tex` a value is \\VAR{name}, a statement \\BLOCK{if ...}, a comment \\NOTE{...}.
"""

import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from jinja2 import (
    ChoiceLoader,
    FileSystemLoader,
    PackageLoader,
    StrictUndefined,
    Template,
    TemplateError,
    TemplateNotFound,
    TemplateSyntaxError,
    select_autoescape,
)
from jinja2.sandbox import SandboxedEnvironment

from reports.escape import latex, markdown
from suite.errors import ConfigError
from suite.files import write_atomically
from suite.schema import nearest

# what a template may raise
FAULTS = (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, RecursionError)


@dataclass(frozen=True)
class Caption:
    """What is to be said of a table or a figure: which template says it, and the facts that it may use.

    `kind` is the name of a file in templates/captions, without its ending.
    """

    kind: str
    facts: Mapping[str, str]


class Wording:
    """The templates of this package; those that `folder` has under the same names come first.

    Raises ConfigError if there is no such folder, or if a file in it is none of the templates or cannot be read.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        own = [FileSystemLoader(folder)] if folder else []
        pages = SandboxedEnvironment(  # a folder may come from a stranger
            loader=ChoiceLoader([*own, PackageLoader("reports")]),
            autoescape=select_autoescape(["html"]),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        papers = pages.overlay(
            block_start_string="\\BLOCK{",
            block_end_string="}",
            variable_start_string="\\VAR{",
            variable_end_string="}",
            comment_start_string="\\NOTE{",
            comment_end_string="}",
            finalize=latex,
        )
        readmes = pages.overlay(finalize=markdown)
        self._pages, self._others = pages, {".tex": papers, ".md": readmes}
        if folder:
            self._check(folder)

    def caption(self, caption: Caption) -> str:
        """One line of plain text; each medium escapes it as it has to."""
        return " ".join(self.render(f"captions/{caption.kind}.txt", **caption.facts).split())

    def render(self, template: str, **values: Any) -> str:
        """A template, filled in: whatever comes from data is escaped, and a name that is not there is an error."""
        with self.faults(values):
            return self.template(template).render(**values)

    def template(self, name: str) -> Template:
        """The template of this name, for others to fill in inside of `faults`."""
        return self._others.get(PurePath(name).suffix, self._pages).get_template(name)

    @contextmanager
    def faults(self, known: Iterable[str]) -> Iterator[None]:
        """What a user's template raises in here is a ConfigError: file, line, and the names that it may use."""
        try:
            yield
        except FAULTS as error:
            frames = [frame for frame in traceback.extract_tb(error.__traceback__) if self._owns(frame.filename)]
            if not frames:  # ours: a bug
                raise
            where = f"{frames[-1].filename}, line {frames[-1].lineno}"
            raise ConfigError(f"{where}: {_one_line(error)}; it may use: {', '.join(sorted(known))}") from error

    def _owns(self, file: str) -> bool:
        return self._folder is not None and Path(file).is_relative_to(self._folder)

    def _check(self, folder: Path) -> None:
        """That each file of the folder is a template of ours in the language of templates."""
        if not folder.is_dir():
            raise ConfigError(f"no folder of templates at {folder}")
        known = templates()
        files = [file.relative_to(folder) for file in folder.rglob("*") if file.is_file()]
        for file in sorted(file for file in files if not any(part.startswith(".") for part in file.parts)):
            name = file.as_posix()
            if name not in known:
                near = nearest(name, known)
                raise ConfigError(f"{folder / file} is no template.{near} Known: {', '.join(known)}")
            try:
                self.template(name)
            except TemplateSyntaxError as error:
                raise ConfigError(f"{folder / file}, line {error.lineno}: {_one_line(error)}") from error
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(f"{folder / file} cannot be read: {_one_line(error)}") from error


def templates() -> list[str]:
    """The names of all templates, as a user's folder may have them: `captions/front.txt`, `table.tex`."""
    return PackageLoader("reports").list_templates()


def copy_templates(to: Path) -> None:
    """Write the templates as they are into a new folder, to begin from. ConfigError if it is there already."""
    if to.exists():
        raise ConfigError(f"{to} is there already; name a folder that can be made")
    loader, plain = PackageLoader("reports"), SandboxedEnvironment()
    for name in templates():
        write_atomically(to / name, loader.get_source(plain, name)[0].encode())


def _one_line(error: Exception) -> str:
    said = f"no template {error}" if isinstance(error, TemplateNotFound) else str(error)
    return " ".join(said.split())
