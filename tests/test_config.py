"""Settings: every problem at once, before anything is loaded."""

from __future__ import annotations

import json
import math
import os
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from alpaca_lora import cli
from alpaca_lora.config import FinetuneConfig, called_here, load_recipe, recipe_names, recipe_path
from alpaca_lora.errors import AlpacaLoraError, ConfigError

MIGRATING = Path(__file__).parents[1] / "docs" / "migrating.md"
GIVEN: dict[str, Any] = {"base_model": "demo", "data": "seeds", "output_dir": "out"}
NO_BASE = "base_model is missing. Name one: a hub id, a folder, or demo; or an adapter to continue."


def problems(recipe: str | None = None, **values: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        FinetuneConfig.make(recipe, **values)
    return caught.value.problems


def test_defaults_are_alpaca_loras():
    config = FinetuneConfig.make(**GIVEN)
    assert (config.batch_size, config.num_epochs, config.learning_rate) == (128, 3, 3e-4)
    assert (config.lora_r, config.lora_alpha, config.lora_dropout) == (8, 16, 0.05)
    assert config.lora_target_modules is None
    assert config.train_on_inputs is False
    assert config.prompt_template == "alpaca"


def test_all_problems_are_reported_at_once():
    values = {
        "data": "seeds",
        "output_dir": "out",
        "lora_rank": 8,
        "batchsize": 4,
        "lora_r": 0,
        "lora_dropout": 1,
        "dtype": "float8",
    }
    assert problems(**values) == [
        "'lora_rank' is not a setting. Did you mean 'lora_r'?",
        "'batchsize' is not a setting. Did you mean 'batch_size'?",
        "lora_r: 0 must be a whole number of at least 1.",
        "lora_dropout: 1 must be in [0, 1).",
        "dtype: 'float8' must be auto, float32, bfloat16 or float16.",
        NO_BASE,
    ]
    with pytest.raises(ConfigError) as caught:
        FinetuneConfig.make(**values)
    assert str(caught.value).startswith("6 problems:\n  - 'lora_rank' is not a setting.")
    assert isinstance(caught.value, AlpacaLoraError)
    assert isinstance(caught.value, ValueError)


def test_one_problem_is_one_sentence():
    with pytest.raises(ConfigError, match=r"^lora_r: 0 must be a whole number of at least 1\.$"):
        FinetuneConfig(**GIVEN, lora_r=0)


def test_missing_settings():
    assert problems() == ["data is missing.", "output_dir is missing.", NO_BASE]


def test_an_unknown_setting_with_no_near_name():
    assert problems(**GIVEN, xyzzy=1) == ["'xyzzy' is not a setting."]


WHOLE = "must be a whole number of at least 1."
TRUTH = "must be true or false."
COUNT = "must be a count, a fraction below 1, or 0."
TARGETS = "must be a list of module names, 'all-linear', or left out."


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        *[(name, 0, f"0 {WHOLE}") for name in ("batch_size", "lora_r", "eval_steps", "save_steps")],
        ("save_total_limit", 0, f"0 {WHOLE}"),
        ("batch_size", 128.0, f"128.0 {WHOLE}"),
        ("batch_size", True, f"True {WHOLE}"),
        ("batch_size", "128", f"'128' {WHOLE}"),
        ("lora_r", 1.5, f"1.5 {WHOLE}"),
        ("lora_r", -8, f"-8 {WHOLE}"),
        ("max_tokens", 0, f"0 {WHOLE[:-1]}, or auto."),
        ("max_tokens", "all", f"'all' {WHOLE[:-1]}, or auto."),
        ("layout", "trie", "'trie' must be padded, packed or tree."),
        ("cutoff_len", 7, "7 must be a whole number of tokens, at least 8."),
        ("cutoff_len", 512.5, "512.5 must be a whole number of tokens, at least 8."),
        ("seed", -1, "-1 must be a whole number from 0 to 4294967295."),
        ("seed", 2**32, "4294967296 must be a whole number from 0 to 4294967295."),
        ("max_steps", 0, "0 must be a whole number of at least 1, or left out."),
        ("max_steps", 1.5, "1.5 must be a whole number of at least 1, or left out."),
        ("learning_rate", 0, "0 must be a number above 0."),
        ("learning_rate", "fast", "'fast' must be a number above 0."),
        ("learning_rate", math.nan, "nan must be a number above 0."),
        ("learning_rate", math.inf, "inf must be a number above 0."),
        ("learning_rate", 1e31, "1e+31 must be at most 1e+30."),
        ("num_epochs", math.nan, "nan must be a number above 0."),
        ("num_epochs", 1e9, "1000000000.0 must be at most 10,000."),
        ("val_set_size", math.inf, f"inf {COUNT}"),
        ("val_set_size", 1e300, "1e+300 must be at most 1,000,000,000."),
        ("max_steps", 10**12, "1000000000000 must be at most 10,000,000."),
        ("batch_size", 10**12, "1000000000000 must be at most 1,000,000."),
        ("cutoff_len", 10**12, "1000000000000 must be at most 10,000,000."),
        ("max_tokens", 10**12, "1000000000000 must be at most 100,000,000."),
        ("warmup_steps", 1e12, "1000000000000.0 must be at most 10,000,000."),
        ("save_steps", 10**12, "1000000000000 must be at most 1,000,000,000."),
        ("lora_r", 10**6, "1000000 must be at most 65,536."),
        pytest.param("lora_r", 10**5000, "a number of 5,001 digits must be at most 65,536.", id="lora_r-digits"),
        ("lora_alpha", 10**400, "a number of 401 digits must be at most 1e+30."),
        ("layout", "x" * 1000, f"'{'x' * 299}... must be padded, packed or tree."),
        ("lora_alpha", 0, "0 must be a number above 0."),
        ("num_epochs", -1, "-1 must be a number above 0."),
        ("weight_decay", -0.1, "-0.1 must be a number of at least 0."),
        ("max_grad_norm", None, "None must be a number of at least 0."),
        ("warmup_steps", -1, f"-1 {COUNT}"),
        ("warmup_steps", 1.5, f"1.5 {COUNT}"),
        ("val_set_size", -1, f"-1 {COUNT}"),
        ("val_set_size", 10.5, f"10.5 {COUNT}"),
        ("val_set_size", "5%", f"'5%' {COUNT}"),
        ("lora_dropout", 1.0, "1.0 must be in [0, 1)."),
        ("lora_dropout", -0.1, "-0.1 must be in [0, 1)."),
        *[(name, 1, f"1 {TRUTH}") for name in ("train_on_inputs", "use_rslora", "use_dora", "load_in_8bit", "fsdp")],
        ("resume", 1, "1 must be true, false or auto."),
        ("method", "lora2", "'lora2' must be lora, qlora or full."),
        ("optimizer", "sgd", "'sgd' must be adamw, adamw_8bit or paged_adamw_8bit."),
        ("cpu_offload", True, "needs fsdp."),
        ("gradient_checkpointing", "yes", f"'yes' {TRUTH}"),
        ("dtype", "float8", "'float8' must be auto, float32, bfloat16 or float16."),
        ("lr_scheduler", "cosin", "'cosin' must be cosine, linear, constant or constant_with_warmup."),
        ("base_model", None, "None must be a path or a name."),
        ("adapter", "", "'' must be a path or a name."),
        ("adapter", 3, "3 must be a path or a name."),
        ("output_dir", None, "None must be a path or a name."),
        ("prompt_template", 3, "3 must be a path or a name."),
        ("data", None, "None must be a file, a folder, a hub id, 'seeds', a list of these or of dicts, or a Dataset."),
        ("data", "", "'' must be a file, a folder, a hub id, 'seeds', a list of these or of dicts, or a Dataset."),
        ("columns", "question", "'question' must be pairs of our field and your column, e.g. {'output': 'answer'}."),
        (
            "columns",
            {"output": 1},
            "{'output': 1} must be pairs of our field and your column, e.g. {'output': 'answer'}.",
        ),
        ("lora_target_modules", "q_proj", f"'q_proj' {TARGETS}"),
        ("lora_target_modules", [], f"[] {TARGETS}"),
        ("lora_target_modules", [1], f"[1] {TARGETS}"),
        ("report_to", 1, "1 must be a tracker's name or a list of names."),
        ("sample_instructions", "Sing.", "'Sing.' must be a list of texts."),
        ("early_stopping_patience", 0, "0 must be a whole number of at least 1, or left out."),
        ("early_stopping_threshold", -1, "-1 must be a number of at least 0."),
        ("early_stopping_threshold", 0.1, "does nothing without early_stopping_patience. Give that too, e.g. 3."),
        ("keep", "first", "'first' must be last or best."),
    ],
)
def test_each_rule_names_the_value_and_what_is_allowed(name, value, message):
    assert problems(**{**GIVEN, name: value}) == [f"{name}: {message}"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("val_set_size", 0),
        ("val_set_size", 0.1),
        ("val_set_size", 2000),
        ("val_set_size", 25.0),  # what the command line makes of 25
        ("warmup_steps", 100),
        ("warmup_steps", 0.0),
        ("max_grad_norm", 0),
        ("max_tokens", 4096),
        ("max_tokens", "auto"),
        ("resume", "auto"),
        ("method", "full"),
        ("layout", "padded"),
        ("lora_dropout", 0),
        ("lora_alpha", 16.5),
        ("num_epochs", 0.5),
        ("max_steps", None),
        ("lora_target_modules", "all-linear"),
        ("lora_target_modules", ["q_proj", "v_proj"]),
        ("columns", {"instruction": "question", "output": "answer"}),
        ("report_to", ["tensorboard"]),
        ("data", [{"instruction": "Hi", "output": "Hello"}]),
        *[("lr_scheduler", name) for name in ("cosine", "linear", "constant", "constant_with_warmup")],
    ],
)
def test_values_at_the_edge_are_taken_as_they_are(name, value):
    assert getattr(FinetuneConfig(**{**GIVEN, name: value}), name) == value


def test_paths_become_text(tmp_path):
    config = FinetuneConfig(
        base_model=tmp_path, data=tmp_path / "a.json", output_dir=tmp_path, prompt_template=tmp_path
    )
    assert config.base_model == config.output_dir == config.prompt_template == str(tmp_path)
    assert FinetuneConfig(adapter=tmp_path, data="seeds", output_dir="out").adapter == str(tmp_path)


def test_a_base_or_an_adapter():
    assert FinetuneConfig.make(data="seeds", output_dir="out", adapter="first").base_model == ""
    assert FinetuneConfig.make(**GIVEN, adapter="first").base_model == "demo"
    assert problems(data="seeds", output_dir="out") == [NO_BASE]
    assert problems(**{**GIVEN, "base_model": ""}) == [NO_BASE]
    assert problems(data="seeds", output_dir="out", adapter="first", method="full") == [
        "adapter: method=full trains every weight and has no matrices to go on with. Merge the adapter first "
        "(alpaca-lora merge first OUT) and train with base_model=OUT."
    ]


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        ("seeds", "seeds"),
        (Path("here") / "a.json", str(Path("here") / "a.json")),
        ([{"instruction": "Hi", "output": "Hello"}], "<list>"),
        (object(), "<object>"),
    ],
)
def test_to_dict_is_plain_and_whole(data, shown):
    config = FinetuneConfig(base_model="demo", data=data, output_dir=Path("out"), lora_target_modules=["q_proj"])
    values = config.to_dict()
    assert json.loads(json.dumps(values)) == values
    assert values["data"] == config.data_name == shown
    assert list(values) == [entry.name for entry in fields(FinetuneConfig)]
    assert FinetuneConfig(**values).to_dict() == values


def test_every_setting_is_documented():
    """The command line's help, and readers of the code, have nothing else."""
    source = Path(FinetuneConfig.make.__code__.co_filename).read_text(encoding="utf-8").splitlines()
    for entry in fields(FinetuneConfig):
        (at,) = (number for number, line in enumerate(source) if line.startswith(f"    {entry.name}: "))
        assert source[at + 1].startswith('    """'), entry.name


# Recipes


@pytest.mark.parametrize("name", recipe_names())
def test_every_packaged_recipe_is_a_config(name):
    config = FinetuneConfig.make(name, **{key: value for key, value in GIVEN.items() if key not in load_recipe(name)})
    for key, value in load_recipe(name).items():
        assert getattr(config, key) == value


def test_overrides_win_over_the_recipe():
    assert "quickstart" in recipe_names()
    config = FinetuneConfig.make("quickstart", batch_size=4, output_dir="elsewhere")
    assert (config.batch_size, config.output_dir) == (4, "elsewhere")
    assert config.lora_r == load_recipe("quickstart")["lora_r"]
    assert problems("quickstart", batch_size=0) == [f"batch_size: 0 {WHOLE}"]


def test_a_recipe_may_be_a_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("base_model: demo\ndata: seeds\noutput_dir: out\nlearning_rate: 3e-4\nweight_decay: 1E-2\n")
    config = FinetuneConfig.make(str(path))
    assert (config.learning_rate, config.weight_decay) == (3e-4, 1e-2)  # numbers here as on the command line
    assert FinetuneConfig.make(path) == config
    assert recipe_path(path) == path


def test_an_unknown_recipe():
    assert problems("quickstrat") == [
        "recipe: 'quickstrat' is neither a recipe nor a file. Did you mean 'quickstart'? "
        f"Recipes: {', '.join(recipe_names())}."
    ]
    with pytest.raises(ConfigError, match="'nowhere/mine.yaml' is neither a recipe nor a file"):
        load_recipe(Path("nowhere/mine.yaml"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: 1\nb: [1", r"mine.yaml is not valid YAML: expected ',' or '\]', but got .*\(line 2\)\. Correct it\.$"),
        (b"a: \xff", r"mine.yaml: damaged: not UTF-8 text: byte 4 is 0xff\. Give a text file in UTF-8\.$"),
        ("a: é".encode("utf-16"), "mine.yaml: damaged: not UTF-8 text: byte 1 is 0xff"),
        (b"a: 1\nb: \x01", r"mine.yaml is not valid YAML: special characters are not allowed \(line 2\)"),
        (b"#" * 100_001, r"mine.yaml: has 100,001 bytes; at most 100,000 are read"),
        (b"columns: " + b"[" * 40_000, "mine.yaml is not valid YAML: it is nested too deep"),
        (b"columns: " + b"{a: " * 20_000, "mine.yaml is not valid YAML: it is nested too deep"),
        (b"a: 1\nlora_r: " + b"9" * 5_000, r"valid YAML: '9{299}\.\.\. cannot be read as int \(line 2\)"),
        (b"a: 2026-13-45", r"'2026-13-45' cannot be read as timestamp \(line 1\)"),
        (b"a: &x [1]\nb: [*x, *x]", r"\*x stands for another value; write that value out \(line 2\)"),
        (b"a: &x [*x]", r"\*x stands for another value"),
        (b"? [a]\n: 1", r"a list or mapping is no name of a setting \(line 1\)"),
        (b"- base_model", "mine.yaml must hold 'setting: value' lines."),
        (b"", "mine.yaml must hold 'setting: value' lines."),
        (b"on: 1\nbase_model: demo\ndata: seeds\noutput_dir: out\n", "True is not a setting."),
        (b"lora_rr: 1\nbase_model: demo\ndata: seeds\noutput_dir: out\n", "'lora_rr' is not a setting. Did you mean"),
        (b"seed: !!python/object/apply:os.getcwd []", "mine.yaml is not valid YAML"),
    ],
)
def test_recipe_files_that_cannot_be_used(tmp_path, content, message):
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        FinetuneConfig.make(str(path))


def test_what_may_be_any_file_is_read_only_where_it_is_one(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in (str(tmp_path / "pipe"), "/dev/zero", str(tmp_path), "x" * 5_000):
        with pytest.raises(ConfigError, match="is neither a recipe nor a file"):
            load_recipe(name)


def test_many_keys_are_read_in_one_pass(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("columns:\n" + "".join(f"  k{number}: a\n" for number in range(8_000)), encoding="utf-8")
    assert len(load_recipe(path)["columns"]) == 8_000


def test_methods_that_contradict_each_other_are_told_together():
    found = problems(**GIVEN, method="qlora", load_in_8bit=True, fsdp=True, optimizer="adamw_8bit")
    assert [problem.split(":")[0] for problem in found] == ["load_in_8bit", "fsdp", "optimizer"]
    assert "quantised weights cannot be sharded here" in found[1]
    assert "'adamw_8bit' cannot work on sharded parameters" in found[2]
    (told,) = problems(**GIVEN, fsdp=True, sample_instructions=["Sing."])
    assert told.startswith("sample_instructions: a sharded model cannot answer while it trains")


def test_a_key_that_stands_twice_in_a_recipe(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("batch_size: 4\nlearning_rate: 1e-4\nbatch_size: 8\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"mine.yaml is not valid YAML: the key 'batch_size' stands twice"):
        load_recipe(path)
    path.write_text("columns: {output: a, output: b}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="the key 'output' stands twice"):
        load_recipe(path)


def test_a_home_is_meant_by_a_tilde(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    config = FinetuneConfig(base_model="~/llama", data="seeds", output_dir="~/runs/a", prompt_template="~/t.json")
    found = (config.base_model, config.output_dir, config.prompt_template)
    assert found == ("/home/someone/llama", "/home/someone/runs/a", "/home/someone/t.json")


def test_numbers_of_numpy_are_numbers():
    numpy = pytest.importorskip("numpy")
    given = {"batch_size": numpy.int64(4), "learning_rate": numpy.float32(0.5)}
    config = FinetuneConfig(base_model="-", data="-", output_dir="-", **given)
    assert (config.batch_size, config.learning_rate) == (4, 0.5)
    assert type(config.batch_size) is int and type(config.learning_rate) is float


def theirs():
    """Each option in the tables of docs/migrating.md that is no setting here, with the settings it stands beside."""
    known = [entry.name for entry in fields(FinetuneConfig)]
    for line in MIGRATING.read_text(encoding="utf-8").splitlines():
        cells = [re.sub(r"\(.*?\)", "", cell) for cell in line.split("|")]  # without defaults
        if len(cells) > 3 and "columns" not in line and "messages" not in line:
            names, ours = ("\n".join(re.findall(r"`([^`]+)`", cell)) for cell in cells[1:3])
            called = [word for word in re.findall(r"^[a-z_0-9]+", ours, re.MULTILINE) if word in known]
            for name in re.findall(r"(?:^|--)([a-z][a-z_]*)(?=$| |=)", names, re.MULTILINE):
                if name not in known:
                    yield name, called, known


def test_names_of_other_tools_are_told_as_the_page_tells_them():
    found = list(theirs())
    assert len(found) > 40
    for name, called, known in found:
        said = called_here(name, known)
        assert any(one in said for one in called or ["Nothing here is set by that"]), (name, said, called)


def test_all_unknown_names_of_a_file_are_told_at_once(tmp_path, capsys):
    (tmp_path / "axolotl.yml").write_text("model_name_or_path: x\nsequence_len: 512\nsample_packing: true\n")
    told = problems(str(tmp_path / "axolotl.yml"), data="seeds", output_dir="out")
    assert [one.split(" Here")[0] for one in told[:3]] == [
        f"{name!r} is not a setting." for name in ("model_name_or_path", "sequence_len", "sample_packing")
    ]
    with pytest.raises(SystemExit):
        cli.main(["finetune", "--recipe", str(tmp_path / "axolotl.yml"), "--data", "seeds", "--output_dir", "out"])
    assert re.search(r"'base_model'.*\n.*'cutoff_len'.*\n.*'layout'", capsys.readouterr().err)
