"""Runs of several processes over gloo, copies or shards (faults/zygote.py): one process's curve, checkpoints, files."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from harness import free_port, zygote
from safetensors.torch import load_file

from alpaca_lora import FinetuneConfig, finetune, load
from alpaca_lora.errors import ConfigError, TrainingError
from alpaca_lora.models.load import Placement, load_model
from alpaca_lora.planning.preparation import prepare
from alpaca_lora.runs.eval_records import read_eval_records
from alpaca_lora.training.fsdp import check_sharded, save_model
from chats import CHATS

FLOAT32 = Placement(torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def settings(short_base, short_seeds):
    return {
        "base_model": short_base,
        "data": short_seeds,
        "lora_dropout": 0,
        "learning_rate": 0.003,
        "batch_size": 16,
        "cutoff_len": 256,
        "max_tokens": 1024,
        "max_steps": 8,
        "val_set_size": 20,
        "eval_steps": 100,
        "save_steps": 100,
        "seed": 7,
    }


def options(out, settings):
    return ["finetune", *(f"--{key}={value}" for key, value in {**settings, "output_dir": out}.items())]


def command(out, settings, *torchrun):
    launcher = [sys.executable, "-m", "torch.distributed.run", *torchrun, "-m", "alpaca_lora"]
    return [*launcher, *options(out, settings)]


@pytest.fixture(scope="module")
def run():
    with zygote() as (run, _):
        yield run


@pytest.fixture(scope="module")
def launch(run):
    """Runs to the end, sharded or not; what was printed."""

    def launch(out, settings, ranks=1):
        sharded = settings.get("fsdp") == "true"
        ended = run.run(options(out, settings), ranks=ranks, fsdp=sharded)
        assert ended.code == 0, ended.printed
        return ended.printed

    return launch


def history(out):
    return [json.loads(line) for line in (Path(out) / "history.jsonl").read_text(encoding="utf-8").splitlines()]


def assert_same_curve(found, expected, norm=1e-3):
    """`norm`: torch's norm of a million float32 values is good to 1e-4 only, and shards are normed apart."""
    assert [line["step"] for line in found] == [line["step"] for line in expected]
    for key, rel in (("loss", 1e-5), ("eval_loss", 1e-5), ("supervised_tokens", 0), ("grad_norm", norm)):
        wanted = [line[key] for line in expected if key in line]
        assert [line[key] for line in found if key in line] == pytest.approx(wanted, rel=rel)


def assert_same_records(found, expected):
    """Each validation record's losses in two runs."""
    one, other = read_eval_records(found), read_eval_records(expected)
    assert (one.records, one.hashes, one.tokens.tolist()) == (other.records, other.hashes, other.tokens.tolist())
    assert one.losses.keys() == other.losses.keys()
    for step, losses in one.losses.items():
        assert losses == pytest.approx(other.losses[step], rel=1e-4)


@pytest.fixture(scope="module")
def sharded_full(launch, settings, tmp_path_factory):
    """Full fine-tuning on two ranks."""
    out = tmp_path_factory.mktemp("sharded") / "two"
    chosen = {**settings, "method": "full", "fsdp": "true", "save_steps": 4}
    return out, chosen, launch(out, chosen, 2)


@pytest.mark.slow
def test_full_fine_tuning_on_two_ranks_has_the_curve_of_one(launch, sharded_full, tmp_path):
    out, chosen, printed = sharded_full
    launch(tmp_path / "one", {**chosen, "fsdp": "false"})
    one, two = history(tmp_path / "one"), history(out)
    assert one[1]["loss"] - one[-2]["loss"] > 0.1
    assert_same_curve(two, one)
    assert_same_records(out, tmp_path / "one")
    trained, expected = load_file(out / "model.safetensors"), load_file(tmp_path / "one" / "model.safetensors")
    assert trained.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(trained[name], tensor, rtol=1e-3, atol=1e-5)
    assert "on 2 x cpu on 1 nodes, float32, sharded over 2 (FSDP2)" in printed
    assert "16 a step: 2 micro-batches a rank" in printed


def test_a_step_of_128_is_128_examples_on_any_number_of_ranks(launch, settings, tmp_path):
    chosen = {**settings, "data": "seeds", "cutoff_len": 1024, "batch_size": 128, "max_steps": 1, "val_set_size": 0}
    launch(tmp_path / "one", chosen)
    launch(tmp_path / "two", chosen, 2)
    assert_same_curve(history(tmp_path / "two"), history(tmp_path / "one"))


def test_losses_by_record_are_gathered_from_two_ranks(launch, settings, tmp_path):
    chosen = {**settings, "max_steps": 1, "max_tokens": 300}
    launch(tmp_path / "one", chosen)
    launch(tmp_path / "two", chosen, 2)
    assert list(read_eval_records(tmp_path / "one").losses) == [0, 1]
    assert_same_records(tmp_path / "two", tmp_path / "one")


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["tree", "padded"])
def test_conversations_on_two_ranks_have_the_curve_of_one(launch, settings, tmp_path, layout):
    """Also with answers that are not learned, prompts that are, and one rank in another layout."""
    rows = [
        {"messages": [
            {"role": role, "content": f"{word} {number} {turn}", "weight": int(turn != number % 4)}
            for turn in range(3) for role, word in (("user", "Say"), ("assistant", "So"))
        ]} for number in range(60)
    ]  # fmt: skip
    (tmp_path / "talks.json").write_text(json.dumps(rows), encoding="utf-8")
    (tmp_path / "zephyr.jinja").write_text(CHATS["zephyr"].template, encoding="utf-8")
    chosen = {**settings, "data": tmp_path / "talks.json", "prompt_template": tmp_path / "zephyr.jinja"}
    chosen |= {"max_steps": 3, "train_on_inputs": "true", "gradient_checkpointing": "true"}
    launch(tmp_path / "one", {**chosen, "layout": "packed"})
    launch(tmp_path / "two", {**chosen, "layout": layout}, 2)
    assert_same_curve(history(tmp_path / "two"), history(tmp_path / "one"), norm=1e-4)
    assert_same_records(tmp_path / "two", tmp_path / "one")
    one, two = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("one", "two"))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {"method": "full", "layout": "padded"},
        {"method": "lora", "layout": "tree", "lora_target_modules": "all-linear", "gradient_checkpointing": "true"},
        {"method": "lora", "layout": "padded"},
        {"method": "lora", "layout": "packed", "neftune_noise_alpha": 15},  # each example's draw is its own
    ],
    ids=lambda change: f"{change['method']}-{change['layout']}",
)
def test_copies_and_shards_have_the_curve_of_one(launch, settings, tmp_path, change):
    settings = {**settings, **change, "max_steps": 5}
    launch(tmp_path / "one", settings)
    launch(tmp_path / "shards", {**settings, "fsdp": "true"}, 2)
    assert_same_curve(history(tmp_path / "shards"), history(tmp_path / "one"))
    if change["method"] == "lora":
        launch(tmp_path / "copies", settings, 2)
        assert_same_curve(history(tmp_path / "copies"), history(tmp_path / "one"), norm=1e-5)
        one, *others = (
            load_file(tmp_path / name / "adapter_model.safetensors") for name in ("one", "shards", "copies")
        )
        for other in others:
            assert other.keys() == one.keys()
            for name, tensor in one.items():
                torch.testing.assert_close(other[name], tensor, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("change", [{}, {"fsdp": "true"}, {"objective": "orpo"}], ids=["copies", "shards", "orpo"])
def test_pairs_on_two_ranks_have_the_curve_of_one(launch, settings, tmp_path, change):
    """Rewards too; the reference is computed by both, each its own packs."""
    rows = [
        {"instruction": f"Say {number}", "chosen": f"So {number}", "rejected": f"No: {'so ' * (number % 7)}{number}"}
        for number in range(60)
    ]
    (tmp_path / "pairs.json").write_text(json.dumps(rows), encoding="utf-8")
    chosen = {**settings, "objective": "dpo", "data": tmp_path / "pairs.json", "max_steps": 3, "max_tokens": 300}
    chosen |= {"eval_steps": 2, "learning_rate": 1e-3}
    launch(tmp_path / "one", {**chosen, **change, "fsdp": "false"})
    launch(tmp_path / "two", {**chosen, **change}, 2)
    one, two = history(tmp_path / "one"), history(tmp_path / "two")
    assert_same_curve(two, one)
    assert_same_records(tmp_path / "two", tmp_path / "one")
    for found, expected in zip(two, one, strict=True):
        for key in expected:
            if "rewards" in key:
                assert found[key] == pytest.approx(expected[key], abs=2e-5), key
    assert one[-1]["eval_rewards/margins"] > 0


@pytest.mark.slow
def test_a_sharded_checkpoint_resumes_on_one_rank_and_on_two(launch, sharded_full, tmp_path):
    out, chosen, _ = sharded_full
    shards = out / "checkpoints" / "checkpoint-4" / "pytorch_model_fsdp_0"
    assert len(list(shards.glob("*.distcp"))) == 2  # each rank wrote its own
    for ranks in (1, 2):
        again = tmp_path / f"on-{ranks}"
        shutil.copytree(out, again, ignore=shutil.ignore_patterns("checkpoint-8", "*.safetensors"))
        file = again / "alpaca_lora.json"
        file.write_text(
            file.read_text(encoding="utf-8").replace('"finished": true', '"finished": false'), encoding="utf-8"
        )
        launch(again, {**chosen, "resume": "true"}, ranks)
        assert_same_curve(history(again), history(out))
        found, expected = load_file(again / "model.safetensors"), load_file(out / "model.safetensors")
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_the_folder_of_a_sharded_run_loads_in_plain_transformers(sharded_full, settings):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out, chosen, _ = sharded_full
    model, loading = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not any(loading[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert AutoTokenizer.from_pretrained(out).eos_token == "</s>"
    plain = {key: value for key, value in chosen.items() if key != "fsdp"}
    validation = prepare(FinetuneConfig(output_dir="unused", **plain), chosen["base_model"]).validation
    total, count = 0.0, 0
    for index in range(len(validation)):
        ids, prompt_len = validation[index]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor(ids[None], dtype=torch.long)).logits[0, prompt_len - 1 : -1]
        targets = torch.tensor(ids[prompt_len:], dtype=torch.long)
        total += torch.nn.functional.cross_entropy(logits.float(), targets, reduction="sum").item()
        count += len(targets)
    assert total / count == pytest.approx(history(out)[-1]["eval_loss"], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_best_evaluations_weights_are_kept_from_shards(run, settings, tmp_path, method):
    """It is the one after step 4 on any machine; kept weights have its losses, record by record, in plain torch."""
    chosen = {**settings, "method": method, "fsdp": "true", "keep": "best", "eval_steps": 4, "max_steps": 8}
    chosen |= {"warmup_steps": 0}
    ended = run.run(["--worse_after", "5", *options(tmp_path / "out", chosen)], ranks=2, fsdp=True)
    assert ended.code == 0, ended.printed
    assert "Kept: the weights after step 4 of 8, the best evaluation" in ended.printed
    plain = {key: value for key, value in chosen.items() if key != "fsdp"}
    validation = prepare(FinetuneConfig(output_dir="unused", **plain), chosen["base_model"]).validation
    found, losses = read_eval_records(tmp_path / "out"), []
    model = load(tmp_path / "out").model
    for index in range(len(validation)):
        ids, prompt_len = validation[index]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor(ids[None], dtype=torch.long)).logits[0, prompt_len - 1 : -1]
        targets = torch.tensor(ids[prompt_len:], dtype=torch.long)
        losses.append(torch.nn.functional.cross_entropy(logits.float(), targets, reduction="sum").item())
    assert losses == pytest.approx(found.losses[4], rel=1e-4)
    assert losses != pytest.approx(found.losses[8], rel=1e-4)


# The folder


@pytest.mark.parametrize("base", ["short_base", "short_base_bpe"])
def test_a_model_is_written_shard_by_shard(request, base, tmp_path):
    model = load_model(request.getfixturevalue(base), FLOAT32)
    save_model(model, tmp_path, torch.float32, shard_bytes=100_000)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    again = load_model(str(tmp_path), FLOAT32)
    for (name, tensor), (_, expected) in zip(again.named_parameters(), model.named_parameters(), strict=True):
        assert torch.equal(tensor, expected), name


def test_a_model_with_nan_is_not_written(short_base, tmp_path):
    model = load_model(short_base, FLOAT32)
    with torch.no_grad():
        model.model.norm.weight[3] = float("nan")
    with pytest.raises(TrainingError, match=r"NaN or Inf in 1 weight, first \['model.norm.weight'\]"):
        save_model(model, tmp_path, torch.float32)


# Where it cannot happen


def test_one_process_has_nothing_to_shard_over(settings, tmp_path):
    with pytest.raises(ConfigError, match="fsdp: there is one process only.*torchrun --nproc_per_node"):
        finetune(output_dir=tmp_path / "out", **{**settings, "fsdp": True})


def test_on_cpus_accelerate_would_quietly_train_copies(run, settings, tmp_path):
    ended = run.run(options(tmp_path / "out", {**settings, "fsdp": "true"}), ranks=2)
    assert ended.code != 0
    assert ": fsdp: there is no GPU here" in ended.printed
    # The rank that is through first ends the other, in the middle of whatever it does: an empty lock may stay.
    assert {path.name for path in (tmp_path / "out").glob("*")} <= {".lock"}


def test_parameters_that_are_not_sharded_stop_the_run(tiny_llama):
    with pytest.raises(TrainingError, match="fsdp: was asked for, but .* parameters are not sharded, first"):
        check_sharded(tiny_llama())


# Two nodes


def start_nodes(out, settings):
    """Two torchrun agents on loopback, a rank each."""
    torchrun = ["--nnodes=2", "--nproc_per_node=1", "--max_restarts=0", "--rdzv_backend=c10d", "--rdzv_id=test"]
    torchrun.append(f"--rdzv_endpoint=127.0.0.1:{free_port()}")
    return [
        subprocess.Popen(
            command(out, settings, *torchrun),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for _ in range(2)
    ]


def children(pid):
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="reads /proc")
def test_two_nodes_finish_a_run(settings, tmp_path):
    agents = start_nodes(tmp_path / "out", {**settings, "max_steps": 2})
    printed = [agent.communicate(timeout=1500)[0] for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], printed
    assert any("on 2 x cpu on 2 nodes, float32, a whole copy on each" in text for text in printed)
    assert [line["step"] for line in history(tmp_path / "out")] == [0, 1, 2, 2]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="reads /proc")
def test_a_killed_rank_ends_the_job(settings, tmp_path):
    agents = start_nodes(tmp_path / "out", {**settings, "max_steps": 10_000})
    deadline = time.monotonic() + 600
    while not (tmp_path / "out" / "history.jsonl").exists() or len(history(tmp_path / "out")) < 3:
        assert time.monotonic() < deadline and all(agent.poll() is None for agent in agents)
        time.sleep(0.2)
    workers = [pid for agent in agents for pid in children(agent.pid)]
    os.kill(children(agents[1].pid)[-1], signal.SIGKILL)
    printed = [agent.communicate(timeout=600)[0] for agent in agents]
    assert all(agent.returncode != 0 for agent in agents)
    assert "Signal 9 (SIGKILL)" in printed[1]
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]
