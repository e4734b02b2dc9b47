"""What training broke: at the end of runs, as a command, in run file and cards."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

import alpaca_lora
from alpaca_lora import cli, finetune, load, merge, regressions
from alpaca_lora.against_base.texts import _rows, general_texts, probe_prompts, spread
from alpaca_lora.data.tokens import Examples, encoder_for
from alpaca_lora.errors import ConfigError
from alpaca_lora.runs import regressions as figures
from alpaca_lora.runs.regressions import LIMIT, Mean
from alpaca_lora.runs.run_file import RunFile
from alpaca_lora.training import pipeline
from alpaca_lora.training import regressions as end_of_run

WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def settings(short_base, records):
    return {
        "base_model": short_base,
        "data": [record._asdict() for record in records],
        "dtype": "float32",
        "cutoff_len": 128,
        "val_set_size": 2,
        "batch_size": 4,
        "max_steps": 2,
        "learning_rate": 1e-2,
        "warmup_steps": 0,
        "lora_target_modules": "all-linear",
    }


@pytest.fixture(scope="module")
def run(settings, tmp_path_factory):
    return finetune(output_dir=tmp_path_factory.mktemp("runs") / "run", **settings)


def assert_same(found, expected, texts=True):
    """Equal within what float32 sums differ by."""
    assert found.general.kl.mean == pytest.approx(expected.general.kl.mean, rel=1e-3)
    assert found.general.loss_change.mean == pytest.approx(expected.general.loss_change.mean, rel=1e-3, abs=1e-5)
    assert found.general.loss_before == pytest.approx(expected.general.loss_before, rel=1e-5)
    assert found.probe.kl.mean == pytest.approx(expected.probe.kl.mean, rel=1e-3)
    assert found.kinds.keys() == expected.kinds.keys()


# The packaged texts


def test_a_hundred_short_texts_and_fifty_questions_of_several_kinds():
    rows = _rows()
    texts, questions = [row for row in rows if "text" in row], [row for row in rows if "question" in row]
    assert (len(texts), len(questions)) == (100, 50)
    assert all(set(row) == {"kind", "text"} for row in texts)
    assert all(set(row) == {"kind", "question", "answer"} for row in questions)
    assert len({row.get("text", row.get("question")) for row in rows}) == 150
    assert len({row["kind"] for row in rows}) == 14
    assert all(sum(one["kind"] == row["kind"] for one in rows) >= 5 for row in rows)
    assert max(len(row.get("text", "")) for row in rows) < 250


def test_they_and_the_probe_become_examples(short_tokenizers):
    for tokenizer in short_tokenizers.values():
        encoder = encoder_for(tokenizer, "alpaca")
        general = general_texts(encoder, 2048)
        assert (
            (len(general.texts), len(general.questions))
            == (100, 50)
            == (
                len(general.text_kinds),
                len(general.question_kinds),
            )
        )
        first = general.texts[0]
        assert encoder.decode(first.ids[first.prompt_len :]).strip() in _rows()[0]["text"]
        assert general.questions[0].ids[-1] == encoder.eos_id
        assert probe_prompts(encoder, 2048).supervised.tolist() == [1] * 50


def test_texts_longer_than_the_model_reads_are_cut(short_tokenizers):
    encoder = encoder_for(short_tokenizers["bpe"], "alpaca_short")
    general = general_texts(encoder, 60)
    assert general.texts.lengths.max() == 60 and len(general.texts) == 100
    assert max(general.questions.lengths.max(), probe_prompts(encoder, 60).lengths.max()) <= 60


def test_records_are_taken_evenly_spread():
    numbers = np.asarray([1, 2, 2, 3, 4, 5, 6])
    examples = Examples.from_lists([[1, 2]] * 7, [1] * 7, record_numbers=numbers)
    assert spread(examples, 3).tolist() == [0, 3, 5]
    assert spread(examples, 100).tolist() == list(range(7))


# At the end of a run


def test_a_run_measures_itself_and_says_so(run):
    found = run.regressions
    assert found.general.texts == 150 and found.probe.questions == 50 and found.validation.texts == 2
    assert sum(one.texts for one in found.kinds.values()) == 150
    assert found.general.kl.low < found.general.kl.mean < found.general.kl.high
    assert found.general.kl.mean > 1e-4
    assert found.validation.kl.low is None  # two records give no interval
    card, page = (run.output_dir / "README.md").read_text(encoding="utf-8"), run._repr_html_()
    assert "## Against the base" in card and "| general texts | 150 |" in card
    assert "Against the base" in page and found.general.kl.shown() in page
    assert "probe, first token" in str(found)


def test_the_validation_loss_is_the_run_s_own(run):
    """The two records are all there are, so that the measure's losses are the evaluation's."""
    changed, metrics = run.regressions.validation, run.metrics
    assert changed.loss_before == pytest.approx(metrics["eval_loss_before"], rel=1e-5)
    assert changed.loss_before + changed.loss_change.mean == pytest.approx(metrics["eval_loss_after"], rel=1e-5)


@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_every_layout_says_the_same(run, settings, layout, tmp_path):
    other = finetune(output_dir=tmp_path / layout, **{**settings, "layout": layout, "lora_dropout": 0.0})
    tree = finetune(output_dir=tmp_path / "tree", **settings, lora_dropout=0.0)
    assert_same(other.regressions, tree.regressions)


def test_the_result_is_the_same_without_the_measure_and_after_a_kill_in_it(run, settings, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "against_base", lambda *given: None)
        without = finetune(output_dir=tmp_path / "without", **settings)
    assert without.regressions is None
    assert "Against the base" not in (without.output_dir / "README.md").read_text(encoding="utf-8")
    assert (without.output_dir / WEIGHTS).read_bytes() == (run.output_dir / WEIGHTS).read_bytes()

    def killed(*given):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(end_of_run, "measure", killed)
        finetune(output_dir=tmp_path / "killed", **settings)
    assert RunFile.read(tmp_path / "killed").finished is False
    again = finetune(output_dir=tmp_path / "killed", **settings, resume="auto")
    assert (again.output_dir / WEIGHTS).read_bytes() == (run.output_dir / WEIGHTS).read_bytes()
    assert again.regressions == run.regressions


def test_no_memory_for_it_costs_a_warning_and_no_result(settings, tmp_path, monkeypatch):
    def short(*given):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(end_of_run, "measure", short)
    with pytest.warns(UserWarning, match="not compared with the base: memory is short"):
        assert finetune(output_dir=tmp_path / "run", **settings).regressions is None


def test_a_run_past_the_limit_is_warned_of(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "LIMIT", -100)  # a random model knows nothing that it could lose
    with pytest.warns(UserWarning, match=r"far from its base: on 150 general texts the KL divergence is"):
        run = finetune(output_dir=tmp_path / "run", **settings)
    assert "> **Warning:** training moved" in (run.output_dir / "README.md").read_text(encoding="utf-8")
    assert "training moved" in run._repr_html_()


def test_the_limit(run):
    found = run.regressions
    assert replace(found, general=replace(found.general, kl=Mean(LIMIT))).warning == ""
    past = replace(found, general=replace(found.general, kl=Mean(2 * LIMIT, LIMIT, 3 * LIMIT)))
    assert f"{2 * LIMIT:.3g} ({LIMIT:.3g} to {3 * LIMIT:.3g}) nats per token" in past.warning


# As a function and a command


def test_an_adapter_folder_a_loaded_model_and_a_merged_folder_agree(run, tmp_path, capsys):
    found = regressions(run.output_dir)
    assert found.validation is None
    assert_same(found, run.regressions)
    loaded = load(run.output_dir)
    before = loaded.generate("Name three fruits.")
    assert regressions(loaded) == found
    assert loaded.generate("Name three fruits.") == before
    merge(run.output_dir, tmp_path / "merged")
    assert_same(regressions(tmp_path / "merged"), found)
    cli.main(["regressions", str(run.output_dir)])
    assert str(found) in capsys.readouterr().out


def test_records_of_one_s_own(run, short_seeds):
    found = regressions(run.output_dir, data=short_seeds).validation
    assert found.texts == 50 and found.kl.low < found.kl.mean < found.kl.high


def test_records_on_the_command_line_are_what_finetune_takes(run, records, tmp_path, capsys):
    rows = [{"question": record.instruction, "answer": record.output} for record in records]
    (tmp_path / "c.json").write_text(json.dumps(rows), encoding="utf-8")
    mapping = f"{{path: {tmp_path / 'c.json'}, columns: {{instruction: question, output: answer}}}}"
    cli.main(["regressions", str(run.output_dir), "--data", mapping])
    assert re.search(rf"validation records +{len(rows)} ", capsys.readouterr().out)


def test_a_fully_fine_tuned_model_is_compared_with_the_base_beside_it(settings, tmp_path, capsys):
    full = {"method": "full", "lora_target_modules": None, "learning_rate": 1e-3}
    run = finetune(output_dir=tmp_path / "full", **{**settings, **full})
    assert run.regressions is None
    assert "Not compared with the base" in capsys.readouterr().out
    assert regressions(run.output_dir).general.kl.mean > 1e-5


def test_a_base_that_is_not_known_or_another_one(run, tiny_base, short_base, tmp_path):
    with pytest.raises(ConfigError, match="does not say which base it was made from"):
        regressions(short_base)
    merge(run.output_dir, tmp_path / "merged")
    with pytest.raises(ConfigError, match="is not the base that .*merged was trained on"):
        regressions(tmp_path / "merged", base_model=tiny_base)


def test_runs_of_earlier_versions_have_none(run, tmp_path):
    content = json.loads((run.output_dir / "alpaca_lora.json").read_text(encoding="utf-8"))
    del content["regressions"]
    (tmp_path / "alpaca_lora.json").write_text(json.dumps(content), encoding="utf-8")
    assert alpaca_lora.Run(tmp_path).regressions is None
    assert not re.search("Against", (alpaca_lora.Run(tmp_path))._repr_html_())
