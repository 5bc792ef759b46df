"""`report`: tables, figures and a page from rows, wherever they are."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from suite.commands.shared import OpenOption, check_writable, open_page, say

if TYPE_CHECKING:
    from reports.material import Material

STORE = re.compile(r"[a-z][a-z0-9+.-]+:(?!\\).*|databricks|uc")  # an MLflow tracking URI, and no `C:\runs`

RUNS = Path("runs")  # where runs go unless they are told otherwise

SourcesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="SOURCE",
        help="Results files, folders of one run or of many, MLflow tracking URIs; of a row that comes twice the "
        "newest. Default: the newest run in runs.",
    ),
]
FilterOption = Annotated[
    str | None,
    typer.Option(
        "--filter",
        metavar="TEXT",
        help="Which rows. Of files by the columns of rows.csv and by settings, such as \"method == 'wanda' and "
        "settings.sparsity == 0.5 and kl_mean_nats < 0.5\"; a tracking URI takes MLflow's filters, such as "
        "\"params.method = 'wanda' and metrics.perplexity < 50\".",
    ),
]
SplitOption = Annotated[
    bool, typer.Option("--split", help="Accept rows of several protocols, each with tables of its own.")
]
TemplateOption = Annotated[
    Path | None,
    typer.Option("--template", metavar="DIR", help="Captions and layouts in place of the built-in ones."),
]
CopyOption = Annotated[
    Path | None,
    typer.Option("--copy-templates", metavar="DIR", help="Write the built-in templates to a new folder and stop."),
]


def report(
    source: SourcesArgument = None,
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="Folder for the report.")] = Path("report"),
    where: FilterOption = None,
    split: SplitOption = False,
    template: TemplateOption = None,
    copy_to: CopyOption = None,
    open_it: OpenOption = False,
) -> None:
    """Write rows as a page for a browser, tables (HTML, LaTeX, Markdown, CSV, Parquet), figures (PDF, SVG, PNG).

    Nothing is measured. Rows of two protocols, between which nothing can be compared, need --split.
    """
    from reports.build import Report
    from reports.load import newest_run
    from reports.mixed import check_unmixed
    from reports.wording import Wording, copy_templates

    if copy_to:
        check_writable("--copy-templates", copy_to)
        copy_templates(copy_to)
        say(f"templates: {copy_to}; keep what you change, and give the folder as --template")
        return
    check_writable("--to", to)
    wording = Wording(template)
    if not source:
        source = [str(newest_run(RUNS))]
        say(f"source:  {source[0]}, the newest run")
    material = _gathered(source, where or "")
    if not split:
        check_unmixed(material)
    made = Report(material, wording)
    page = made.write(to)
    say(f"rows:    {len(made.rows):,}")
    say(f"tables:  {len(made.tables):,} in {to / 'tables'}")
    say(f"figures: {len(made.drawings):,} in {to / 'figures'}")
    say(f"report:  {page}")
    if open_it:
        open_page(page)


def _gathered(sources: list[str], where: str) -> "Material":
    """The rows of all sources with what lies beside them."""
    from tempfile import TemporaryDirectory

    from reports.load import gather

    stores = [source for source in sources if STORE.fullmatch(source) and not Path(source).exists()]
    paths = [Path(source) for source in sources if source not in stores]
    with TemporaryDirectory() as scratch:
        folders = [Path(scratch) / str(number) for number in range(len(stores))]
        if stores:
            from suite.tracked_rows import fetch

            for uri, folder in zip(stores, folders, strict=True):
                fetch(uri, where, folder)
        return gather(paths, where, folders)
