"""The comparison tables: which rows stand together, and what stands in each column.

A table never mixes two models, two protocols or two calibration budgets; rows that use no data stand in every
table of their model and protocol. A row without numbers keeps its place and says why.
"""

import math

import pandas as pd

DENSE = "dense"
NOTE = "note"
NUMBERS = {  # column of the frame -> header
    "stored_bits_per_weight": "stored bits/weight",
    "model_bits_per_parameter": "model bits/parameter",
    "sparsity": "sparsity %",
    "perplexity": "perplexity",
    "kl_mean_nats": "KL nats/token",
    "top1_agreement": "top-1 %",
    "seconds": "seconds",
    "peak_memory_gib": "peak GiB",
}
LABELS = {"title": "method", "variant": "pattern or bits", "statistics_mode": "statistics", "seed": "seed"}
PERCENT = ("sparsity", "top1_agreement")
DECIMALS = {
    "stored bits/weight": 3,
    "model bits/parameter": 3,
    "KL nats/token": 4,
    "top-1 %": 1,
    "seconds": 1,
}


def comparisons(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Caption -> table, for each model, protocol and budget, in the order in which they first appear."""
    return {caption(part): comparison(part) for part in parts(frame)}


def parts(frame: pd.DataFrame) -> list[pd.DataFrame]:
    """The frame cut into what may share a table."""
    pieces = []
    for _, group in frame.groupby(["model", "model_fingerprint", "protocol_id"], sort=False):
        budgets = group["calibration"].dropna().unique()
        free = group["calibration"].isna()
        pieces += [group[free | (group["calibration"] == budget)] for budget in budgets] or [group]
    return pieces


def comparison(frame: pd.DataFrame) -> pd.DataFrame:
    """The paper's table: labels, numbers and a note where there are none; dense first, then the rows' order.

    Raises ValueError if the rows mix models, protocols or calibration budgets.
    """
    for column in ("model_fingerprint", "protocol_id", "calibration"):
        if frame[column].nunique() > 1:
            found = ", ".join(map(repr, frame[column].dropna().unique()))
            raise ValueError(f"one table holds one {column}, got {found}; use comparisons() to cut the rows")
    ordered = frame.sort_values("method", key=lambda names: names != DENSE, kind="stable").reset_index(drop=True)
    labels = {key: header for key, header in LABELS.items() if key != "seed" or frame["seed"].nunique() > 1}
    table = ordered[list(labels)].rename(columns=labels)
    failed = ordered["status"] != "ok"
    for key, header in _numbers(ordered).items():
        values = pd.to_numeric(ordered[key]).mask(failed)
        table[header] = 100 * values if key in PERCENT else values
    table[NOTE] = (ordered["status"] + ": " + ordered["reason"].fillna("no reason given")).where(failed, "")
    return table


def caption(frame: pd.DataFrame) -> str:
    """Model, protocol, budget, machine and date of the rows of one table."""
    budget = ", ".join(frame["calibration"].dropna().unique()) or "none"
    machines = "; ".join(frame["machine"].dropna().unique()) or "not recorded"
    first = frame.iloc[0]
    return (
        f"{first['model']} ({first['model_fingerprint'][:8]}). "
        f"Evaluation: {first['protocol']} ({first['protocol_id'][:8]}). Calibration: {budget}. "
        f"Machine: {machines}. {frame['created'].max()[:10]}."
    )


def formatted(table: pd.DataFrame) -> pd.DataFrame:
    """The table as text, the same in every medium; a missing number is an en dash."""
    text = table.copy().astype(object)
    for header in number_headers(table):
        text[header] = [_text(value, DECIMALS.get(header, 2)) for value in table[header]]
    return text.astype(str)


def label_headers(table: pd.DataFrame) -> list[str]:
    """Headers of the columns that say what a row is, left to right."""
    return [header for header in table.columns if header in LABELS.values()]


def number_headers(table: pd.DataFrame) -> list[str]:
    """Headers of the measured columns, left to right."""
    return [header for header in table.columns if header not in (*LABELS.values(), NOTE)]


def pareto_front(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows that no other row beats in both stored bits and KL, cheapest first."""
    rows = frame.dropna(subset=["stored_bits_per_weight", "kl_mean_nats"])
    rows = rows.sort_values(["stored_bits_per_weight", "kl_mean_nats"])
    best_so_far = rows["kl_mean_nats"].cummin().shift(fill_value=float("inf"))
    return rows[rows["kl_mean_nats"] < best_so_far]


def _numbers(frame: pd.DataFrame) -> dict[str, str]:
    """Columns to show: perplexity names its text; memory is the accelerator's wherever there is one."""
    source = frame["protocol"].iloc[0].partition(",")[0]
    numbers = NUMBERS | {"perplexity": f"perplexity {source}"}
    if frame["peak_device_memory_gib"].notna().any():
        del numbers["peak_memory_gib"]
        numbers["peak_device_memory_gib"] = "peak device GiB"
    return numbers


def _text(value: float, decimals: int) -> str:
    if math.isnan(value):
        return "–"
    return f"{value:.2e}" if abs(value) >= 1e6 else f"{value:,.{decimals}f}"
