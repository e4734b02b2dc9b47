"""The run file: typed, whole or not at all; and an adapter's files are opened once."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import pytest
import safetensors.torch

from alpaca_lora import finetune, load
from alpaca_lora.errors import AdapterError
from alpaca_lora.runs.adapter_files import WEIGHTS
from alpaca_lora.runs.contract import Contract
from alpaca_lora.runs.peft_config import CONFIG
from alpaca_lora.runs.regressions import Change, KindChange, Mean, ProbeChange, Regressions
from alpaca_lora.runs.run_file import RUN_FILE, AdapterRecord, Ancestor, DataSource, RunFile, TrainingData

CONTRACT = Contract("base", "f", {"name": "alpaca"}, "t", prefix_ids=[1], eos_id=2, stop_ids=[2], pad_id=None)
DATA = TrainingData("seeds", "1f", 150, 25, {"empty output": 1}, 0, "seal", [DataSource("a.json", 3)])
METRICS = {
    **{"steps": 3, "loss": 2.5, "eval_loss_before": 3, "eval_loss_after": None},
    **{"supervised_tokens": 9, "computed_tokens": 12, "train_seconds": 0.5},
}
FULL = RunFile(
    CONTRACT,
    finished=True,
    config={"base_model": "demo", "columns": None},
    data=DATA,
    seed=42,
    parent=Ancestor("runs/first", "ab", None, Ancestor("runs/zeroth", "cd", "ef", None)),
    adapter=AdapterRecord({"r": 16}, {"key": "12"}),
    files={"a.json": "34"},
    metrics=METRICS,
    samples=[{"instruction": "Hi", "before": "", "after": "Hello"}],
    regressions=Regressions(
        Change(2, 9, Mean(0.1, 0.05, 0.2), 3.5, Mean(0.2), 0.75),
        {"letters": KindChange(2, 0.1, 0.2)},
        ProbeChange(1, Mean(0.3), 1),
    ),
)


@pytest.mark.parametrize("run_file", [FULL, RunFile(CONTRACT), RunFile(CONTRACT, finished=False, weights="ab")])
def test_what_was_written_is_read(run_file, tmp_path):
    run_file.write(tmp_path)
    read = RunFile.read(tmp_path)
    assert read.versions["alpaca-lora"]
    assert vars(read) | {"versions": {}} == vars(run_file)
    assert [entry.name for entry in tmp_path.iterdir()] == [RUN_FILE]


def test_another_tools_folder(tmp_path):
    assert RunFile.read(tmp_path) is None


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        (("finished",), "yes", "finished: Input should be a valid boolean"),
        (("data", "train_records"), 1.5, "data.train_records: Input should be a valid integer"),
        (("data", "sources", 0, "rows"), None, "data.sources.0.rows: Input should be a valid integer"),
        (("parent", "parent", "sha256"), 7, "parent.parent.sha256: Input should be a valid string"),
        (("adapter", "tensors"), ["12"], "adapter.tensors: Input should be an object"),
        (("metrics", "steps"), True, "metrics.steps: Input should be a valid integer"),
        (("metrics",), {}, "it lacks 'metrics.steps'"),
        (("samples", 0), "Hi", "samples.0: Input should be an object"),
        (("contract",), {"eos_id": 2}, "it lacks 'contract.base_model'"),
        (("files", "a.json"), None, "files.a.json: Input should be a valid string"),
        (
            ("regressions", "general", "kl", "high"),
            None,
            "regressions.general.kl: Value error, an interval has both ends or none",
        ),
    ],
)
def test_parts_of_another_type_are_damage(path, value, problem, tmp_path):
    FULL.write(tmp_path)
    content = json.loads((tmp_path / RUN_FILE).read_text(encoding="utf-8"))
    del content["contract_sha256"]  # written by a version without it
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    (tmp_path / RUN_FILE).write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(AdapterError) as caught:
        RunFile.read(tmp_path)
    assert f"{RUN_FILE}: damaged: {problem}" in str(caught.value)
    assert str(caught.value).endswith("Copy the folder again from where it was made.")


_opened: list[str] | None = None


def _note(event, arguments):
    if event == "open" and _opened is not None:
        _opened.append(str(arguments[0]))


def test_loading_opens_each_file_of_an_adapter_once(short_base, records, tmp_path, monkeypatch):
    global _opened
    rows = [record._asdict() for record in records]
    quick = {"val_set_size": 0, "batch_size": 4, "max_steps": 1, "learning_rate": 1e-2, "warmup_steps": 0}
    run = finetune(base_model=short_base, data=rows, output_dir=tmp_path / "run", **quick)
    other = finetune(base_model=short_base, data=rows, output_dir=tmp_path / "other", **quick, seed=1)
    sys.addaudithook(_note)
    opening = safetensors.torch.safe_open

    def counted(path, *arguments, **options):  # opened by safetensors itself, which Python does not see
        _opened.append(str(path))
        return opening(path, *arguments, **options)

    monkeypatch.setattr(safetensors.torch, "safe_open", counted)
    _opened = []
    try:
        model = load(run.output_dir, also=[other.output_dir])
        found = Counter(_opened)
    finally:
        _opened = None
    for folder in (run.output_dir, other.output_dir):
        ours = {name: found[str(Path(folder) / name)] for name in (RUN_FILE, CONFIG, WEIGHTS)}
        assert ours == dict.fromkeys(ours, 1)
    assert sorted(model.prompt_formats) == ["base", "other", "run"]
