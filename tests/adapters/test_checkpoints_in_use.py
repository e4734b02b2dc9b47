"""A checkpoint used before, or beside, what its run gives: asked as the run trains it, and said to be one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from alpaca_lora import finetune, load, merge
from alpaca_lora.errors import AdapterError
from alpaca_lora.runs.run_file import read_contract


@pytest.fixture(scope="module", params=["lora", "full"])
def run(request, short_base, records, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / request.param
    rate = {"lora": 1e-2, "full": 1e-3}[request.param]
    return finetune(
        base_model=short_base,
        data=[record._asdict() for record in records],
        output_dir=out,
        method=request.param,
        prompt_template="alpaca_short",
        learning_rate=rate,
        batch_size=4,
        max_steps=2,
        save_steps=1,
        val_set_size=0,
    ).output_dir


def test_it_is_asked_as_its_run_trains_it(run):
    last = run / "checkpoints" / "checkpoint-2"
    assert read_contract(last) == read_contract(run)
    with pytest.warns(UserWarning, match="checkpoint-2: is a checkpoint of a run"):
        checkpoint = load(last)
    whole = load(run)
    assert checkpoint.encoder.template == whole.encoder.template
    assert checkpoint.encoder.template.name == "alpaca_short"
    assert checkpoint.stop_ids == whole.stop_ids
    questions = [("Name a cat.", ""), ("Add.", "2, 3")]
    assert checkpoint.answers(questions) == whole.answers(questions)


def test_before_the_run_has_ended(run, tmp_path):
    out = Path(shutil.copytree(run, tmp_path / "out"))
    for path in [
        *out.glob("*.safetensors"),
        *out.glob("adapter_config.json"),
        *out.glob("tokenizer*"),
        out / "config.json",
    ]:
        path.unlink(missing_ok=True)
    content = json.loads((out / "alpaca_lora.json").read_text(encoding="utf-8"))
    for name in ("metrics", "files", "adapter"):
        content.pop(name, None)
    (out / "alpaca_lora.json").write_text(json.dumps({**content, "finished": False}), encoding="utf-8")
    with pytest.warns(UserWarning, match="is a checkpoint of a run"):
        assert load(out / "checkpoints" / "checkpoint-1").encoder.template.name == "alpaca_short"
    with pytest.raises(AdapterError, match="--resume auto, or use what is there so far: .*checkpoints/checkpoint-2"):
        load(out)


def test_through_a_link_and_elsewhere(run, tmp_path):
    checkpoint = run / "checkpoints" / "checkpoint-1"
    (tmp_path / "link").symlink_to(checkpoint)
    assert read_contract(tmp_path / "link") == read_contract(run)
    copied = shutil.copytree(checkpoint, tmp_path / "copied")
    assert read_contract(copied) is None


def test_a_folder_of_another_run_is_not_its_own(run, tmp_path):
    out = Path(shutil.copytree(run, tmp_path / "out"))
    content = json.loads((out / "alpaca_lora.json").read_text(encoding="utf-8"))
    content["contract"]["template"]["prompt_no_input"] = "{instruction}"
    (out / "alpaca_lora.json").write_text(json.dumps(content), encoding="utf-8")
    assert read_contract(out / "checkpoints" / "checkpoint-1") is None


def test_a_merged_checkpoint_keeps_the_prompt(run, tmp_path):
    if not (run / "adapter_config.json").exists():
        pytest.skip("there is nothing to merge in a whole model")
    with pytest.warns(UserWarning, match="is a checkpoint of a run"):
        merge(run / "checkpoints" / "checkpoint-1", tmp_path / "merged")
    assert read_contract(tmp_path / "merged").load_template().name == "alpaca_short"
