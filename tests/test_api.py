"""The library's functions as a notebook calls them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import alpaca_lora
from alpaca_lora import FinetuneConfig, Run, finetune, generate, inspect, load, merge, stream
from alpaca_lora.errors import AdapterError, AlpacaLoraError, ConfigError, DataError, ModelError

SETTINGS = {"val_set_size": 2, "batch_size": 4, "max_steps": 2, "learning_rate": 1e-2, "dtype": "float32"}


@pytest.fixture(scope="module")
def rows(records):
    return [record._asdict() for record in records]


@pytest.fixture(scope="module")
def run(short_base, rows, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "api"
    return finetune(base_model=short_base, data=rows, output_dir=out, **SETTINGS)


# The package


def test_every_public_name_resolves_and_is_listed():
    assert set(alpaca_lora.__all__) <= set(dir(alpaca_lora))
    for name in alpaca_lora.__all__:
        assert getattr(alpaca_lora, name).__module__.startswith("alpaca_lora.")
    assert sorted(alpaca_lora.__all__) == alpaca_lora.__all__
    assert set(alpaca_lora.__all__) == set(alpaca_lora._HOME_OF)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'alpaca_lora' has no attribute 'finetunee'"):
        _ = alpaca_lora.finetunee


def test_listing_the_names_loads_nothing_large():
    program = "import sys, alpaca_lora; dir(alpaca_lora); print('torch' in sys.modules, 'numpy' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["False", "False"]


def test_every_error_is_caught_by_one_name():
    assert issubclass(alpaca_lora.AlpacaLoraError, Exception)
    for error in (ConfigError, DataError, ModelError, AdapterError):
        assert issubclass(error, AlpacaLoraError) and issubclass(error, ValueError)


# A run


def test_a_run_knows_what_its_folder_holds(run):
    assert run.adapter_dir == run.output_dir
    again = Run(run.output_dir)
    assert again == run
    assert again.history == run.history
    assert [line["step"] for line in run.history] == [0, 1, 2, 2]
    assert again.metrics["steps"] == 2
    assert again.samples == []


def test_plot_is_a_figure_with_both_losses(run, tmp_path):
    figure = run.plot()
    (axes,) = figure.axes
    assert {line.get_label() for line in axes.lines} == {
        "training, each step",
        "training, smoothed",
        "validation",
    }
    figure.savefig(tmp_path / "plot.png")


def test_a_run_answers_and_merges(run, tmp_path):
    answer = run.generate("Name a cat.", max_new_tokens=5)
    assert answer == generate(run.output_dir, "Name a cat.", max_new_tokens=5)
    assert answer == "".join(stream(load(run.output_dir), "Name a cat.", max_new_tokens=5))
    assert run.merge(tmp_path / "merged").folder == tmp_path / "merged"
    assert answer == generate(tmp_path / "merged", "Name a cat.", max_new_tokens=5)
    files = [
        json.loads((path / "alpaca_lora.json").read_text("utf-8")) for path in (run.output_dir, tmp_path / "merged")
    ]
    assert files[0]["data"] == files[1]["data"]


def test_merging_with_the_base_somewhere_else(run, short_base, tmp_path):
    merge(run.adapter_dir, tmp_path / "merged", base_model=short_base)
    with pytest.raises(ModelError, match="no such folder"):
        merge(run.adapter_dir, tmp_path / "again", base_model="/nowhere")


def test_sampling_settings_are_checked(run):
    with pytest.raises(ConfigError, match="temperature: -1 must be 0, or from 0.001 to 1000"):
        run.generate("Hi", temperature=-1)


# How finetune takes its settings


def test_a_whole_config_a_file_or_settings(short_base, rows, tmp_path):
    (tmp_path / "data.json").write_text(json.dumps(rows), encoding="utf-8")
    values = {**SETTINGS, "base_model": short_base, "data": str(tmp_path / "data.json"), "max_steps": 1}
    (tmp_path / "recipe.yaml").write_text(json.dumps(values), encoding="utf-8")  # JSON is YAML too
    config = FinetuneConfig(**values, output_dir=str(tmp_path / "a"))
    runs = [finetune(config), finetune(recipe=str(tmp_path / "recipe.yaml"), output_dir=tmp_path / "b")]
    assert [run.metrics["loss"] for run in runs] == [runs[0].metrics["loss"]] * 2
    assert (tmp_path / "data.json").as_posix() in (tmp_path / "a" / "README.md").read_text(encoding="utf-8")


def test_a_config_and_settings_together_are_refused(short_base, tmp_path):
    config = FinetuneConfig(base_model=short_base, data="seeds", output_dir=str(tmp_path))
    with pytest.raises(ConfigError, match="give either a config, or a recipe and settings, not both"):
        finetune(config, max_steps=3)


def test_wrong_settings_are_reported_together_and_before_anything_happens(tmp_path):
    with pytest.raises(ConfigError) as caught:
        wrong = {"lora_rank": 8, "lora_dropout": 1, "lora_alpha": 0}
        finetune(base_model="demo", data="seeds", output_dir=tmp_path / "out", **wrong)
    assert "3 problems:" in str(caught.value)
    assert "'lora_rank' is not a setting. Did you mean 'lora_r'?" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_dataset_and_other_columns(short_base, tmp_path):
    from datasets import Dataset

    data = Dataset.from_list([{"question": f"Say {word}.", "answer": word} for word in ("one", "two", "three", "four")])
    columns = {"instruction": "question", "output": "answer"}
    settings = {**SETTINGS, "val_set_size": 0, "batch_size": 2, "max_steps": 1}
    run = finetune(base_model=short_base, data=data, columns=columns, output_dir=tmp_path / "out", **settings)
    content = json.loads((tmp_path / "out" / "alpaca_lora.json").read_text(encoding="utf-8"))
    assert content["config"]["data"] == "<Dataset>"
    assert content["data"]["train_records"] == 4
    assert run.metrics["eval_loss_before"] is None


def test_bad_data_leaves_no_adapter(short_base, tmp_path):
    with pytest.raises(DataError, match="record 1.*'output'"):
        finetune(base_model=short_base, data=[{"instruction": "a", "outptu": "b"}], output_dir=tmp_path / "out")
    assert not (tmp_path / "out" / "adapter_config.json").exists()


def test_a_run_on_two_files_learns_from_both_and_resumes(short_base, rows, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, part in (("a.json", rows[:5]), ("b.json", rows[5:]), ("all.json", rows)):
        Path(name).write_text(json.dumps(part), encoding="utf-8")
    run = finetune(base_model=short_base, data=["a.json", Path("b.json")], output_dir="two", **SETTINGS)
    whole = finetune(base_model=short_base, data="all.json", output_dir="one", **SETTINGS)
    assert [line.get("loss") for line in run.history] == [line.get("loss") for line in whole.history]
    content = json.loads(Path("two/alpaca_lora.json").read_text(encoding="utf-8"))
    assert content["config"]["data"] == ["a.json", "b.json"]
    assert content["data"]["source"] == "a.json + b.json"
    assert content["data"]["sources"] == [{"source": "a.json", "rows": 5}, {"source": "b.json", "rows": 7}]
    assert "sources" not in json.loads(Path("one/alpaca_lora.json").read_text(encoding="utf-8"))["data"]
    card = Path("two/README.md").read_text(encoding="utf-8")
    assert "`a.json + b.json`: 10 records to train on" in card and "- `b.json`: 7 rows" in card
    settings = {"base_model": short_base, "output_dir": "two", "resume": "auto", **SETTINGS}
    assert finetune(data=["a.json", "b.json"], **settings).metrics == run.metrics
    with pytest.raises(ConfigError, match="the records changed since the run began"):
        finetune(data="b.json", **settings)
    assert "a.json + b.json" in run._repr_html_()


# inspect


def test_inspect_names_sources_and_keys_that_are_not_read(rows, short_base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.json").write_text(json.dumps(rows[:5]), encoding="utf-8")
    Path("b.json").write_text(json.dumps([{**row, "category": "x"} for row in rows[5:]]), encoding="utf-8")
    report = inspect(["a.json", "b.json"], short_base)
    assert report.rows["records"] == "12 from a.json + b.json" and report.rows["of b.json"] == "7 rows"
    assert report.rows["keys not read"] == "category"
    longest = int(report.rows["example length"].split()[-1])
    cut = inspect(["a.json", "b.json"], short_base, cutoff_len=longest - 1)
    assert cut.rows["response cut"] == "1 (record b.json 1)"
    assert cut.examples_shown(1)[0].plain.startswith("record a.json 1: ")


def test_inspect_reports_without_loading_weights(rows, short_base, tmp_path):
    report = inspect(rows, short_base, cutoff_len=64)
    assert report.rows["records"] == "12 from <list>"
    assert report.rows["ending in EOS"] == "100%"
    assert "records" in str(report)
    first = report.examples_shown(1)[0].plain
    assert "Name three fruits." in first
    assert first.endswith("Apple, pear and plum.</s>")
    assert list(Path(tmp_path).iterdir()) == []


def test_inspect_takes_the_settings_of_finetune(rows, short_base):
    longest = inspect(rows, short_base).rows["example length"].split()[-1]
    assert inspect(rows, short_base, cutoff_len=int(longest)).rows["response cut"] == "none"
    assert inspect(rows, short_base, cutoff_len=int(longest) - 1).rows["response cut"] == "1 (record 6)"
    with pytest.raises(ConfigError, match="'cutoff' is not a setting. Did you mean 'cutoff_len'"):
        inspect(rows, short_base, cutoff=64)
