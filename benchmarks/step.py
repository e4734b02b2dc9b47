"""How long one optimizer step takes, ours and other people's: the same records, model, LoRA settings and threads.

    pip install trl==1.16.0      # the peer; not a dependency of alpaca_lora
    python benchmarks/step.py --data ../shared/data/alpaca_en_demo.json --data seeds --json step.json

A step is 64 records through the demo model (SmolLM2-135M) in float32 on a CPU: forward, backward and optimizer, from
the Trainer's `on_step_begin` to its `on_step_end`. LoRA of rank 8 on q_proj and v_proj, dropout 0, template `alpaca`,
at most 512 tokens a record. Each contestant has a fresh process of its own, which waits while another one computes,
and they take their steps in turn, so that a machine that slows down slows down all of them alike. One step each warms
up, `--repeats` more are measured; a figure is their median. All live at once, so each hands back what it has freed
after its turn (else all seven would hold their peaks, 30 GB); touching it anew costs all of them 1-2% of a step.

    hf-padded     transformers.Trainer, micro-batches of 8, records in the order given, padded to the longest
    trl-default   TRL's SFTTrainer at its defaults: padded micro-batches of 8, gradient checkpointing on
    trl-grouped   the same with train_sampling_strategy="group_by_length"
    trl-no-ckpt   trl-default with gradient checkpointing off
    padded, packed, tree   alpaca_lora's layouts, max_tokens at its default

With `--conversations` the records are conversations, and the template is the demo model's own chat template. hf-padded
has a row for each turn, of our ids and labels, and TRL's contestants are others:

    trl-turns          a row a turn, prompt and completion; the loss is over the completion, as is its default
    trl-turns-marked   the same with assistant_only_loss
    trl-whole          a row a conversation, assistant_only_loss
    trl-whole-no-ckpt  the same with gradient checkpointing off

assistant_only_loss needs the assistant's tokens marked in the template: TRL gets the demo model's with such marks. The
line feed behind a turn's end belongs to TRL's completion, so that `trl-turns` learns one token a turn more and its loss
is another; the answer is over by then, and neither the marks nor we have it.

With `--pairs` the records are preferences (the rejected answer is the next record's output), and a step is one of DPO:

    trl-dpo              TRL's DPOTrainer at its defaults: gradient checkpointing on, the reference in each step
    trl-dpo-no-ckpt      the same with gradient checkpointing off
    trl-dpo-precomputed  and with precompute_ref_log_probs: the reference before the first step, as ours is

What the reference takes before the first step is no part of a step here; `padded`, `packed` and `tree` write it down
beside their settings. Divide it by the epochs that a run has to compare with TRL's defaults.

TRL's defaults are left alone but for bf16 (off: it is the slower one on a CPU), max_length (512, ours) and the
learning rate. A step of the peers is all of their rows, in micro-batches of 8, the last one smaller if need be. Of
records TRL tokenises prompt and completion together, so its ids may differ by a few tokens, and it cuts the EOS of
records that are too long; its loss then differs by as much.

The first step of every contestant is compared to hf-padded's (padded's if that is not asked for): its loss, and its
gradients, clipped as the optimizer gets them, by the norm of their difference. CPU seconds well below threads x seconds
mean that the machine was busy with something else: measure again, or with one thread, whose CPU seconds depend on that
the least. Useful work (`useful_flops`) and the machine's matrix product rate give the share of that rate.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from safetensors.numpy import load_file

CONTESTANTS = ("hf-padded", "trl-default", "trl-grouped", "trl-no-ckpt", "padded", "packed", "tree")
CHATTING = ("hf-padded", "trl-turns", "trl-turns-marked", "trl-whole", "trl-whole-no-ckpt", "padded", "packed", "tree")
OF_PAIRS = ("trl-dpo", "trl-dpo-no-ckpt", "trl-dpo-precomputed", "padded", "packed", "tree")
REFERENCES = ("hf-padded", "padded")
WORKER = Path(__file__).with_name("_step_worker.py")


def useful_flops(
    shape: dict[str, int], tokens: int, supervised: int, visible_pairs: int, lora_r: int
) -> dict[str, int]:
    """Floating-point operations (2 x multiply-adds) that one LoRA step cannot do without, by part.

    Frozen weights need a product in the forward pass and one for the gradient of their input, but none for their own
    gradient. The first layer's q, k and v have no input gradient either: nothing below them trains. With W the
    parameters of a layer's linear modules, T tokens, M supervised tokens, P pairs of a token and one it sees:

        linear      4 W T layers - 2 W_qkv T
        head        4 hidden vocabulary M                   forward and input gradient, where a loss is
        attention   12 hidden P layers                      2 products forward (scores, values), 4 backward
        lora        6 r (in + out of q and v) T layers      forward, input gradient, weight gradient

    Norms, rotary embeddings, softmax and the optimizer are not counted, nor is anything computed twice.

    Args:
        shape: layers, hidden, mlp, vocabulary, query_width and key_width (heads x head size) of the model.
        tokens: Tokens of the step with every shared prefix once: one tree of all its records.
        supervised: Tokens with a loss.
        visible_pairs: Sum over tokens of the tokens each one sees, itself included.
        lora_r: Rank of LoRA on q_proj and v_proj.
    """
    hidden, layers, query, key = shape["hidden"], shape["layers"], shape["query_width"], shape["key_width"]
    qkv = hidden * (query + 2 * key)
    weights = qkv + query * hidden + 3 * hidden * shape["mlp"]
    return {
        "linear": 4 * weights * tokens * layers - 2 * qkv * tokens,
        "head": 4 * hidden * shape["vocabulary"] * supervised,
        "attention": 12 * query * visible_pairs * layers,
        "lora": 6 * lora_r * (hidden + query + hidden + key) * tokens * layers,
    }


class Worker:
    """A contestant in its process: `ready` once it waits for its first step, then `step()` as often as is wanted."""

    def __init__(self, name: str, job: dict[str, Any], logs: Path) -> None:
        self.name, self.log = name, logs / f"{name}.log"
        threads = str(job["threads"])
        quiet = {"CUDA_VISIBLE_DEVICES": "", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_TELEMETRY": "1"}
        with self.log.open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, str(WORKER), json.dumps({**job, "contestant": name})],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**os.environ, **quiet, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads},
            )
        self.ready = self._answer()

    def step(self) -> dict[str, Any]:
        """One more step; what it took, or {"skip": reason}."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write("go\n")
            self.process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()

    def _answer(self) -> dict[str, Any]:
        line = self.process.stdout.readline()
        if line:
            return json.loads(line)
        tail = "\n      ".join(self.log.read_text(errors="replace").splitlines()[-12:])
        return {"skip": f"it stopped with exit code {self.process.wait()}:\n      {tail}"}


def measure(names: list[str], job: dict[str, Any], logs: Path) -> dict[str, Any]:
    """Run the contestants on one data set, in turn, and the machine's matrix products between them.

    Returns:
        "work" (the step itself), "gflops_by_product" (median rate of each matrix product) and "contestants": for each
        its steps, or the reason why it was skipped.
    """
    workers: dict[str, Worker] = {}
    steps: dict[str, list[dict[str, Any]]] = {}
    skipped: dict[str, str] = {}
    try:
        for name in ["gemm", *names]:  # one after the other: loading is not measured, but it would disturb
            say(f"  starting {name}")
            workers[name] = Worker(name, job, logs)
            steps[name] = []
        for turn in range(1 + job["repeats"]):
            for name, worker in workers.items():
                if name in skipped:
                    continue
                answer = worker.ready if "skip" in worker.ready else worker.step()
                if "skip" in answer:
                    skipped[name] = answer["skip"]
                    say(f"  {name}: skipped, {answer['skip']}")
                    continue
                steps[name].append(answer)
                if name != "gemm":
                    label = "warm-up" if turn == 0 else f"step {turn}"
                    took = f"{answer['seconds']:7.2f} s, {answer['cpu_seconds']:7.2f} s of CPU"
                    say(f"  {label}  {name:17} {took}  loss {answer['loss']:.6f}")
    finally:
        for worker in workers.values():
            worker.close()
    if "gemm" in skipped:
        raise SystemExit(1)
    reference = next((name for name in REFERENCES if name in names and name not in skipped), "")
    rates = {product: median(turn[product] for turn in steps["gemm"]) for product in steps["gemm"][0]}
    return {
        "work": workers["gemm"].ready,
        "gflops_by_product": rates,
        "contestants": {
            name: {"skipped": skipped[name]}
            if name in skipped
            else summary(steps[name], workers[name].ready) | compared(name, reference, steps, logs)
            for name in names
        },
        "reference": reference,
    }


def compared(name: str, reference: str, steps: dict[str, list[dict[str, Any]]], folder: Path) -> dict[str, float]:
    """Relative differences of a contestant's first step from the reference's; none if there is no reference."""
    if not reference:
        return {}
    ours, theirs = (load_file(folder / f"{each}.safetensors") for each in (name, reference))
    assert ours.keys() == theirs.keys(), f"{name} and {reference} train other tensors"
    apart = sum(float(np.square(ours[each] - theirs[each], dtype=np.float64).sum()) for each in theirs)
    size = sum(float(np.square(each, dtype=np.float64).sum()) for each in theirs.values())
    return {
        "loss_difference": steps[name][0]["loss"] / steps[reference][0]["loss"] - 1,
        "gradient_difference": (apart / size) ** 0.5,
    }


def summary(steps: list[dict[str, Any]], ready: dict[str, Any]) -> dict[str, Any]:
    """Figures of a contestant; the first step is the warm-up."""
    measured = steps[1:]
    seconds = [step["seconds"] for step in measured]
    return {
        "computed_tokens": round(median(step["computed_tokens"] for step in measured)),
        "supervised_tokens": measured[0]["supervised_tokens"],
        "first_loss": steps[0]["loss"],
        "losses": [step["loss"] for step in steps],
        "seconds": median(seconds),
        "seconds_all": seconds,
        "seconds_warm_up": steps[0]["seconds"],
        "cpu_seconds": median(step["cpu_seconds"] for step in measured),
        "peak_rss_bytes": steps[-1]["peak_rss_bytes"],
        "rss_before_first_step_bytes": ready["peak_rss_bytes"],
        "settings": ready["settings"],
    }


def add_ratios(result: dict[str, Any], lora_r: int) -> None:
    """Add what follows from the measured figures: seconds against each other, and the share of the rate."""
    ran = {name: row for name, row in result["contestants"].items() if "skipped" not in row}
    work = result["work"]
    parts = useful_flops(work["shape"], work["tokens"], work["supervised"], work["visible_pairs"], lora_r)
    result["useful_flops"] = {**parts, "total": sum(parts.values())}
    result["gflops"] = max(result["gflops_by_product"].values())
    for row in ran.values():
        row["share_of_gemm_rate"] = result["useful_flops"]["total"] / row["seconds"] / (result["gflops"] * 1e9)
        if "tree" in ran:
            row["times_tree"] = row["seconds"] / ran["tree"]["seconds"]


def table(result: dict[str, Any]) -> str:
    """The figures of one data set as text."""
    work, useful = result["work"], result["useful_flops"]
    products = ", ".join(f"{name} {rate:.0f}" for name, rate in result["gflops_by_product"].items())
    parts = ", ".join(f"{name} {flops / useful['total']:.0%}" for name, flops in useful.items() if name != "total")
    lines = [
        f"machine: {result['gflops']:.0f} GFLOP/s, the best of its float32 products ({products})",
        f"useful work: {useful['total'] / 1e12:.2f} TFLOP a step ({parts}): {work['tokens']:,} tokens as one tree, "
        f"{work['supervised']:,} supervised, {work['visible_pairs']:,} visible pairs",
        f"{work['cut_records']} of the records are cut; TRL cuts their EOS too, and its loss differs by as much",
        f"differences of the first step are from {result['reference'] or 'nothing'}",
        "",
        f"{'contestant':17} {'computed':>9} {'superv.':>8} {'first loss':>10} {'differs':>8} {'gradient':>8} "
        f"{'s / step':>9} {'min - max':>16} {'CPU s':>7} {'x tree':>7} {'peak RSS':>9} {'of GEMM':>8}",
    ]
    for name, row in result["contestants"].items():
        if "skipped" in row:
            lines.append(f"{name:17} skipped: {row['skipped'].splitlines()[0]}")
            continue
        difference = f"{row['loss_difference']:+.1e}" if "loss_difference" in row else "-"
        gradient = f"{row['gradient_difference']:.1e}" if "gradient_difference" in row else "-"
        times = f"{row['times_tree']:.2f}" if "times_tree" in row else "-"
        spread = f"{min(row['seconds_all']):.2f} - {max(row['seconds_all']):.2f}"
        lines.append(
            f"{name:17} {row['computed_tokens']:9,} {row['supervised_tokens']:8,} {row['first_loss']:10.6f} "
            f"{difference:>8} {gradient:>8} {row['seconds']:9.2f} {spread:>16} {row['cpu_seconds']:7.1f} {times:>7} "
            f"{row['peak_rss_bytes'] / 2**30:6.2f}GiB {row['share_of_gemm_rate']:8.1%}"
        )
    settings = {name: row["settings"] for name, row in result["contestants"].items() if "skipped" not in row}
    return "\n".join([*lines, "", *(f"{name:17} {text}" for name, text in settings.items())])


def say(text: str) -> None:
    """Progress, beside the results."""
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Read the command line, measure each data set, print a table each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", metavar="FILE|seeds", help="repeatable; default seeds")
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--conversations", action="store_true", help="the records are, and the model's own template")
    kinds.add_argument("--pairs", action="store_true", help="preferences made of the records; a step of DPO")
    parser.add_argument("--records", type=int, default=64, help="records a step, the data's first; a multiple of 8")
    parser.add_argument("--repeats", type=int, default=3, help="measured steps")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--max-tokens", type=int, help="of our packs; default: the library's")
    parser.add_argument("--contestants", metavar="NAME,NAME", help="default: all of the kind of records")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    args = parser.parse_args()
    known = CHATTING if args.conversations else OF_PAIRS if args.pairs else CONTESTANTS
    names = args.contestants.split(",") if args.contestants else list(known)
    if unknown := set(names) - set(known):
        parser.error(f"--contestants: unknown {', '.join(sorted(unknown))}; choose from {', '.join(known)}")
    if args.records < 8 or args.records % 8 or args.repeats < 1:
        parser.error("--records must be a multiple of 8 (the peers' micro-batch), --repeats at least 1")

    report: dict[str, Any] = {"machine": platform.platform(), "processor": _processor(), "cores": os.cpu_count()}
    report |= {key: getattr(args, key) for key in ("records", "repeats", "threads")} | {"lora_r": 8, "data": {}}
    report |= {"conversations": args.conversations, "pairs": args.pairs}
    for data in args.data or ["seeds"]:
        say(f"{data}: {args.records} records a step, {args.threads} threads, {args.repeats} repeats")
        job = {"data": data, "lora_r": 8, "cutoff_len": 512, "max_tokens": args.max_tokens, "pairs": args.pairs}
        job["template"] = "chat" if args.conversations else "alpaca"
        job |= {key: getattr(args, key) for key in ("records", "repeats", "threads")}
        with tempfile.TemporaryDirectory(prefix="alpaca-step-") as folder:
            result = measure(names, {**job, "folder": folder}, Path(folder))
        add_ratios(result, job["lora_r"])
        report["data"][data] = result
        print(f"\n{data}\n{table(result)}\n", flush=True)
        if args.json:  # after each data set, so that a run that is broken off leaves what it has
            args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _processor() -> str:
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    return platform.processor()


if __name__ == "__main__":
    main()
