"""Recipes as nobody should write them: each is refused in one line that says what, where and what instead."""

import pytest
import yaml

HEAD = "name: bad\nmodels: tiny\ncalibration: {source: boolq, sequences: 1, length: 16}\nevaluation: c4@16\n"
TENS = "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))

TEXTS = {
    "nothing": (b"", "a recipe is a mapping with the keys name, models"),
    "a number": (b"42\n", "a recipe is a mapping with the keys"),
    "a list": (b"- name: bad\n", "a recipe is a mapping with the keys"),
    "bytes": (bytes(range(256)), "not UTF-8 text (invalid start byte at byte 128)"),
    "latin-1": (b"name: caf\xe9\n", "not UTF-8 text"),
    "utf-16": (HEAD.encode("utf-16"), "not UTF-8 text"),
    "too large": (b"#" * 1_000_001, "more than 1,000,000 bytes"),
    "a tab": (b"name:\tbad\n\tmodels: tiny\n", "line 1, column 6: found character"),
    "an open bracket": (b"name: [bad\n", "line 2, column 1: expected ',' or ']'"),
    "a colon too many": (b"name: a: b\n", "line 1, column 8: mapping values are not allowed here"),
    "two documents": (b"name: a\n---\nname: b\n", "line 2, column 1: but found another document"),
    "a null byte": (b"name: a\0b\n", "special characters are not allowed"),
    "code": (b"name: !!python/object/apply:os.system ['true']\n", "give plain values without tags"),
    "a name of code": (b"name: !!python/name:os.system\n", "give plain values without tags"),
    "a tag of one's own": (b"name: !mine bad\n", "line 1, column 7: there is a tag, '!mine'"),
    "an integer by force": (b"name: !!int x\n", "give plain values without tags"),
    "a boolean by force": (b"name: !!bool maybe\n", "give plain values without tags"),
    "bytes by force": (b"name: !!binary aGk=\n", "give plain values without tags"),
    "a set": (b"name: !!set {a, b}\n", "give plain values without tags"),
    "a list within itself": (b"name: &a [*a]\n", "*a stands within what it names"),
    "a mapping within itself": (b"methods: &a\n  rtn: *a\n", "*a stands within what it names"),
    "no such anchor": (b"name: *x\n", "line 1, column 7: found undefined alias 'x'"),
    "one anchor twice": (b"a: &x 1\nb: &x 2\n", "line 2, column 4"),
    "a bomb of aliases": (f"a: &a [x,x,x,x,x,x,x,x,x,x]\n{TENS}name: *i\n".encode(), "more than 100,000 values"),
    "a deep list": (b"name: " + b"[" * 5000, "more than 32 levels"),
    "a deep mapping": (b"{a: " * 3000 + b"1" + b"}" * 3000, "more than 32 levels"),
    "deep indentation": ("".join(f"{' ' * i}a:\n" for i in range(500)).encode(), "more than 32 levels"),
    "a key twice": (f"{HEAD}name: other\n".encode(), "line 5, column 1: the key 'name' is there twice"),
    "a method twice": (b"methods: {rtn: {bits: 3}, rtn: {bits: 4}}\n", "the key 'rtn' is there twice"),
    "a setting twice": (b"methods: {rtn: {bits: 3, bits: 4}}\n", "the key 'bits' is there twice"),
    "a merged number": (b"<<: 3\n", "expected a mapping or list of mappings for merging"),
    "a list as key": (b"? [a, b]\n: x\n", "found unhashable key"),
    "a number as key": (f"{HEAD}3: x\n".encode(), "unknown key 3. Known: name, models"),
    "null as key": (f"{HEAD}~: x\n".encode(), "unknown key None. Known: name, models"),
    "5,000 digits": (b"name: " + b"9" * 5000, "not YAML (Exceeds the limit"),
    "half a character": (b'name: "\\ud800"\n', "unable to parse raw data as a unicode string"),
    "a version to come": (b"%YAML 9.9\n---\nname: x\n", "found incompatible YAML document"),
}


@pytest.mark.parametrize("what", TEXTS)
def test_a_file_that_is_no_recipe_is_refused_in_one_line(refused, tmp_path, what):
    text, message = TEXTS[what]
    path = tmp_path / "recipe.yaml"
    path.write_bytes(text)
    line = refused("run", path, "--offline")
    assert message in line and str(path) in line


PATTERN = "name: string should match pattern"
COUNT = "give a number, without quotes"
SPARSITY = "neither a fraction between 0 and 1 nor a quoted pattern"
VALUES = [
    *[(f"name={bad}", PATTERN) for bad in ("../up", "/etc/x", ".", "..", "a/b", "-x", "ünicode", '"a\\nb"')],
    *[(f"name={bad}", PATTERN) for bad in ('"evil\\e[31m"', '"a\\0b"')],
    *[(f"name={bad}", "name: input should be a valid string") for bad in ("", "3", "true", "[a]", "{a: b}")],
    (f"name={'x' * 101}", "at most 100 characters"),
    ("models=", "models.0: input should be a valid string (given: None)"),
    ("models=[]", "models: list should have at least 1 item"),
    ("models=3", "models.0: input should be a valid string (given: 3)"),
    ("models=[[tiny]]", "models.0: input should be a valid string"),
    ('models=""', "models.0: string should have at least 1 character"),
    ("models=../nowhere", "no model '../nowhere': it is no directory here"),
    ("models=a/b/c", "give one, a hub name organisation/name[@revision]"),
    ("models=~nobody-here/x", "no model '~nobody-here/x'"),
    ('models="a\\0b/x"', "is no hub name; one reads organisation/name"),
    ('models="\\ud800/x"', "\\ud800"),
    ("calibration=3", "calibration.0: input should be a valid dictionary"),
    ("calibration=[]", "calibration: list should have at least 1 item"),
    ("calibration.sequences=0", "calibration.0.sequences: input should be greater than or equal to 1 (given: 0)"),
    ("calibration.sequences=-1", "greater than or equal to 1 (given: -1)"),
    ("calibration.sequences=1.5", "got a number with a fractional part (given: 1.5)"),
    ("calibration.sequences=true", f"sequences is True; {COUNT}"),
    ("calibration.sequences='2'", f"sequences is '2'; {COUNT}"),
    ("calibration.sequences=.nan", "finite number (given: nan)"),
    ("calibration.sequences=1e400", "finite number (given: inf)"),
    ("calibration.sequences=[1, 2]", "calibration.0.sequences: input should be a valid integer (given: [1, 2])"),
    ("calibration.sequences=99999999999999999999", "lower calibration.sequences"),
    ("calibration.length=1", "greater than or equal to 2 (given: 1)"),
    ("calibration.length=9223372036854775808", "lower calibration.length"),
    ("calibration.lenght=16", "unknown key 'lenght'. Did you mean 'length'?"),
    ("calibration.bos=maybe", "calibration.0.bos: input should be a valid boolean"),
    ("calibration.skip_first=32", "of a sequence of 32 no token would count; lower it"),
    ("calibration.token_weights=units", "input should be 'uniform' or 'unit' (given: 'units')"),
    ("calibration.join=3", "calibration.0.join: input should be a valid string (given: 3)"),
    ("evaluation=[]", "neither evaluation nor tasks: name a perplexity protocol or a zero-shot task"),
    ("evaluation=wikitext2-raw", "the window length is part of the name"),
    ("evaluation=wikitext2-raw@1", "greater than or equal to 2 (given: 1)"),
    ("evaluation=wikitext2-raw/99@64", "no protocol 'wikitext2-raw/99@64'"),
    ("evaluation.windows=true", f"windows is True; {COUNT}"),
    ("evaluation.windows=0", "evaluation.0.windows: input should be greater than or equal to 1"),
    ("evaluation.windows=99999999999999999999", "lower evaluation.windows"),
    ("evaluation.cut=random", "input should be 'joined' or 'drawn'"),
    ("evaluation.join=~", "join is null: evaluation text is joined before it is cut"),
    ("evaluation.expect={perplexity: .nan, tolerance: 1}", "expect.0.perplexity: input should be a finite number"),
    ("evaluation.expect={perplexity: 20, tolerance: 1, model: other}", "expect.model is 'other'. The models here"),
    ("evaluation.protocol={a: b}", "no protocol \"{'a': 'b'}\""),
    ("evaluation.1.windows=3", "evaluation.0: unknown key '1'"),
    ("tasks=nope", "has no task 'nope'. Did you mean"),
    ("tasks={names: []}", "tasks.0.names: list should have at least 1 item"),
    ("tasks={names: arc_easy, limit: 0}", "tasks.0.limit: input should be greater than or equal to 1"),
    ("tasks={names: arc_easy, folder: ~nobody-here/a}", "~nobody-here/a is no directory"),
    ("tasks={names: ../../etc/passwd, folder: .}", "has no task '../../etc/passwd'"),
    ("methods=rtn", "methods: input should be a valid dictionary (given: 'rtn')"),
    ("methods={}", "methods: dictionary should have at least 1 item"),
    ("methods={3: {}}", "input should be a valid string (given: 3)"),
    ("methods={wnda: {}}", "Did you mean 'wanda'?"),
    ("methods={rtn: 3}", "methods.rtn is 3; a method takes a mapping of settings"),
    ("methods={rtn: []}", "methods.rtn is an empty list; give settings, or {} for the defaults"),
    ("methods={rtn: {bits: []}}", "bits is an empty list; give a value, or leave it out"),
    ("methods={rtn: {3: 4}}", "methods.rtn.3 is not a setting. Known: bits, group_size"),
    ("methods.rtn.bits=true", f"methods.rtn.bits is True; {COUNT}"),
    ("methods.rtn.bits='4'", f"methods.rtn.bits is '4'; {COUNT}"),
    ("methods.rtn.bits=.nan", "methods.rtn.bits: input should be a finite number (given: nan)"),
    ("methods.rtn.bits=[4, [3]]", "methods.rtn.bits: input should be a valid integer (given: [3])"),
    ("methods.rtn.group_size=1e30", "methods.rtn.group_size"),
    ("methods.rtn.normalize=maybe", "input should be 'none', 'columns', 'rows' or 'nowag'"),
    ("methods.rtn.statistics=dense", "methods.rtn.statistics is 'dense'; allowed: none"),
    ("methods.rtn.layers=3", "methods.rtn.layers is 3; give patterns of linears' full names"),
    ("methods.rtn.layers=nothing", "layers 'nothing' fits no linear; the first of them is model.layers.0"),
    ("methods.rtn.outliers=2", "methods.rtn.outliers.share: input should be less than 0.5"),
    ("methods.rtn.outliers=.nan", "give a share such as 0.01"),
    ("methods.rtn.outliers={shaer: 0.1}", "or a mapping of share, by"),
    ("methods.rtn.outliers={3: 0.1}", "give a share such as 0.01, or a mapping of share, by"),
    ("methods.rtn.finetune=3", "methods.rtn.finetune is 3; give true, false, or a mapping"),
    ("methods.rtn.finetune={epohcs: 3}", "Did you mean 'epochs'?"),
    ("methods.rtn.finetune={clip: .inf}", "methods.rtn.finetune.clip: input should be a finite number"),
    ("methods.rtn.finetune={learning_rate: .nan}", "methods.rtn.finetune.learning_rate"),
    ("methods.dense.finetune=true", "nothing of the dense model is compressed"),
    *[
        (f"methods.wanda.sparsity={bad}", SPARSITY)
        for bad in ("0", "1", ".nan", "4:2", "2:3:4", "02:4", "٢:٤", "'0.5'")
    ],
    ("methods.wanda.sparsity=true", f"methods.wanda.sparsity is True; {COUNT}"),
    ("methods.wanda.statistics=none", "allowed: dense, sequential, true-sequential"),
    ("methods.nowag-vq={bits: match}", "the recipe says no size to match; add match"),
    ("methods.allocate={}", "methods.allocate.methods is missing"),
    ("methods.allocate={methods: [rtn]}", "a target is either bits_per_weight or bytes"),
    ("methods.allocate={methods: [{3: {}}], bits_per_weight: 3}", "methods.allocate.methods: No method '3'"),
    ("methods.allocate={methods: [{}], bits_per_weight: 3}", "methods.allocate.methods is [{}], which names no"),
    (
        "methods.allocate={methods: [{rtn: []}], bits_per_weight: 3}",
        "methods.allocate.methods.rtn is an empty list",
    ),
    ("methods.allocate={methods: [{rtn: 5}], bits_per_weight: 3}", "methods.allocate.methods.rtn is 5"),
    ("methods.allocate={methods: [{rtn: {bits: match}}], bits_per_weight: 3}", "no setting can say 'match' there"),
    ("methods.allocate={methods: [rtn], bytes: true}", "methods.allocate.bytes is True; give a number"),
    (
        "methods.allocate={methods: [{cvxq: {target: {bits_per_weight: 3}}}], bits_per_weight: 3, outliers: 0.01}",
        "methods.allocate.outliers: cvxq has its size from a target alone",
    ),
    ("methods.cvxq={target: {bits_per_weight: true}}", "bits_per_weight is True; give a number"),
    ("match={bits_per_weight: true}", "bits_per_weight is True; give a number"),
    ("methods.dense={outliers: 0.01}", "methods.dense.outliers: nothing of the dense model is compressed"),
    (
        "methods.rtn={finetune: {validation: 0.99}}",
        "which leaves none to train on; lower it, or raise calibration",
    ),
    ("methods.allocate={methods: [rtn], bits_per_weight: .nan}", "methods.allocate.bits_per_weight"),
    ("methods.allocate={methods: [rtn], bits_per_weight: 3, error: x}", "allowed: weight, output"),
    ("seeds=-1", "seeds.0: input should be greater than or equal to 0"),
    ("seeds=[]", "seeds: list should have at least 1 item"),
    ("seeds=true", f"seeds is True; {COUNT}"),
    ("seeds=9223372036854775808", "seeds.0: input should be less than 9223372036854775808"),
    ("match={bits_per_weight: .inf}", "match.bits_per_weight: input should be less than or equal to 32"),
    ("reproduce=awq-tabel-4", "Did you mean 'awq-table-4'?"),
    ("reproduce={a: b}", "reproduce: no table {'a': 'b'}"),
    ("batch_tokens=0", "batch_tokens: input should be greater than or equal to 1"),
    ("batch_tokens=true", f"batch_tokens is True; {COUNT}"),
    ("allow_overlap=3", "allow_overlap: input should be a valid boolean"),
    ("nmae=x", "unknown key 'nmae'. Did you mean 'name'?"),
    ("tune.trials=3", "unknown key 'tune'"),
    ("name", "--set 'name': write it as path.to.key=value"),
    ("=x", "write it as path.to.key=value"),
    ("name.x=3", "there is no mapping at 'x' to put it in"),
    ("models.0=x", "there is no mapping at '0' to put it in"),
    ("methods..bits=3", "no method ''. Known: dense"),
    ("name={", "--set 'name={': not YAML"),
    ("name=*x", "found undefined alias 'x'"),
    ("name=!!python/object/apply:os.system [true]", "give plain values without tags"),
]


@pytest.mark.parametrize(("override", "message"), VALUES)
def test_a_value_out_of_place_is_refused_in_one_line(
    refused, recipe_values, write_recipe, tmp_path, override, message
):
    line = refused("run", write_recipe(recipe_values), "--offline", "--out", tmp_path / "o", "--set", override)
    assert message in line


MISPLACED = [("", "is a directory"), ("none.yaml", "no recipe"), ("recipe.yaml/x", "not a directory")]


@pytest.mark.parametrize(("name", "message"), MISPLACED)
def test_what_is_no_file_is_no_recipe(refused, recipe_values, write_recipe, tmp_path, name, message):
    path = write_recipe(recipe_values).parent / name
    line = refused("run", path)
    assert message in line.lower() and str(path) in line


def test_a_merge_key_may_say_a_key_again_that_it_brings(invoke, recipe_values, write_recipe, tmp_path):
    path = write_recipe({key: value for key, value in recipe_values.items() if key != "methods"})
    with path.open("a") as recipe:
        recipe.write("methods: {rtn: [&a {bits: 3, sym: true}, {<<: *a, bits: 4}, *a]}\n")
    status, out, _ = invoke("plan", path, "--offline", "--out", tmp_path)
    assert status == 0 and "3 bits" in out and "4 bits" in out
    assert yaml.safe_load(path.read_text())["methods"]["rtn"][1] == {"bits": 4, "sym": True}
