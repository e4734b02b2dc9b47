"""lm-eval's tasks on models of ours: the figures of lm-eval itself, kept with the model, shown in cards and reports.

everyday        20 questions with four choices        everyday_said   the same, answered in words
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from loopback import serving

import alpaca_lora
from alpaca_lora import cli, finetune, load, merge
from alpaca_lora.errors import ConfigError, DataError, HubError, MissingDependencyError
from alpaca_lora.evaluation import benchmarks
from alpaca_lora.evaluation.benchmarks import benchmark
from alpaca_lora.evaluation.benchmarks.scores import scores_of
from alpaca_lora.evaluation.comparison import Comparison
from alpaca_lora.evaluation.report.build import build_report
from alpaca_lora.evaluation.statistics.votes import Vote
from alpaca_lora.runs.benchmarks import BENCHMARKS, Benchmarks, Score, TaskScores
from alpaca_lora.runs.result import published_files

lm_eval = pytest.importorskip("lm_eval")
TaskManager = pytest.importorskip("lm_eval.tasks").TaskManager
TASKS = Path(__file__).parent / "tasks"
BOTH = ["everyday.yaml", "everyday_said.yaml"]


@pytest.fixture(autouse=True)
def desk(tmp_path, monkeypatch):
    """A folder with the tasks, whose data are named as from there; nothing is left in the user's cache of data sets."""
    import datasets
    from torch.utils import collect_env

    shutil.copytree(TASKS, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(collect_env, "get_pretty_env_info", lambda: "")  # seconds, and nothing here depends on it
    return tmp_path


@pytest.fixture(scope="module", params=["sentencepiece", "bpe"])
def made(request, short_base, short_base_bpe, records, tmp_path_factory):
    """A run, and the folder that it is merged into: with BOS in front of texts, and without."""
    base = {"sentencepiece": short_base, "bpe": short_base_bpe}[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    run = finetune(
        base_model=base,
        data=[record._asdict() for record in records],
        output_dir=folder / "run",
        dtype="float32",
        cutoff_len=256,
        val_set_size=0,
        batch_size=4,
        max_steps=2,
        learning_rate=1e-2,
        warmup_steps=0,
    )
    return run.output_dir, merge(run.output_dir, folder / "merged").folder


@pytest.fixture
def tuned(made, desk):
    """Copies of both, to write in."""
    return [Path(shutil.copytree(folder, desk / folder.name)) for folder in made]


def by_itself(kind, model_args, tasks=BOTH, **settings):
    """What lm-eval says without us."""
    manager = TaskManager(include_defaults=False)  # its own tasks are thousands
    return lm_eval.simple_evaluate(kind, model_args, tasks=list(tasks), task_manager=manager, **settings)


def plain(folder, tasks=BOTH, **settings):
    """What lm-eval says by itself of a folder."""
    return by_itself("hf", {"pretrained": str(folder)}, tasks, device="cpu", **settings)


def assert_same(found, expected):
    """lm-eval's results, equal: figures, and each question's log-likelihoods or answer."""
    assert found["results"].keys() == expected["results"].keys()
    for task, figures in expected["results"].items():
        assert {name: value for name, value in found["results"][task].items() if "," in name} == pytest.approx(
            {name: value for name, value in figures.items() if "," in name}
        )
        for one, other in zip(found["samples"][task], expected["samples"][task], strict=True):
            assert one["arguments"] == other["arguments"]
            for (said,), (expects,) in zip(one["resps"], other["resps"], strict=True):
                assert said == expects if isinstance(said, str) else said == pytest.approx(expects, abs=1e-4)


# The same figures as lm-eval's own


def test_an_adapter_has_the_figures_of_lm_eval_on_the_merged_folder(tuned, desk):
    run, merged = tuned
    expected = plain(merged)
    for model in (run, merged, load(run)):
        found = benchmark(model, BOTH, out=desk / "out.json")
        assert_same(json.loads((desk / "out.json").read_text("utf-8")), json.loads(json.dumps(expected, default=str)))
        by_task = {one.task: {score.measure: score.value for score in one.scores} for one in found.tasks}
        assert by_task["everyday"]["acc"] == expected["results"]["everyday"]["acc,none"]


@pytest.mark.parametrize("template", [False, True])
def test_with_examples_and_in_the_template_too(tuned, desk, template):
    """lm-eval's chat template of the merged folder is the prompt that was trained with."""
    run, merged = tuned
    expected = plain(merged, num_fewshot=2, apply_chat_template=template, fewshot_as_multiturn=False, limit=5)
    found = benchmark(run, BOTH, num_fewshot=2, template=template, limit=5, out=desk / "out.json")
    assert_same(json.loads((desk / "out.json").read_text("utf-8")), json.loads(json.dumps(expected, default=str)))
    for one in found.tasks:
        assert (one.num_fewshot, one.documents, one.of, one.template) == (2, 5, 20, "alpaca" if template else "")


def test_the_template_gives_the_ids_of_training(tuned, desk):
    model = load(tuned[0])
    benchmark(model, "everyday.yaml", template=True, limit=1, out=desk / "out.json")
    (sample,) = json.loads((desk / "out.json").read_text("utf-8"))["samples"]["everyday"]
    prompt = sample["arguments"][0][0]
    special = prompt.startswith("<s>")  # as in lm-eval: BOS is in the text, or put in front
    ids = model.encoder.tokenizer.encode(prompt, add_special_tokens=not special)
    assert ids == model.encoder.prompt_ids("Question: What do bees make?\nAnswer:")


def test_a_served_adapter_has_them_too(tuned):
    run, merged = tuned
    model = load(run)
    with serving(model) as (_, port):
        client = {"model": "run", "base_url": f"http://127.0.0.1:{port}/v1/completions", "tokenizer": str(merged)}
        bos = bool(model.encoder.prefix_ids)  # which this client of lm-eval's leaves out
        found = by_itself("local-completions", {**client, "max_length": 2048, "add_bos_token": bos}, batch_size=16)
    assert_same(found, plain(merged))


def test_rows_trained_for_new_tokens_and_ties_stay(short_base_bpe, short_base, records, desk, tmp_path_factory):
    """lm-eval ties weights anew: it must not undo what an adapter changed in embedding and head."""
    for name, base in (("tied", short_base_bpe), ("untied", short_base)):
        folder = tmp_path_factory.mktemp(name)
        run = finetune(
            base_model=base,
            data=[{"instruction": "Say <x1>.", "output": "<x1> <x1>"}, *(record._asdict() for record in records)],
            output_dir=folder / "run",
            new_tokens=["<x1>"],
            dtype="float32",
            val_set_size=0,
            batch_size=13,
            max_steps=2,
            learning_rate=1e-1,
            warmup_steps=0,
        )
        rows = [{"question": "Say <x1>.", "choices": ["<x1> <x1>", "no"], "answer": 0}]
        (desk / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        expected = plain(merge(run.output_dir, folder / "merged").folder, ["everyday.yaml"])
        benchmark(run.output_dir, "everyday.yaml", out=desk / "out.json")
        assert_same(json.loads((desk / "out.json").read_text("utf-8")), json.loads(json.dumps(expected, default=str)))


def test_a_task_s_description_stands_in_the_one_message_that_a_template_has(tuned, desk):
    """lm-eval makes a system text of it, which such a template refuses, and would then leave it out."""
    (desk / "said.yaml").write_text((desk / "everyday_said.yaml").read_text() + 'description: "Be short.\\n\\n"\n')
    benchmark(tuned[0], "said.yaml", template=True, limit=1, out=desk / "out.json")
    (sample,) = json.loads((desk / "out.json").read_text("utf-8"))["samples"]["everyday_said"]
    assert (
        "### Instruction:\nBe short.\n\nQuestion: What do bees make?\nAnswer:\n\n### Response:"
        in sample["arguments"][0][0]
    )


# Scores


def results_of(values, of=20, error=0.1, measure="acc", **more):
    """What lm-eval gives of one task: a value of each document, and their mean."""
    return {
        "results": {"t": {f"{measure},none": sum(values) / len(values), f"{measure}_stderr,none": error}},
        "samples": {"t": [{"filter": "none", measure: value} for value in values]},
        "n-samples": {"t": {"original": of, "effective": len(values)}},
        "n-shot": {"t": 0},
        "versions": {"t": 1.0},
        "lm_eval_version": "0.4.13",
        **more,
    }


@pytest.mark.parametrize("right", [0, 3, 10, 20])
def test_of_right_and_wrong_answers_the_interval_is_wilson_s(right):
    from statsmodels.stats.proportion import proportion_confint

    ((score,),) = (one.scores for one in scores_of(results_of([1.0] * right + [0.0] * (20 - right)), "", "float32"))
    assert score.value == right / 20
    assert (score.low, score.high) == pytest.approx(proportion_confint(right, 20, method="wilson"), abs=1e-9)


def test_of_anything_else_it_is_lm_eval_s_standard_error():
    ((score,),) = (one.scores for one in scores_of(results_of([0.25, 0.5, 0.75]), "", "float32"))
    assert (score.low, score.high) == pytest.approx((0.5 - 0.196, 0.5 + 0.196), abs=1e-5)
    ((score,),) = (one.scores for one in scores_of(results_of([0.25], error="N/A"), "", "float32"))
    assert score.low is None and str(score) == "0.2500"


def test_of_a_group_with_an_average_that_is_the_row():
    results = results_of([1.0, 0.0], of=9)
    results["results"]["all"] = {"acc,none": 0.5, "acc_stderr,none": 0.2, "sample_len": 2}
    more = {"groups": {"all": results["results"]["all"]}, "group_subtasks": {"all": ["half"], "half": ["t"]}}
    (row,) = scores_of({**results, **more}, "", "float32")
    assert (row.task, row.documents, row.of, row.num_fewshot) == ("all", 2, 9, None)
    assert row.scores[0].high == pytest.approx(0.5 + 1.96 * 0.2, abs=1e-4)
    with pytest.raises(DataError, match="no scores"):
        scores_of({**results, "results": {"t": {"alias": "t"}}}, "", "float32")


# Where they are kept and shown


def test_they_are_kept_with_the_run_and_in_its_card(tuned, desk):
    run, merged = tuned
    before = (run / "README.md").read_text("utf-8")
    found = benchmark(run, BOTH)
    assert Benchmarks.read(run).tasks == found.tasks and Benchmarks.read(merged) is None
    card = (run / "README.md").read_text("utf-8")
    value = str(found.tasks[0].scores[0])
    assert f"| everyday | 0 | 20 | bare text | acc | {value} |" in card and "lm-eval 0.4." in card
    assert card.index("## Benchmarks by lm-eval") < card.index("## Limits")
    section = f"## Benchmarks by lm-eval\n\n{found.markdown}\n\n"
    assert found.put_in(before) == card and card.replace(section, "") == before

    (run / "README.md").write_text(f"{card}\nMy own words.\n", encoding="utf-8")
    assert [one.documents for one in benchmark(run, "everyday.yaml", limit=4).tasks] == [4]  # fewer do not replace
    kept = Benchmarks.read(run)
    assert {one.task: one.documents for one in kept.tasks} == {"everyday": 20, "everyday_said": 20}
    benchmark(run, "everyday.yaml", template=True, limit=4)
    assert [one.template for one in Benchmarks.read(run).tasks] == ["", "", "alpaca"]
    card = (run / "README.md").read_text("utf-8")
    assert card.count("## Benchmarks") == 1 and "| 4 of 20 |" in card and card.endswith("\nMy own words.\n")
    assert "everyday, acc" in alpaca_lora.Run(run)._repr_html_()
    assert run / BENCHMARKS in published_files(run)


def test_they_go_with_the_weights(tuned):
    run = tuned[0]
    task = TaskScores("t", "1", 0, 4, 4, "", "float32", "0.4.13", (Score("acc", 0.5, 0.2, 0.8),))
    scores = Benchmarks("run", (task,))
    kept = scores.keep(run)
    assert Benchmarks.read(run) == kept
    (run / BENCHMARKS).write_text(json.dumps({**json.loads((run / BENCHMARKS).read_text()), "weights": "others"}))
    assert Benchmarks.read(run) is None and "Benchmarks" not in alpaca_lora.Run(run)._repr_html_()
    assert scores.keep(run) == kept
    (run / BENCHMARKS).write_text(json.dumps(asdict(kept)).replace('"high": 0.8', '"high": null'))
    with pytest.raises(DataError, match="an interval has both ends or none. Delete it, and measure again"):
        Benchmarks.read(run)
    (run / BENCHMARKS).write_text('{"model": 1}')
    with pytest.raises(DataError, match=r"benchmarks.json: damaged: model: .*Delete it, and measure again"):
        Benchmarks.read(run)


def test_a_base_has_nothing_written_beside_it(short_base, desk, capsys):
    before = sorted(Path(short_base).iterdir())
    cli.main(["benchmark", short_base, "--tasks", "everyday.yaml,everyday_said.yaml", "--limit", "2"])
    assert sorted(Path(short_base).iterdir()) == before
    printed = capsys.readouterr().out
    assert "everyday       0      2 of 20    bare text  acc" in printed and "Wilson" in printed


def test_they_show_themselves():
    scores = (Score("acc", 0.5, 0.25, 0.75), Score("word_perplexity", 12.5))
    shown = Benchmarks("<m>", (TaskScores("a|b", "1", None, 4, 8, "", "float32", "0.4.13", scores),))
    assert "a|b          4 of 8     bare text  acc              0.5000 (0.2500 to 0.7500)" in str(shown)
    assert "<caption>&lt;m&gt;</caption>" in shown._repr_html_() and "| a\\|b |" in shown.markdown
    assert str(shown.tasks[0]) == "a|b: acc 0.5000 (0.2500 to 0.7500), word_perplexity 12.5000"


def test_answers_carry_them_into_reports(tuned, desk):
    run = tuned[0]
    benchmark(run, "everyday.yaml", limit=4)
    (desk / "asked.jsonl").write_text('{"instruction": "Name a cat."}\n{"instruction": "Name a dog."}\n')
    for name, model in (("a", run), ("b", tuned[1])):
        alpaca_lora.answer(model, "asked.jsonl", f"{name}.json", max_new_tokens=4)
    alpaca_lora.compare("a.json", "b.json", "compared")
    items = [pair["id"] for pair in json.loads(Path("compared/comparison.json").read_text("utf-8"))["pairs"]]
    votes = [Vote(item, "ann", "run", "merged", 1.0) for item in items]
    report = build_report(Comparison.read("compared"), votes)
    (said,) = Benchmarks.read(run).tasks
    assert [(fact.name, fact.found) for fact in report.notes] == [("Benchmarks of run", str(said))]
    assert str(said) in report.html and "Benchmarks of run: everyday: acc" in report.markdown.replace("\\", "")


# What cannot be measured


def test_settings_that_cannot_be(desk):
    settings = {"limit": 0, "num_fewshot": -1, "prompt_template": "chat", "out": "nowhere/out.json"}
    with pytest.raises(ConfigError, match="(?s)4 problems.*fewshot: -1.*limit: 0.*with template only.*no folder"):
        benchmark("demo", "everyday.yaml", **settings)
    with pytest.raises(ConfigError, match="tasks: is empty"):
        benchmark("demo", [])


def test_files_and_folders_that_hold_no_task(desk):
    (desk / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"(?s)2 problems.*gone.yaml: no such file.*empty: no YAML file below"):
        benchmark("demo", ["gone.yaml", "empty"])
    (desk / "broken.yaml").write_text("task: [")
    with pytest.raises(DataError, match="task broken.yaml: cannot be loaded"):
        benchmark("demo", "broken.yaml")
    (desk / "questions.jsonl").unlink()
    with pytest.raises(DataError, match=r"task everyday.yaml: cannot be loaded: .*questions.jsonl"):
        benchmark("demo", "everyday.yaml")


def test_data_on_a_hub_that_cannot_be_reached(desk):
    hub = "task: far\ndataset_path: nobody/nothing\noutput_type: multiple_choice\ntest_split: test\n"
    (desk / "far.yaml").write_text(hub)
    with pytest.raises(HubError, match=r"task far.yaml: its data are on the hub, and cannot be had: .*on this machine"):
        benchmark("demo", "far.yaml")


def test_a_task_twice_and_tasks_that_run_code(desk):
    text = (desk / "everyday.yaml").read_text()
    (desk / "again.yaml").write_text(text)
    with pytest.raises(ConfigError, match="everyday is there twice"):
        benchmark("demo", ["everyday.yaml", "again.yaml"])
    (desk / "again.yaml").write_text(text.replace("task: everyday", "task: code\nunsafe_code: true"))
    with pytest.raises(ConfigError, match="code runs code that the model writes"):
        benchmark("demo", "again.yaml")


def test_a_folder_is_its_tasks_and_a_group_its_average(short_base, desk):
    group = "group: mine\ntask: [everyday]\naggregate_metric_list: [{metric: acc, weight_by_size: true}]\n"
    (desk / "own").mkdir()
    for name in (*BOTH, "questions.jsonl"):
        shutil.move(name, desk / "own" / name)
    (desk / "own" / "mine.yaml").write_text(group)
    shutil.copy("own/questions.jsonl", ".")  # what a task names is read from here
    found = benchmark(short_base, "own")
    assert {one.task: [score.measure for score in one.scores] for one in found.tasks} == {
        "mine": ["acc"],
        "everyday_said": ["exact_match"],
    }
    assert found.tasks[0].documents == 20 or found.tasks[1].documents == 20


def test_more_examples_than_documents(short_base, desk):
    with pytest.raises(DataError, match="everyday: lm-eval cannot measure this: .*fewer documents than num_fewshot"):
        benchmark(short_base, "everyday.yaml", num_fewshot=30)


def test_without_lm_eval_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(benchmarks, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'alpaca-lora\[benchmark\]'"):
        benchmark("demo", "arc_easy")


def test_what_is_longer_than_the_model_reads_is_cut_and_said(short_base, desk):
    rows = [{"question": "word " * 3000, "choices": ["a", "b"], "answer": 0}]
    (desk / "questions.jsonl").write_text(json.dumps(rows[0]) + "\n", encoding="utf-8")
    with pytest.warns(UserWarning, match=r"requests are longer than the 2,048 tokens that the model reads"):
        benchmark(short_base, "everyday.yaml")


@pytest.mark.slow
def test_a_name_that_lm_eval_does_not_know():
    with pytest.raises(SystemExit, match=r"lm-eval knows no task 'arc_eazy'. Did you mean 'arc_easy'"):
        cli.main(["benchmark", "demo", "--tasks", "arc_eazy"])


@pytest.mark.slow
@pytest.mark.parametrize("made", ["sentencepiece"], indirect=True)
def test_lm_eval_s_command_on_the_merged_folder_has_our_figures(tuned):
    options = "--model hf --device cpu --tasks everyday,everyday_said --include_path . --output_path theirs.json"
    command = [sys.executable, "-m", "lm_eval", *options.split(), "--model_args", f"pretrained={tuned[1]}"]
    subprocess.run(command, check=True, capture_output=True, timeout=1500)
    (theirs,) = Path(".").glob("theirs*.json")
    figures = json.loads(theirs.read_text("utf-8"))["results"]
    for one in benchmark(tuned[0], BOTH).tasks:
        for score in one.scores:
            assert figures[one.task][f"{score.measure},none"] == pytest.approx(score.value)
