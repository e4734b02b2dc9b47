"""The command line: options, config files, exit codes, and what is printed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file, save_file

from alpaca_lora import cli
from alpaca_lora.config import recipe_names, recipe_path

ROOT = Path(__file__).parents[1]


def command(*arguments):
    """Runs the command as a user does, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "alpaca_lora", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        timeout=1500,
    )


@pytest.fixture(scope="module")
def data(records, tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "records.json"
    path.write_text(json.dumps([record._asdict() for record in records]), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def finished(short_base, data, tmp_path_factory):
    """A run started from a YAML file with one option on top: the process and its folder."""
    folder = tmp_path_factory.mktemp("cli")
    values = {"base_model": short_base, "data": str(data), "val_set_size": 2, "batch_size": 4, "max_steps": 7}
    values |= {"learning_rate": 1e-2, "dtype": "float32", "sample_instructions": ["Name a cat."], "cutoff_len": 128}
    (folder / "run.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    return command(
        "finetune", "--config", folder / "run.yaml", "--max_steps", 2, "--output_dir", folder / "out"
    ), folder


def run(capsys, *arguments):
    """Runs the command in this process: exit code, stdout, stderr."""
    try:
        cli.main([str(argument) for argument in arguments])
        code = 0
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    if isinstance(code, str):  # Python prints it to stderr and exits with 1
        code, err = 1, err + code
    return code, out, err


# finetune


def test_finetune_from_a_file_with_an_option_on_top(finished):
    result, folder = finished
    assert result.returncode == 0, result.stderr
    assert "2 steps in" in result.stdout
    assert "validation loss 8." in result.stdout
    assert "### Name a cat.\n--- before\n" in result.stdout
    assert f"Adapter, history, loss.png and model card: {folder / 'out'}" in result.stdout
    assert f'alpaca-lora generate {folder / "out"} "Write a haiku about the sea."' in result.stdout
    assert f"alpaca-lora merge {folder / 'out'} {folder / 'out'}-merged" in result.stdout
    assert "2/2" in result.stderr and "tokens/s" in result.stderr
    assert "Warning" not in result.stderr
    content = json.loads((folder / "out" / "alpaca_lora.json").read_text(encoding="utf-8"))
    assert content["finished"] is True
    assert content["config"]["max_steps"] == 2
    assert content["config"]["learning_rate"] == 0.01


def test_print_config_is_a_config(capsys, tmp_path):
    code, out, _ = run(capsys, "finetune", "--recipe", "quickstart", "--lora_r", 4, "--print_config")
    assert code == 0
    values = yaml.safe_load(out)
    assert (values["base_model"], values["lora_r"], values["lora_alpha"]) == ("demo", 4, 32.0)
    (tmp_path / "again.yaml").write_text(out, encoding="utf-8")
    code, again, _ = run(capsys, "finetune", "--config", tmp_path / "again.yaml", "--print_config")
    assert (code, again) == (0, out)


def test_options_win_over_files_wherever_they_stand_and_later_files_over_earlier(capsys, tmp_path):
    (tmp_path / "mine.yaml").write_text("lora_r: 6\nbatch_size: 3\n", encoding="utf-8")
    arguments = ["--batch_size", 2, "--config", "quickstart", "--recipe", tmp_path / "mine.yaml", "--print_config"]
    values = yaml.safe_load(run(capsys, "finetune", *arguments)[1])
    assert (values["batch_size"], values["lora_r"], values["base_model"]) == (2, 6, "demo")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--seed", "1", "--seed=2"], "--seed is given 2 times, as '1' and '2', and takes one value. Leave one."),
        (["--lora-r", "1", "--recipe", "quickstart", "--lora_r", "2"], "--lora_r is given 2 times, as '1' and '2'"),
        (["--fsdp", "--fsdp", "false"], "--fsdp is given 2 times, as 'true' and 'false'"),
        (["--columns", "output=a", "--columns.output=b"], "--columns: output is given twice, as 'a' and as 'b'."),
        (["--output_dir", "--seed", "1"], "--output_dir has no value: --seed follows. Give a name or a path."),
        (["--output_dir", ""], "--output_dir is empty. Give a name or a path, or leave the option out."),
        (["--columns", "question"], "--columns: 'question' has no '='. Give pairs such as instruction=question,"),
        (["--max_steps", "lots"], "max_steps: 'lots' must be a whole number."),
        (["--max_tokens", "big"], "max_tokens: 'big' must be a whole number or auto."),
        (["--val_set_size", "5%"], "val_set_size: '5%' must be a number."),
    ],
)
def test_what_could_only_be_read_by_dropping_a_word_is_an_error(capsys, words, says):
    code, out, err = run(capsys, "finetune", *words, "--print_config")
    assert (code, out) == (2, "")
    assert f"error: {says}" in err and "Traceback" not in err


def test_an_option_given_twice_is_an_error_of_every_command(capsys):
    for words in (
        ["generate", "m", "Hi", "--seed", "1", "--seed", "2"],
        ["diff", "verify", "d", "--base_model", "a", "--base_model", "b"],
    ):
        assert run(capsys, *words)[0] == 2
    assert "--fix is given 2 times, as 'a' and 'b'" in run(capsys, "lint", "d", "--fix", "a", "--fix", "b")[2]


def test_lists_on_the_command_line(capsys):
    targets = ["--lora_target_modules", '["q_proj","o_proj"]', "--columns", '{"output": "answer"}']
    values = yaml.safe_load(run(capsys, "finetune", "--recipe", "quickstart", *targets, "--print_config")[1])
    assert values["lora_target_modules"] == ["q_proj", "o_proj"]
    assert values["columns"] == {"output": "answer"}


@pytest.mark.parametrize(
    "columns",
    [
        "{'input': 'inputs', 'notes': None}",
        '{"input": "inputs", "notes": null}',
        "input=inputs,notes=None",
        "input=inputs,notes=null",
    ],
)
def test_columns_are_understood_as_messages_write_them(capsys, tmp_path, columns):
    rows = [
        {"instruction": f"Add {n}.", "inputs": f"{n}, 3", "output": "x", "notes": "Some words. " * 9} for n in "123"
    ]
    path = tmp_path / "x.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    assert "pass columns={'input': 'inputs'}" in run(capsys, "lint", path)[2]
    out = run(capsys, "lint", path, "--columns", columns)[1]
    assert "3 records" in out and "unusable" not in out and "notes" not in out
    values = yaml.safe_load(
        run(capsys, "finetune", "--recipe", "quickstart", "--columns", columns, "--print_config")[1]
    )
    assert values["columns"] == {"input": "inputs", "notes": None}


def test_lists_mappings_and_switches_as_a_shell_has_them(capsys):
    words = ["--lora-target-modules", "q_proj,v_proj", "--lora_target_modules=o_proj", "--report_to", "wandb,mlflow"]
    words += ["--columns", "instruction=ask, please,output=answer", "--columns", "input=more", "--max_steps", "none"]
    words += ["--sample_instructions", "Write, in short, a haiku", "--sample_instructions", "[\x7f \N{LLAMA}"]
    words += ["--use_dora", "yes", "--no-fsdp", "--output_dir", "-x", "--learning_rate", "-1e-4", "--data", "2024"]
    values = yaml.safe_load(run(capsys, "finetune", "--recipe", "quickstart", *words, "--print_config")[1])
    assert values["lora_target_modules"] == ["q_proj", "v_proj", "o_proj"]
    assert values["report_to"] == ["wandb", "mlflow"]
    assert values["columns"] == {"instruction": "ask, please", "output": "answer", "input": "more"}
    assert values["sample_instructions"] == ["Write, in short, a haiku", "[\x7f \N{LLAMA}"]
    assert (values["use_dora"], values["fsdp"], values["max_steps"]) == (True, False, None)
    assert (values["output_dir"], values["learning_rate"]) == ("-x", -1e-4)
    values = yaml.safe_load(
        run(capsys, "finetune", "--report_to", "wandb", "--sample_instructions", "a, b", "--print_config")[1]
    )
    assert (values["report_to"], values["sample_instructions"]) == ("wandb", ["a, b"])


def test_a_wrong_option_names_the_nearest(capsys):
    code, out, err = run(capsys, "finetune", "--base_modell", "demo")
    assert (code, out) == (2, "")
    assert "unrecognized arguments: --base_modell demo. Did you mean 'base_model'?" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["merge", "x"], "merge: OUT is missing. See alpaca-lora merge --help."),
        (["diff", "make", "x"], "diff make: TUNED and OUT are missing. See alpaca-lora diff make --help."),
        (["genrate", "x"], "'genrate' is no command. Did you mean 'generate'? Choose from: finetune, merge, diff, "),
        (["diff"], "diff: give one of: make, apply, verify."),
        (["finetune", "--lora_r", "9" * 5_000], "lora_r: the number has more digits than any that could be meant."),
        (["finetune", "--columns", "{a: " * 5_000], "{a: {a: {a: {a: {a: ... is nested too deep."),
        (["finetune", "--data", "[" * 5_000], "[[[[[[[[[[[[[[[[[[[[... is nested too deep."),
    ],
)
def test_what_is_missing_or_unknown_is_one_sentence(capsys, words, said):
    code, out, err = run(capsys, *words)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith(f"error: {said}")
    assert "Traceback" not in err


def test_null_leaves_a_column_out(capsys):
    words = ["--columns", "label=null,notes=None,output=answer", "--columns.input=null"]
    values = yaml.safe_load(run(capsys, "finetune", *words, "--print_config")[1])
    assert values["columns"] == {"label": None, "notes": None, "output": "answer", "input": None}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["generate", "nowhere", "Hi", "--temperature", -1, "--top_p", 0],
            "2 problems:\n  - temperature: -1.0 must be",
        ),
        (["generate", "nowhere", "Hi", "--num_beams", 10**9], "num_beams: 1000000000 must be from 1 to 64."),
        (["generate", "nowhere", " \n"], "instruction: is empty. Say what to do."),
        (["chat", "nowhere", "--max_new_tokens", 0], "max_new_tokens: 0 must be at least 1."),
        (["serve", "nowhere", "--max_rows", 0], "max_rows: 0 must be at least 1."),
        (
            ["answer", "nowhere", "probe", "x.json", "--temperature", "1e9"],
            "temperature: 1000000000.0 must be 0, or from",
        ),
        (["merge", "nowhere", "."], ".: exists and is not an empty folder; name a new one."),
        (["extract", "nowhere", "nothing", "."], ".: exists and is not an empty folder"),
        (["export", "nowhere", ".", "--format", "ollama"], ".: exists and is not an empty folder"),
        (["diff", "make", "nowhere", "nothing", "."], ".: exists and is not an empty folder"),
        (["diff", "apply", "nowhere", "nothing", "."], ".: exists and is not an empty folder"),
        (["generate", "x" * 5_000, "Hi"], f"base_model: no such folder: '{'x' * 299}.... Give a folder"),
    ],
)
def test_what_can_be_known_is_said_before_a_model_is_looked_for(capsys, tmp_path, monkeypatch, words, said):
    """There is no model of that name: whoever looked for it would say so."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "something").touch()
    code, _, err = run(capsys, *words)
    assert code == 1 and err.startswith(f"alpaca-lora: {said}")


def test_a_settings_file_that_is_not_utf8_is_named(capsys, tmp_path):
    (tmp_path / "mine.yaml").write_bytes(b"seed: 1  # caf\xe9\n")
    with pytest.raises(SystemExit) as caught:
        cli.main(["finetune", "--config", str(tmp_path / "mine.yaml")])
    assert "mine.yaml: damaged: not UTF-8 text: byte 15 is 0xe9" in str(caught.value)


def test_a_file_that_names_a_recipe_is_told_where_recipes_are_given(tmp_path):
    (tmp_path / "mine.yaml").write_text("recipe: quickstart\nlora_r: 8\n", encoding="utf-8")
    with pytest.raises(SystemExit) as caught:
        cli.main(["finetune", "--config", str(tmp_path / "mine.yaml")])
    told = "mine.yaml: recipe is not a setting of a file. Give it on the command line, before this one: "
    assert f"{told}--recipe quickstart --config {tmp_path}" in str(caught.value)


def test_a_wrong_setting_in_a_file_names_the_nearest(capsys, tmp_path):
    (tmp_path / "run.yaml").write_text("learning_rat: 1e-4\n", encoding="utf-8")
    code, _, err = run(capsys, "finetune", "--config", tmp_path / "run.yaml")
    assert code == 2
    assert "'learning_rat' is not a setting. Did you mean 'learning_rate'?" in err


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("batch_size", "2.5", "batch_size"),
        ("lora_r", "1.5", "lora_r"),
        ("learning_rate", "fast", "learning_rate"),
        ("dtype", "float8", "dtype: 'float8' must be auto, float32, bfloat16 or float16."),
        ("lr_scheduler", "cosin", "must be cosine, linear, constant or"),
        ("train_on_inputs", "maybe", "train_on_inputs"),
    ],
)
def test_a_value_of_the_wrong_kind(capsys, option, value, words):
    code, out, err = run(capsys, "finetune", "--recipe", "quickstart", f"--{option}", value)
    assert (code, out) == (2, "")
    assert words in err
    assert "Traceback" not in err


def test_missing_settings(capsys):
    code, _, err = run(capsys, "finetune", "--base_model", "demo")
    assert code == 2
    assert "finetune: --data and --output_dir are missing. See alpaca-lora finetune --help." in err


def test_wrong_settings_are_one_message(capsys, tmp_path):
    wrong = ["--lora_r", 0, "--lora_alpha", -1, "--lora_dropout", 1, "--val_set_size", -1, "--cutoff_len", 4]
    code, out, err = run(capsys, "finetune", "--recipe", "quickstart", "--output_dir", tmp_path / "out", *wrong)
    assert (code, out) == (1, "")
    assert err == (
        "alpaca-lora: 5 problems:\n"
        "  - lora_r: 0 must be a whole number of at least 1.\n"
        "  - cutoff_len: 4 must be a whole number of tokens, at least 8.\n"
        "  - lora_alpha: -1.0 must be a number above 0.\n"
        "  - lora_dropout: 1.0 must be in [0, 1).\n"
        "  - val_set_size: -1.0 must be a count, a fraction below 1, or 0."
    )
    assert not (tmp_path / "out").exists()


def test_an_unknown_recipe(capsys):
    code, _, err = run(capsys, "finetune", "--recipe", "quickstar")
    assert code == 1
    assert err.startswith("alpaca-lora: recipe: 'quickstar' is neither a recipe nor a file. Did you mean 'quickstart'?")


def test_a_users_mistake_is_one_message_without_traceback(capsys, short_base, data, tmp_path):
    arguments = ["--base_model", short_base, "--data", data, "--output_dir", tmp_path / "out", "--batch_size", 99]
    code, _, err = run(capsys, "finetune", *arguments, "--val_set_size", 0)
    assert code == 1
    assert "alpaca-lora: batch_size: 99 is more than the 12 training examples. Lower batch_size to 12" in err
    result = command("recipes", "alpaca-7")  # a process of its own, which needs no model
    assert result.returncode == 1
    assert result.stderr.startswith("alpaca-lora: recipe: 'alpaca-7' is neither a recipe nor a file.")
    assert "Traceback" not in err + result.stderr


def test_a_finished_run_is_not_overwritten(capsys, finished):
    _, folder = finished
    before = (folder / "out" / "adapter_model.safetensors").read_bytes()
    code, _, err = run(capsys, "finetune", "--config", folder / "run.yaml", "--output_dir", folder / "out")
    assert code == 1
    assert "holds another run. Name a new folder, or continue that run with --resume auto" in err
    assert (folder / "out" / "adapter_model.safetensors").read_bytes() == before


def test_resume_with_another_setting(capsys, finished):
    _, folder = finished
    options = ["--output_dir", folder / "out", "--max_steps", 2, "--learning_rate", 1, "--resume", "true"]
    code, _, err = run(capsys, "finetune", "--config", folder / "run.yaml", *options)
    assert code == 1
    assert "resume: learning_rate was 0.01 and is 1.0 now" in err


# merge, generate, inspect


def test_merge_then_generate(capsys, finished, tmp_path):
    _, folder = finished
    merged = tmp_path / "merged"
    code, out, _ = run(capsys, "merge", folder / "out", merged)
    assert code == 0
    assert out.startswith(f"Merged folder: {merged}\nLogits are at most ")
    assert "20 of 20 answers are the same." in out
    answers = []
    for model in (folder / "out", merged):
        code, out, _ = run(capsys, "generate", model, "Name a cat.", "--input", "A big one.", "--max_new_tokens", 6)
        assert code == 0 and out.endswith("\n")
        answers.append(out)
    assert answers[0] == answers[1]
    code, _, err = run(capsys, "merge", folder / "out", merged)
    assert code == 1
    assert f"alpaca-lora: {merged}: exists and is not an empty folder; name a new one." in err


def test_merge_several_without_comparing(capsys, finished, tmp_path):
    _, folder = finished
    other = shutil.copytree(folder / "out", tmp_path / "other")  # of another tool: half of what was trained
    (other / "alpaca_lora.json").unlink()
    half = {name: tensor / 2 for name, tensor in load_file(other / "adapter_model.safetensors").items()}
    save_file(half, other / "adapter_model.safetensors", metadata={"format": "pt"})
    options = ["--also", str(other), "--dtype", "bfloat16", "--certify", "false"]
    code, out, _ = run(capsys, "merge", folder / "out", tmp_path / "merged", *options)
    assert code == 0 and "Logits" not in out
    certificate = json.loads((tmp_path / "merged" / "merge_certificate.json").read_text(encoding="utf-8"))
    assert len(certificate["adapters"]) == 2 and certificate["merged"]["dtype"] == "bfloat16"


def test_diff_and_extract(capsys, finished, short_base, tmp_path):
    _, folder = finished
    tuned, diff, result = (tmp_path / name for name in ("tuned", "diff", "result"))
    assert run(capsys, "merge", folder / "out", tuned, "--certify", "false")[0] == 0
    code, out, _ = run(capsys, "diff", "make", short_base, tuned, diff)
    assert code == 0
    assert out.startswith(f"Difference: {diff}\n") and f"alpaca-lora diff apply {diff} {short_base} RESULT" in out
    assert run(capsys, "diff", "apply", diff, short_base, result)[:2] == (0, f"Tuned model, bit for bit: {result}\n")
    assert (tuned / "model.safetensors").read_bytes() == (result / "model.safetensors").read_bytes()
    code, out, _ = run(capsys, "diff", "verify", diff, short_base, result)
    assert (code, out) == (
        0,
        "As they were: 21 tensors of the diff, 21 tensors of the base, 21 tensors of the result.\n",
    )
    code, _, err = run(capsys, "diff", "verify", diff, tuned)
    assert code == 1 and err.startswith("alpaca-lora: not what the difference was made with: ")
    code, out, _ = run(
        capsys, "extract", short_base, tuned, tmp_path / "adapter", "--lora_r", 8, "--lora_target_modules", "q_proj"
    )
    assert code == 0
    assert "model.layers.0.self_attn.q_proj  0.0000\n" in out and "Relative error of these 2 modules: 0.0000" in out
    assert run(capsys, "diff", "mak")[0] == 2


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["generate", "/nowhere", "Hi"], 1, "no such folder: '/nowhere'"),
        (["generate", "/nowhere", "Hi", "--temperature", "-1"], 1, "temperature: -1.0 must be 0"),
        (["generate", "/nowhere"], 2, "generate: INSTRUCTION is missing."),
        (["generate", "/nowhere", "Hi", "--temperatur", "1"], 2, "Did you mean 'temperature'?"),
        (["finetune", "--max_length", "512"], 2, "--max_length 512. Here it is 'cutoff_len', see docs/migrating.md."),
        (
            ["merge", "/nowhere", "out"],
            1,
            "/nowhere: is not an adapter folder (no adapter_config.json): no such folder.",
        ),
        (["diff"], 2, "diff: give one of: make, apply, verify."),
        (["diff", "apply", "/nowhere", "b", "c"], 1, "/nowhere: has no diff.json. Give the folder that"),
        (["merg", "a", "b"], 2, "'merg' is no command. Did you mean 'merge'?"),
        ([], 2, "alpaca-lora: give one of: finetune, merge, "),
    ],
)
def test_mistakes(capsys, arguments, code, words):
    found, out, err = run(capsys, *arguments)
    assert (found, out) == (code, "")
    assert words in err
    assert "Traceback" not in err


def test_sampling_is_checked(capsys, short_base):
    code, _, err = run(capsys, "generate", short_base, "Hi", "--top_p", 2, "--num_beams", 0)
    assert code == 1
    assert "alpaca-lora: 2 problems:\n  - top_p: 2.0 must be above 0 and at most 1.\n  - num_beams: 0" in err


def test_inspect(capsys, data, short_base):
    code, out, _ = run(capsys, "inspect", data, "--base_model", short_base, "--examples", 1)
    assert code == 0
    table, example = out.split("\n\nrecord 1: ")
    rows = dict(line.split("  ", 1) for line in table.splitlines())
    assert rows["records"].strip() == f"12 from {data}"
    assert rows["with input"].strip() == "41.7%"
    assert rows["ending in EOS"].strip() == "100%"
    assert rows["example length"].split()[::2] == ["min", "5%", "25%", "median", "75%", "95%", "max"]
    assert example == (
        "<s> Below is an instruction that describes a task. Write a response that appropriately completes the request."
        "\n\n### Instruction:\nName three fruits.\n\n### Response:\nApple, pear and plum.</s>\n"
    )


def test_inspect_and_lint_take_sources_of_which_more_is_said(capsys, data, short_base, tmp_path):
    more = tmp_path / "more.jsonl"
    more.write_text('{"question": "Say a thing.", "output": "A thing."}\n', encoding="utf-8")
    own = f"{{path: {more}, weight: 1, columns: {{instruction: question}}}}"
    cli.main(["inspect", f"[{{path: {data}, weight: 3}}, {own}]", "--base_model", short_base])
    assert f"from {more}" in capsys.readouterr().out
    cli.main(["lint", own])
    assert "1 record" in capsys.readouterr().out


def test_inspect_shows_supervised_tokens_in_another_colour(capsys, data, short_base, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    code, out, _ = run(capsys, "inspect", data, "--base_model", short_base, "--examples", 1)
    assert code == 0
    prompt, response = out.split("### Response:")
    assert "\x1b[" in prompt
    assert "32m" not in prompt and "92m" not in prompt
    shown = response.split("\x1b[")
    assert any("32m" in piece for piece in shown) and any("92m" in piece for piece in shown)
    assert "7;32m</s>" in response


def test_inspect_reports_bad_records(capsys, tmp_path, short_base):
    path = tmp_path / "bad.json"
    path.write_text('[{"instruction": "a", "output": "b"}, {"instruction": "c", "output": 3}]', encoding="utf-8")
    code, _, err = run(capsys, "inspect", path, "--base_model", short_base)
    assert code == 1
    assert err.startswith(f"alpaca-lora: {path}, record 2 (line 1): 'output' is 3 (int), not a string")


# recipes


def test_recipes_are_listed(capsys):
    code, out, err = run(capsys, "recipes")
    assert (code, err) == (0, "")
    lines = dict(line.split("  ", 1) for line in out.splitlines())
    assert list(lines) == recipe_names()
    assert lines["alpaca-7b"].strip().startswith("Stanford Alpaca 7B: every weight of LLaMA 7B learns")


def test_a_recipe_is_printed_as_it_is(capsys, tmp_path):
    code, out, _ = run(capsys, "recipes", "alpaca-7b")
    assert code == 0
    assert out == recipe_path("alpaca-7b").read_text(encoding="utf-8")
    (tmp_path / "mine.yaml").write_text(out, encoding="utf-8")
    assert yaml.safe_load(run(capsys, "finetune", "--config", tmp_path / "mine.yaml", "--print_config")[1])["fsdp"]


def test_a_reader_that_has_gone_is_no_mistake():
    """`alpaca-lora recipes | head -3`, at its worst: nobody reads at all."""
    ours, theirs = os.pipe()
    os.close(ours)
    with os.fdopen(theirs, "w") as pipe:
        ended = subprocess.run([sys.executable, "-m", "alpaca_lora", "recipes"], stdout=pipe, stderr=subprocess.PIPE)
    assert (ended.returncode, ended.stderr) == (141, b"")


def test_an_unknown_recipe_is_not_printed(capsys):
    code, out, err = run(capsys, "recipes", "alpaca-7")
    assert (code, out) == (1, "")
    assert "alpaca-lora: recipe: 'alpaca-7' is neither a recipe nor a file. Did you mean 'alpaca-7b'?" in err
    assert run(capsys, "recipes", "alpaca-7b", "alpaca-13b")[0] == 2


# Help


@pytest.mark.parametrize(
    "name", ["finetune", "merge", "diff make", "extract", "export", "generate", "inspect", "recipes"]
)
def test_help_describes_every_option(capsys, name):
    code, out, _ = run(capsys, *name.split(), "--help")
    assert code == 0
    assert out.startswith(f"usage: alpaca-lora {name}")
    if name == "finetune":
        text = " ".join(out.split())
        assert "Records per optimizer step, across all devices and micro-batches" in text
        assert "--recipe" in out and "quickstart" in out


def test_version(capsys):
    from alpaca_lora import __version__

    assert run(capsys, "--version")[:2] == (0, f"alpaca-lora {__version__}\n")


def test_commands_and_values_with_hyphens_or_underscores(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cli.main(["recipes", "alpaca_7b"])
    assert capsys.readouterr().out.startswith("# ")
    for words in (
        ["self_instruct", "report", "nowhere"],
        ["compare_report", "nowhere"],
        ["compare", "report", "nowhere"],
    ):
        with pytest.raises(SystemExit, match="^alpaca-lora: nowhere: holds no "):
            cli.main(words)
    words = ["--lora-target-modules", "all_linear", "--lr-scheduler", "constant-with-warmup"]
    values = (
        cli._parser()
        .parse_args(["finetune", "--base-model", "demo", "--data", "seeds", "--output-dir", "out", *words])
        .finetune
    )
    assert (values.lora_target_modules, values.lr_scheduler) == ("all-linear", "constant_with_warmup")


def test_the_earlier_name_of_a_token_budget_is_understood():
    for name in ("--max_tokens", "--max-tokens", "--token_budget"):
        given = cli._parser().parse_args(["answer", "demo", "probe", "out.json", name, "500"]).answer
        assert given.token_budget == 500
    assert cli._parser().parse_args(["plan", "--gpu", "a100-80g", "--max_tokens", "500"]).plan.max_tokens == 500


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--share", "0.5"], "share: does nothing without --rate"),
        (["--raters", "2", "--share", "0.5"], "raters: does nothing without --rate"),
        (["--rate", "--token_budget", "5"], "token_budget: does nothing with --rate"),
    ],
)
def test_options_of_the_other_way_of_comparing_are_refused(capsys, tmp_path, words, says):
    code, _, err = run(capsys, "compare", "a.json", "b.json", "--out", tmp_path / "out", *words)
    assert code == 1 and says in err
    assert not (tmp_path / "out").exists()


def test_each_unknown_option_has_its_own_hint(capsys):
    code, _, err = run(capsys, "finetune", "--data", "seeds", "--output_dir", "x", "--deepspeed", "z", "--bf16", "true")
    assert code == 2
    assert "deepspeed: Nothing here is set by that, see docs/migrating.md. bf16: Here it is 'dtype'" in err
