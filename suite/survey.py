"""What a cell takes from the whole model before its first block is compressed: gradients, and the price of a bit.

Gradients are of the dense model on the cell's own tokens, kept on disk for all cells of the same budget. A method
that spends bits where they matter sees every linear once; what it settles on is kept in the cell's folder.
"""

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import torch

from methods.method import Demand, Method, RatedMethod
from methods.statistics import Statistics
from suite.architecture import decoder_blocks, linears
from suite.gradients import Gradients, gradients_cache, measure
from suite.gradients import Source as GradientSource
from suite.jobs import Job
from suite.ledger import Entry
from suite.masking import in_a_line
from suite.models import Subject
from suite.progress import track
from suite.reproduction import EXPECTED
from suite.signed import signed_or_none, write_signed
from suite.stages import note_stage

SETTLED_NAME = "settled.json"


def survey(subject: Subject, job: Job, entry: Entry, folder: Path, device: torch.device) -> Gradients:
    """The gradients that a cell needs, measured or read back; `job.method` is settled. A failure marks the job.

    `folder` is that of the recipe's results.
    """
    found = measure(GradientSource(subject, entry), gradients_cache(folder), device)
    note_stage(job.folder, "gradients", found.spent)
    if isinstance(job.cell.method, RatedMethod):
        try:
            job.method = _settled(subject, job, job.cell.method, found)
        except EXPECTED as error:
            job.trouble = f"failed: {in_a_line(error, 300)}"
    return found


def _settled(subject: Subject, job: Job, method: RatedMethod, gradients: Gradients) -> Method:
    """The method at its price, from the cell's folder or from all linears together."""
    path = job.folder / SETTLED_NAME
    if (record := signed_or_none(path)) is not None:
        known: Method = type(method)(**record)
        return known
    settled = method.settled(list(_demands(subject, job, method, gradients)))
    write_signed(path, asdict(settled))  # type: ignore[call-overload]
    return settled


def _demands(subject: Subject, job: Job, method: RatedMethod, gradients: Gradients) -> Iterator[Demand]:
    for index, block in enumerate(track(decoder_blocks(subject.model), f"bits, {job.cell.label}")):
        squares = gradients(index)
        for name, layer in job.covered(block, linears(block)).items():
            statistics = replace(Statistics.none(layer.in_features), grad_sq=squares[name].cpu())
            yield method.demand(layer.weight.detach().to(subject.storage_dtype), statistics)
