"""Fine-tuning on a GPU, where kernels stand in for the references and the forward pass may be in 16 bits."""

import json
from dataclasses import replace

import pytest
import torch

from suite.budget import Budget
from suite.cell import Cell, build_method
from suite.compress import Fed, walk
from suite.finetune.cell import tune_cell
from suite.finetuning import Finetune
from suite.jobs import Job, notes_path
from suite.models import load_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

TOKENS = torch.randint(0, 250, (8, 16), generator=torch.Generator().manual_seed(0))
METHODS = {
    "codebook": ("nowag-vq", {"bits": 2, "dim": 4, "iterations": 2}),
    "grouped-int": ("gptq", {"bits": 2, "group_size": 64}),
    "lattice": ("quip-sharp", {"bits": 2, "sweeps": 0}),
    "masked": ("nowag-p", {"sparsity": 0.5}),
    "nm-sparse": ("nowag-p", {"sparsity": "2:4"}),
}


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("kind", METHODS)
def test_both_stages_lower_their_losses(tmp_path, kind, precision):
    subject, device = load_model("tiny"), torch.device("cuda")
    name, settings = METHODS[kind]
    said = build_method(name, settings)
    budget = Budget(source="none", sequences=8, length=16)
    base = Job(Cell("tiny", said.method, budget, 0, said.mode), "base", tmp_path / "cells" / "base")
    walk(subject, [base], Fed(TOKENS, 32), device)
    second = {"precision": precision, "epochs": 3}
    chosen = Finetune.model_validate({"precision": precision, "end_to_end": second})
    job = Job(replace(base.cell, finetune=chosen), "tuned", tmp_path / "cells" / "tuned", bases=(base,))
    tune_cell(subject, job, TOKENS, device)
    notes = [json.loads(notes_path(job.shard(index)).read_text()) for index in range(6)]
    assert all(each["finetune"]["after"] < each["finetune"]["before"] for each in notes)
    assert notes[0]["end_to_end"]["after"] <= notes[0]["end_to_end"]["before"]
    assert notes[0]["end_to_end"]["steps"] > 0
