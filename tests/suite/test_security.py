"""What a stranger's model, wheel or name can do here: nothing. What leaves in text: no secret."""

import ast
import json
import logging
import shutil
import zipfile
from pathlib import Path

import pytest

from suite import assets, cli
from suite.errors import AssetError
from suite.masking import MaskedFormatter, masked
from suite.models import load_model
from suite.results import Journal

ROOT = Path(__file__).parents[2]
FOLDERS = ("suite", "methods", "kernels", "reports", "studies")
FORBIDDEN = {
    **dict.fromkeys(("eval", "exec", "os.system", "os.popen", "torch.load", "np.load", "numpy.load"), "call"),
    **dict.fromkeys(("pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"), "import"),
}
SWITCHES = {("shell", True), ("trust_remote_code", True), ("allow_pickle", True), ("verify", False)}
SECRET = "s3cret-value-of-a-token"


def dangers(source: str) -> list[str]:
    """What a source does that could run a stranger's code or trust a stranger's server."""
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [each.name for each in node.names if FORBIDDEN.get(each.name.split(".")[0]) == "import"]
        elif isinstance(node, ast.ImportFrom) and FORBIDDEN.get((node.module or "").split(".")[0]) == "import":
            found.append(str(node.module))
        elif isinstance(node, ast.Call):
            found += of_a_call(node)
    return found


def of_a_call(node: ast.Call) -> list[str]:
    name, keywords = ast.unparse(node.func), {each.arg: each.value for each in node.keywords}
    found = [name] if FORBIDDEN.get(name) == "call" else []
    switched = {(key, value.value) for key, value in keywords.items() if isinstance(value, ast.Constant)}
    found += [key for key, _ in switched & SWITCHES]
    if name == "yaml.load" and not ast.unparse(keywords.get("Loader") or ast.Constant(None)) == "_Loader":
        found.append(name)
    if name.startswith("subprocess.") and node.args and isinstance(node.args[0], ast.Constant | ast.JoinedStr):
        found.append(f"{name} of a string")
    if name.startswith("tarfile.") and "filter" not in keywords:
        found.append(name)
    return found


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_source_runs_what_it_reads(folder: str) -> None:
    found = {str(file): dangers(file.read_text()) for file in (ROOT / folder).rglob("*.py")}
    assert found and not {file: each for file, each in found.items() if each}


@pytest.mark.parametrize(
    "source",
    [
        *("import pickle", "from pickle import loads", "torch.load(f, weights_only=True)", "np.load(f)"),
        *("eval(x)", "exec(x)", "os.system(x)", "yaml.load(x)", "yaml.load(x, Loader=yaml.Loader)"),
        *("subprocess.run(x, shell=True)", "subprocess.run('ls')", "subprocess.run(f'ls {x}')"),
        *("f(trust_remote_code=True)", "get(u, verify=False)", "tarfile.open(f)"),
    ],
)
def test_the_walk_knows_each_danger(source: str) -> None:
    assert dangers(source)


@pytest.fixture
def hostile(tiny_model: Path, tmp_path: Path) -> Path:
    """A model whose files name a module that leaves a file behind when it is imported."""
    folder = Path(shutil.copytree(tiny_model, tmp_path / "hostile"))
    code = f"open({str(tmp_path / 'executed')!r}, 'w').close()\n"
    for name in ("evil.py", "modeling.py", "custom_generate/generate.py", "setup.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(code)
    classes = {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M", "AutoTokenizer": ["evil.T", "evil.T"]}
    template = "{{ ''.__class__.__mro__[1].__subclasses__() }}"
    told = {"auto_map": classes, "trust_remote_code": True, "custom_generate": "evil", "chat_template": template}
    for name in ("config.json", "tokenizer_config.json", "generation_config.json"):
        file = folder / name
        values = json.loads(file.read_text()) if file.exists() else {}
        file.write_text(json.dumps(values | told))
    return folder


def test_a_hostile_model_of_a_known_type_loads_without_its_code(hostile: Path, tmp_path: Path) -> None:
    load_model(str(hostile), offline=True)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_a_model_that_needs_its_own_code_is_refused_in_a_line(hostile: Path, tmp_path: Path, file: str) -> None:
    values = json.loads((hostile / file).read_text())
    (hostile / file).write_text(json.dumps(values | {"model_type": "novel", "tokenizer_class": "Novel"}))
    with pytest.raises(AssetError, match="cannot load the (model|tokenizer)") as error:
        load_model(str(hostile), offline=True)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("name", ["../out.txt", "/tmp/out-of-the-wheel.txt", "a/../../out.txt"])
def test_a_wheel_writes_nothing_outside_its_folder(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as archive:
        archive.writestr(name, "x")
    with pytest.raises(AssetError, match="outside"):
        assets._unpack(tmp_path / "a.whl", tmp_path / "in")
    assert not (tmp_path / "out.txt").exists()


def test_a_link_in_a_wheel_becomes_a_plain_file(tmp_path: Path) -> None:
    entry = zipfile.ZipInfo("link")
    entry.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as archive:
        archive.writestr(entry, "/etc/passwd")
    assets._unpack(tmp_path / "a.whl", tmp_path / "in")
    assert not (tmp_path / "in/link").is_symlink() and (tmp_path / "in/link").read_text() == "/etc/passwd"


def test_a_wheel_that_grows_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets, "UNPACKED_BYTES", 99)
    with zipfile.ZipFile(tmp_path / "a.whl", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", b"0" * 100)
    with pytest.raises(AssetError, match="unpacks to 100 bytes"):
        assets._unpack(tmp_path / "a.whl", tmp_path / "in")
    assert not (tmp_path / "in").exists()


@pytest.mark.parametrize(
    "name",
    ["HF_TOKEN", "MLFLOW_TRACKING_PASSWORD", "AWS_SECRET_ACCESS_KEY", "OPENAI_API_KEY"],
)
def test_the_value_of_a_secret_variable_is_masked(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, SECRET)
    assert masked(f"refused: {SECRET}!") == "refused: ***!"


def test_a_short_value_and_a_plain_variable_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "a")
    monkeypatch.setenv("PLAIN_NAME", "anything at all")
    assert masked("a text, anything at all") == "a text, anything at all"


def test_a_log_is_masked_with_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    error = (ValueError, ValueError(SECRET), None)
    record = logging.LogRecord("suite", logging.WARNING, "", 0, "got %s", (SECRET,), error)
    assert SECRET not in MaskedFormatter("%(message)s").format(record)


def test_the_line_of_a_mistake_has_no_secret(monkeypatch, capsys) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    with pytest.raises(SystemExit):
        cli._stop(f"no model {SECRET} at https://user:word@host")
    assert capsys.readouterr().err == "nowag-bench: no model *** at https://***@host\n"


def test_a_failed_rows_reason_has_no_secret(make_row, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    Journal(tmp_path / "rows").append(make_row(status="failed", reason=f"401 with {SECRET}"))
    assert SECRET not in (tmp_path / "rows").read_text()
