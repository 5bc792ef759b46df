"""Arguments of every command as nobody should give them: one line that says what, and what instead."""

from pathlib import Path

import pytest

from suite.config import Recipe
from suite.results import JOURNAL_NAME
from suite.runner import Options, run


@pytest.fixture(scope="module")
def finished(no_tracking, tmp_path_factory, tiny_model, evaluation_text) -> Path:
    """The results folder of a run of one cell."""
    values = {
        "name": "one",
        "models": str(tiny_model),
        "calibration": {"source": "boolq", "sequences": 1, "length": 16},  # which no cell draws from
        "evaluation": {"source": str(evaluation_text), "windows": 2, "length": 32},
        "methods": {"rtn": {}},
    }
    run(Recipe.model_validate(values), Options(tmp_path_factory.mktemp("runs"), offline=True, device="cpu"))
    return next(tmp_path_factory.getbasetemp().glob("runs*/one"))


@pytest.fixture
def known(finished, recipe_values, write_recipe, tmp_path) -> dict[str, Path]:
    """What stands in the tables below between braces."""
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "within").write_text("x")
    return {
        "recipe": write_recipe(recipe_values),
        "run": finished,
        "cell": next((finished / "cells").iterdir()),
        "file": tmp_path / "file",
        "folder": tmp_path / "folder",
    }


WHOLE = "give a whole number from 1 to 4096, or leave it out"
ABSENT = "not on this machine; allowed: auto, cpu, cuda, cuda:N"
TUNE = "tune {recipe} --offline --set tune.confirm=c4@16 --set"
ARGUMENTS = [
    ("nosuch", "No such command 'nosuch'"),
    ("run", "Missing argument 'recipe'"),
    ("run {recipe} --nosuch", "No such option: --nosuch"),
    ("run {recipe} {recipe}", "unexpected extra argument"),
    ("run {recipe} --set", "Option '--set' requires an argument"),
    ("run {recipe} --workers x", "'--workers': Input should be a valid integer"),
    ("run {recipe} --workers 0", f"--workers is 0; {WHOLE}"),
    ("run {recipe} --workers -3", f"--workers is -3; {WHOLE}"),
    ("run {recipe} --workers 100000000000", f"--workers is 100000000000; {WHOLE}"),
    ("run {recipe} --workers 2 --cpus 0", f"--cpus is 0; {WHOLE}"),
    ("run {recipe} --executor slurm", "--executor is 'slurm'. Allowed: local, ray"),
    ("run {recipe} --address x", "belongs to --executor ray; give both or neither"),
    *[(f"run {{recipe}} --device {bad}", ABSENT) for bad in ("tpu", "cuda:99", "cuda:-1", "meta", "mps")],
    ("run {recipe} --out {file} --offline", "is a file, so no results can go to"),
    ("run {recipe} --out {file}/x --offline", "choose a directory"),
    ("run {recipe} --out /dev/null --offline", "/dev/null is a file"),
    ("run {recipe} --out /proc/x --offline", "choose another --out"),
    ("run {cell}", "cannot be read (Is a directory)"),
    ("quickstart x", "unexpected extra argument"),
    ("quickstart --model nope --offline", "no model 'nope': it is no directory here"),
    ("quickstart --model= --offline", "models.0: input should be a valid string (given: None)"),
    ("quickstart --model tiny --offline --set name=../x", "name: string should match pattern"),
    ("quickstart --model [tiny --offline", "--set 'models=[tiny': not YAML"),
    ("plan", "Missing argument 'recipe'"),
    ("plan {recipe} --json /proc/x.json --offline", "--json: nothing can be written to /proc"),
    ("plan {recipe} --json {folder} --offline", "is a folder; name a file"),
    ("plan {recipe} --json {file}/x.json --offline", "which is a file; name a folder"),
    ("plan {recipe} --device nope --offline", ABSENT),
    ("plan {recipe} --out {file} --offline", "choose a directory"),
    ("tune {recipe}", "has no key tune, so there is nothing to search"),
    ("tune {recipe} --trials 0", "'--trials': Input should be greater than or equal to 1"),
    ("tune {recipe} --set tune=3", "tune is 3; it takes a mapping with the keys objectives"),
    ("tune {recipe} --set tune={{}}", "tune.confirm: field required"),
    (f"{TUNE} tune.trials=0", "tune.trials: input should be greater than or equal to 1"),
    (f"{TUNE} tune.trials=true", "trials is True; give a number"),
    (f"{TUNE} tune.objectives=nope", "'kl', 'perplexity' or 'stored_bits'"),
    (f"{TUNE} tune.rungs.windows=[4,2]", "each larger than the last"),
    (f"{TUNE} tune.seed=4294967296", "tune.seed: input should be less than 4294967296"),
    ("inspect", "Missing argument 'cell'"),
    ("inspect {folder}", "is not a finished cell"),
    ("inspect {file}", "is not a finished cell"),
    ("inspect nowhere", "nowhere is not a finished cell"),
    ("export {cell}", "Missing option '--dense'"),
    ("export {folder} --dense new", "is not a finished cell"),
    ("export {cell} --dense {folder}", "give --dense a new or empty directory"),
    ("export {cell} --dense {file}/x", "which is a file; name a folder"),
    ("export {cell} --dense /proc/x", "--dense: nothing can be written to /proc"),
    ("generate {cell}", "Missing option '--prompt'"),
    ("generate {cell} --prompt a --tokens 1", "'--tokens': Input should be greater than or equal to 2"),
    ("generate {cell} --prompt a --tokens 99999 --device cpu", "exceed the model's 2048 positions"),
    ("generate {cell} --prompt a --temperature -1", "Input should be greater than or equal to 0"),
    ("generate {cell} --prompt a --temperature inf", "Input should be less than or equal to 100"),
    ("generate {cell} --prompt a --seed -1", "'--seed': Input should be greater than or equal to 0"),
    ("generate {cell} --prompt a --dtype int8 --device cpu", "allowed: auto, float16, bfloat16, float32"),
    ("generate {cell} --prompt a --device meta", ABSENT),
    ("replay nowhere", "nowhere is no saved failure"),
    ("replay {folder}", "give one of runs/NAME/failures"),
    ("replay {recipe}", "give one of runs/NAME/failures"),
    ("evaluate", "Missing argument 'CELL'"),
    ("evaluate {cell} --protocol 3", "no protocol '3'. Known, with @length"),
    ("evaluate {cell} --protocol [c4@16]", "no protocol \"['c4@16']\""),
    ("evaluate {cell} --protocol c4@16 --windows x", "'--windows': Input should be a valid integer"),
    ("evaluate {folder} --protocol c4@16", "is not a finished cell"),
    ("compare a", "compare takes two rows, not 1"),
    ("compare a b --out nowhere", "no rows at nowhere; name a results.jsonl"),
    ("compare a b --out {file}", "name a results.jsonl or a directory that holds one"),
    ("compare a b --out {run}", "no row 'a'; give a row_id"),
    ("report nowhere", "no rows at nowhere"),
    ("report {folder}", "name a results.jsonl or a directory that holds one"),
    ("report {recipe}", "name a results.jsonl or a directory that holds one"),
    ("report {cell}/manifest.json", "name a results.jsonl or a directory that holds one"),
    ("report {run} --to {file}", "which is a file; name a folder"),
    ("report {run} --to {file}/x", "is a file; name a folder"),
    ("report {run} --to /proc/x", "--to: nothing can be written to /proc"),
    ("report {run} --filter nope==3", "the rows have no nope"),
    ("report {run} --filter __import__('os').abort()", "is no comparison"),
    ("report {run} --template {folder}", "is no template. Known: "),
    ("report {run} --template nowhere", "no folder of templates at nowhere"),
    ("report --copy-templates {folder}", "is there already; name a folder that can be made"),
    ("report --copy-templates /proc/x", "--copy-templates: nothing can be written to /proc"),
    ("report sqlite:///nowhere.db", "no tracking store at sqlite:///nowhere.db"),
    ("methods x", "unexpected extra argument"),
    ("bench --device tpu", ABSENT),
    ("bench --scale huge", "'huge' is not one of 'full', 'small'"),
    ("bench --repeat 0", "'--repeat': Input should be greater than or equal to 1"),
    ("sync", "Missing argument 'folder'"),
    ("sync {folder}", "name the directory that a run wrote its results to"),
    ("sync {file}", "name the directory that a run wrote its results to"),
    ("doctor x", "unexpected extra argument"),
    ("study nope", "No such command 'nope'"),
    ("study run", "Missing argument 'name'"),
    ("study show matched-bit", "no study 'matched-bit'. Did you mean 'matched-bits'?"),
    ("study show matched-bits --scale huge", "--scale is 'huge'. Allowed: small, paper"),
    ("study show awq-table-4", "is a published table, no study"),
]


@pytest.mark.parametrize(("command", "message"), ARGUMENTS)
def test_a_mistake_in_arguments_is_refused_in_one_line(refused, known, command, message):
    assert message in refused(*(word.format_map(known) for word in command.split()))


def test_a_mistake_in_arguments_says_where_they_are_explained(refused):
    assert "nowag-bench bench --help" in refused("bench", "--repeat", "x")
    assert "nowag-bench --help" in refused("nosuch")


RANGES = [
    ("{low: 3}", "methods.rtn.bits.high: field required"),
    ("{low: 4, high: 3}", "methods.rtn.bits: low 4 is above high 3"),
    ("{low: 3, high: 4, step: 0}", "methods.rtn.bits: step 0 is not above 0"),
    ("{low: 3, high: .inf}", "methods.rtn.bits.high"),
    ("{low: 0, high: 3, log: true}", "log takes a low above 0 and no step"),
    ("{low: 3, hgih: 4}", "Did you mean 'high'?"),
    ("[3, {a: b}]", "give at least one number, word, true, false or null"),
    ("[]", "give at least one number, word, true, false or null"),
]


@pytest.mark.parametrize(("bits", "message"), RANGES)
def test_a_range_that_is_none_is_refused_in_one_line(refused, known, calibration_text, bits, message):
    confirm = f"{{source: {calibration_text}, windows: 2, length: 16}}"
    sets = f"tune.confirm={confirm}", f"methods={{rtn: {{bits: {bits}}}}}", "allow_overlap=true"
    overrides = [part for text in sets for part in ("--set", text)]
    assert message in refused("tune", known["recipe"], "--offline", *overrides)


def test_a_path_with_a_null_byte_is_refused_in_one_line(refused):
    assert "embedded null byte" in refused("inspect", "a\0b")


def test_no_arguments_at_all_print_the_help(invoke):
    status, out, err = invoke()
    assert status == 2 and "Usage: " in out + err and "quickstart" in out + err


JOURNALS = {
    "other rows": (b'{"text": "hi"}\n', "1: not a row of schema"),
    "lists": (b"[1]\n", "1: not a row of schema"),
    "text": (b"{nope\n", "no rows at"),
    "bytes": (b"\xff\xfe\n", "no rows at"),
    "zeros": (b"\0" * 500, "no rows at"),
    "nothing": (b"", "no rows at"),
    "a deep list": (b"[" * 100_000 + b"\n", "no rows at"),
    "5,000 digits": (b'{"a": ' + b"9" * 5000 + b"}\n", "no rows at"),
}


@pytest.mark.parametrize("what", JOURNALS)
def test_results_of_another_kind_are_refused_in_one_line(refused, tmp_path, what):
    data, message = JOURNALS[what]
    (tmp_path / "rows.jsonl").write_bytes(data)
    assert message in refused("report", "rows.jsonl")


@pytest.mark.parametrize("change", [('"seed":', '"sead":'), ('"status":"ok"', '"status":"fine"')])
def test_rows_with_other_fields_are_refused_in_one_line(refused, finished, tmp_path, change):
    rows = (finished / JOURNAL_NAME).read_text()
    assert change[0] in rows
    (tmp_path / "rows.jsonl").write_text(rows.replace(*change))
    assert "rows.jsonl:1: not a row of schema" in refused("report", "rows.jsonl")
