"""Finished cells measured by other protocols or on other tasks, without compressing them again.

A cell's new rows are its old ones but for what an evaluation says, so a cell must lie in its run's folder.
Everything is checked before anything is measured.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

from suite.blockwise import to_host
from suite.checkpoint import load_cell, read_manifest
from suite.environment import describe
from suite.errors import ConfigError, ResultError
from suite.evaluations import Evaluation, Noise, dense_cache
from suite.files import alone
from suite.ledger import load_entry, refuse_leaks
from suite.models import Subject
from suite.prepare import evaluations_of, pick_device, subject_of
from suite.protocols import Protocol, Tasks, refuse_unknown_models
from suite.results import JOURNAL_NAME, Journal, Row
from suite.runner import Outcome
from suite.scoring import Desk, identity, in_words, row_id, score
from suite.speed import Phase, at_work, measured
from suite.tracking import Tracker, default_uri

logger = logging.getLogger(__name__)

MEASURED = {  # what a row says of its evaluation; all else it says of its cell
    *("schema_version", "row_id", "status", "reason", "measures", "protocol", "protocol_id", "evaluated_tokens"),
    *("size", "quality", "task", "noise", "cost", "audit", "environment", "created"),
}


@dataclass(frozen=True)
class Wish:
    """By what finished cells are to be measured, and where."""

    protocols: tuple[Protocol, ...] = ()
    tasks: tuple[Tasks, ...] = ()
    offline: bool = False
    device: str = "auto"
    allow_overlap: bool = False


@dataclass(frozen=True)
class _Target:
    """A finished cell and one of its rows, whose identity the new ones take over."""

    cell: Path
    row: Row

    @property
    def run(self) -> Path:
        """The results folder that the cell lies in."""
        return self.cell.parent.parent


@dataclass(frozen=True)
class _Plan:
    """Cells of one model in one run, and what they are to be measured by."""

    model: str
    targets: Sequence[_Target]
    evaluations: Sequence[Evaluation]


def reevaluate(cells: Sequence[Path], wish: Wish) -> list[Outcome]:
    """Measure cells by the evaluations asked for -> for each of their runs, all its rows under these evaluations.

    A row that is in the journal is not measured again. SuiteError, before anything is measured, for whatever the
    user has to mend first.
    """
    if not wish.protocols and not wish.tasks:
        raise ConfigError("nothing to evaluate by: give --protocol NAME@LENGTH, --tasks A,B,C or both")
    device = pick_device(wish.device)
    targets = _targets([*dict.fromkeys(cell.resolve() for cell in cells)])
    try:
        refuse_unknown_models(wish.protocols, list(dict.fromkeys(target.row.model for target in targets)))
    except ValueError as error:
        raise ConfigError(f"--protocol: {error}") from None
    plans: dict[Path, list[_Plan]] = {}
    for run, model in dict.fromkeys((target.run, target.row.model) for target in targets):
        group = [target for target in targets if (target.run, target.row.model) == (run, model)]
        plans.setdefault(run, []).append(_plan(run, model, group, wish))
    with at_work(device):
        return [_work(run, of_run, wish, device) for run, of_run in plans.items()]


def _targets(cells: Sequence[Path]) -> list[_Target]:
    """The cells with their rows. CheckpointError when one is none, ResultError when it has no row in its run."""
    rows = {
        run: {row.cell_id: row for row in reversed(Journal(run / JOURNAL_NAME).rows())}
        for run in dict.fromkeys(cell.parent.parent for cell in cells)
    }
    return [_target(cell, rows[cell.parent.parent]) for cell in cells]


def _target(cell: Path, rows: Mapping[str, Row]) -> _Target:
    """The cell with the first row that it has in its run."""
    cell_id = read_manifest(cell)["cell_id"]
    if cell_id not in rows:
        raise ResultError(
            f"no row of cell {cell_id} in {cell.parent.parent / JOURNAL_NAME}: "
            "give a cell in the folder of its run, runs/NAME/cells/ID"
        )
    return _Target(cell, rows[cell_id])


def _plan(run: Path, model: str, targets: Sequence[_Target], wish: Wish) -> _Plan:
    """What is to be done for one model of a run, checked."""
    subject = subject_of(model, wish.offline)
    for target in targets:
        if target.row.model_fingerprint != subject.fingerprint:
            raise ConfigError(
                f"{target.cell} was made from a model with fingerprint {target.row.model_fingerprint[:8]}, and "
                f"{model} has {subject.fingerprint[:8]} now; put the old model back or run the recipe again"
            )
    evaluations = evaluations_of(wish.protocols, wish.tasks, subject, offline=wish.offline)
    if not wish.allow_overlap:
        for ledger in dict.fromkeys(target.row.ledger for target in targets if target.row.ledger):
            _refuse_leaks(run / "ledger" / f"{ledger}.json", subject, evaluations)
    return _Plan(model, targets, evaluations)


def _refuse_leaks(entry_path: Path, subject: Subject, evaluations: Sequence[Evaluation]) -> None:
    entry = load_entry(entry_path)
    calibration = subject.tokenizer.batch_decode(
        entry.tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    for evaluation in evaluations:
        names = f"calibration on {entry.budget.source}, evaluation on {evaluation.source}"
        refuse_leaks(calibration, evaluation.texts, names)


def _work(run: Path, plans: Sequence[_Plan], wish: Wish, device: torch.device) -> Outcome:
    """Measure what one run lacks."""
    uri = default_uri(run.parent)
    with alone(run), Tracker(run, uri) as tracker:
        desk = Desk(run, tracker)
        for plan in plans:
            _measure(plan, subject_of(plan.model, wish.offline), desk, device)
        asked = {evaluation.id: evaluation for plan in plans for evaluation in plan.evaluations}
        rows = [
            row.model_copy(update={"protocol": in_words(asked[row.protocol_id])})  # in the words asked for
            for row in desk.journal.rows()
            if row.protocol_id in asked
        ]
    return Outcome(run, rows, uri, len(tracker.pending()))


def _measure(plan: _Plan, subject: Subject, desk: Desk, device: torch.device) -> None:
    """Load each cell back and measure it by what it has no row of."""
    known = {row.row_id for row in desk.journal.rows() if row.status != "failed"}
    missing = [
        (target, [each for each in plan.evaluations if row_id(target.row.cell_id, each) not in known])
        for target in plan.targets
    ]
    stated = [each for each in plan.evaluations if each.expects(plan.model)]
    wanted = {each.id: each for each in [*stated, *(each for _, evaluations in missing for each in evaluations)]}
    noise = {key: each.prepare(subject, device, dense_cache(desk.folder)) for key, each in wanted.items()}
    to_host(subject.model)
    for target, evaluations in missing:
        if not evaluations:
            continue
        logger.info("evaluating %s", target.row.label)
        with measured() as loading:
            loaded = load_cell(target.cell, device=device)
        for evaluation in evaluations:
            row = _row(target.row, evaluation, noise[evaluation.id], device)
            desk.record(*score(row, loaded, evaluation, device, loading))
            loading = Phase()  # the first row of a cell bears the cost of loading it
        del loaded  # it may be on the device, where the next one wants its room


def _row(of_cell: Row, evaluation: Evaluation, noise: Noise, device: torch.device) -> Row:
    """What the cell's other row says of the cell, with this evaluation and without its figures."""
    return Row(
        **of_cell.model_dump(exclude=MEASURED),
        row_id=row_id(of_cell.cell_id, evaluation),
        status="ok",
        noise=noise,
        **identity(evaluation),
        environment=describe() | {"device": str(device)},
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
