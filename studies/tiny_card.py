"""The model card of studies/tiny_model.py's model, written from its metrics alone."""

import math
from collections.abc import Mapping
from typing import Any

CARD = """\
---
license: cc-by-sa-4.0
language: en
library_name: transformers
---
# {name}

A Llama of {parameters:,} parameters with tied embeddings, stored as float16. It was trained from random weights
and never quantised. It is there for tests and demonstrations of compression: learned weights in a few megabytes.
It writes text that looks like English and means little; it is not a useful language model.

| | |
| --- | --- |
| architecture | {shape} |
| training | {steps:,} steps, {seen:,} tokens, {epochs:.1f} epochs of {train_tokens:,} tokens |
| validation loss | {loss:.4f} nats per token: perplexity {perplexity:.2f}, {bits_per_byte:.3f} bits per byte |
| before rounding to float16 | {loss_before:.4f} |
| training loss, dropout {dropout} at work | {train_loss:.4f} |
| made | {date}, {device}, torch {torch}, transformers {transformers}, {seconds:.0f} s for all runs |

Validation is {validation_tokens:,} tokens of documents that were not trained on, in windows of {length} tokens.
The weights are those of the lowest validation loss among runs that differ in dropout ({dropouts}), so that loss
flatters a little.

## Text

{sources}

The text is by the contributors of Wikipedia. Documents that share 13 words in a row with an earlier one, with
BoolQ's held-out split or with XSum were left out, so a perplexity on those two is on text the model has not seen.
No such check was made for other text of Wikipedia, WikiText-2 among it, and the calibration split of BoolQ was
trained on. The tokenizer is a byte-level BPE of {vocabulary:,} entries, trained on the same documents; it adds no
special token by itself.

As text of Wikipedia under CC BY-SA went in, this folder is offered under CC BY-SA 4.0.

## Make it again

    python -m studies.tiny_model prepare TOKENS
    python -m studies.tiny_model train TOKENS MODEL {options}

The seed is {seed}. A CPU gives the same bytes again; a GPU gives a model that is alike.
"""
SOURCE = "- {name}: {documents:,} {credit}; {characters:,} characters, {licence}"


def card(metrics: Mapping[str, Any]) -> str:
    """The model card, README.md, from metrics.json."""
    corpus, plan, best = metrics["corpus"], metrics["plan"], metrics["best"]
    shape = ", ".join(f"{key.removeprefix('num_').replace('_', ' ')} {n}" for key, n in metrics["shape"].items())
    sources = "\n".join(SOURCE.format(name=name, **part) for name, part in corpus["sources"].items())
    loss = metrics["validation_loss"]
    return CARD.format(
        **{key: metrics[key] for key in ("parameters", "epochs", "bits_per_byte", "date", "device", "seconds")},
        **{key: metrics[key] for key in ("torch", "transformers")},
        name=metrics["name"],
        shape=shape,
        sources=sources,
        steps=int(best["step"]),
        seen=int(best["tokens"]),
        train_tokens=corpus["tokens"]["train"],
        validation_tokens=corpus["tokens"]["validation"],
        vocabulary=corpus["vocabulary"],
        loss=loss,
        perplexity=math.exp(loss),
        loss_before=metrics["validation_loss_before_rounding"],
        train_loss=best["train_loss"],
        dropout=best["dropout"],
        dropouts=", ".join(map(str, plan["dropout"])),
        length=metrics["shape"]["max_position_embeddings"],
        seed=plan["seed"],
        options=" ".join(f"--{key.replace('_', '-')} {plan[key]}" for key in ("steps", "learning_rate"))
        + "".join(f" --dropout {rate}" for rate in plan["dropout"]),
    )
