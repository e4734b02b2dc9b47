"""Everything to measure on a borrowed GPU, in commands of at most nine minutes that need no network.

    python benchmarks/gpu.py --data alpaca.json --write-lengths lengths.npz     # before: where a tokenizer is
    PYTHONPATH=src python benchmarks/gpu_day.py 1 --lengths lengths.npz         # versions, tests for a GPU, exactness
    PYTHONPATH=src python benchmarks/gpu_day.py 2 --lengths lengths.npz         # 7B LoRA: casts, none, compile, liger
    PYTHONPATH=src python benchmarks/gpu_day.py 3 --lengths lengths.npz         # packed, padded, other trainers
    PYTHONPATH=src python benchmarks/gpu_day.py 4 --lengths lengths.npz         # QLoRA 7B and 13B, 7B in full: memory
    PYTHONPATH=src python benchmarks/gpu_day.py table                           # the Markdown of docs/performance.md
    PYTHONPATH=src python benchmarks/gpu_day.py 2 --device cpu --model tiny     # a rehearsal

Each row is written to `--out` (gpu_day.json) as soon as it is measured, and a row that is there is not measured again:
where `--seconds` are over, give the same command once more. To carry, 64 MiB at most: wheels of transformers, peft,
accelerate, liger-kernel and trl; for part 4 bitsandbytes (43 MB, in a second session if need be); for the tests pytest,
pytest-timeout and hypothesis. Unsloth is no row: it trains checkpoints by name, not a shape. Part 4 writes two random
models, 40 GB in all, to `--bases`. What a row is: benchmarks/gpu.py.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import gpu
import torch

PACKAGES = ("torch", "triton", "transformers", "peft", "accelerate", "bitsandbytes", "liger-kernel", "trl")
ROOT = Path(__file__).parents[1]


def row(name: str, layout: str | None, tokens: int, checkpointing: bool = False, **more: Any) -> dict[str, Any]:
    """A row of benchmarks/gpu.py."""
    return {"name": name, "layout": layout, "max_tokens": tokens, "gradient_checkpointing": checkpointing, **more}


def rows(part: str, model: str, tokens: int) -> list[dict[str, Any]]:
    """What a part measures."""
    second = "13b" if model == "7b" else model
    if part == "2":
        variants = ("tree+casts", "tree", "tree+compile", "tree+liger")
        return [row(name, "tree", tokens, profile=True) for name in variants]
    if part == "3":
        ours = [row(layout, layout, tokens) for layout in ("packed", "padded")]
        return [*ours, *(row(name, None, tokens) for name in gpu.PEERS)]
    quantised = {"layout": "tree", "tokens": tokens, "checkpointing": True, "method": "qlora"}
    return [
        row("qlora", model=model, **quantised),
        row("qlora, larger", model=second, **quantised),
        row("full, 8-bit AdamW", "tree", tokens, True, model=model, method="full", optimizer="adamw_8bit"),
    ]


def described(args: argparse.Namespace) -> dict[str, Any]:
    """Device and versions."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    device = torch.cuda.get_device_name() if args.device == "cuda" else f"CPU, {platform.machine()}"
    return {"device": device, "python": platform.python_version(), "versions": found}


def check(args: argparse.Namespace, examples: Any) -> dict[str, Any]:
    """The tests marked `cuda`, and the layouts against the dense mask."""
    tests = [sys.executable, "-m", "pytest", "-q", "-m", "cuda", "-p", "no:cacheprovider", "tests/cuda"]
    ended = subprocess.run(tests, cwd=ROOT, capture_output=True, text=True)
    print(ended.stdout[-4000:], flush=True)
    found = {"tests": ended.stdout.strip().splitlines()[-1], "tests_exit_code": ended.returncode}
    for dtype in (torch.float32, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        found[name] = gpu.differences(examples, argparse.Namespace(**{**vars(args), "dtype": dtype}))
        for layout, (loss, gradients) in found[name].items():
            print(f"exact? {name:8} {layout:6} against dense: loss {loss:.1e}, gradients {gradients:.1e}", flush=True)
    return found


def table(report: dict[str, Any]) -> str:
    """All parts as Markdown."""
    known = ", ".join(f"{name} {number}" for name, number in report["versions"].items() if number)
    lines = [f"{report['device']}, Python {report['python']}, {known}. {report['source']}.", ""]
    if "check" in report:
        lines += [f"Tests for a GPU: {report['check']['tests']}.", ""]
        lines += ["| against the dense mask | loss | LoRA gradients |", "|---|---:|---:|"]
        for dtype in ("float32", "bfloat16"):
            for layout, (loss, gradients) in report["check"][dtype].items():
                lines.append(f"| {dtype}, `{layout}` | {loss:.1e} | {gradients:.1e} |")
        lines.append("")
    lines.append(
        "| | max_tokens | s / step | tokens/s | examples/s | MFU | GiB | predicted | first loss | recipe, minutes |"
    )
    lines.append("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    for each in report["rows"]:
        name = f"{each.get('model', report['model'])} {each['name']}"
        if stopped := each.get("error") or each.get("skipped"):
            lines.append(f"| {name} | {each['max_tokens']:,} | {stopped} | | | | | | | |")
            continue
        predicted = f"{each['predicted_bytes'] / 2**30:.1f}" if "predicted_bytes" in each else ""
        lines.append(
            f"| {name} | {each['max_tokens']:,} | {each['seconds']:.3f} | {each['computed_per_second']:,.0f} | "
            f"{each['examples_per_second']:.1f} | {each['mfu']:.1%} | {each['peak_bytes'] / 2**30:.1f} | {predicted} | "
            f"{each['first_loss']:.5f} | {each['recipe_seconds'] / 60:.1f} |"
        )
    profiled = [each for each in report["rows"] if "profile_ms" in each]
    if profiled:
        groups = sorted({group for each in profiled for group in each["profile_ms"]})
        lines += ["", "| ms of a step | " + " | ".join(each["name"] for each in profiled) + " |"]
        lines.append("|---|" + "---:|" * len(profiled))
        for group in groups:
            took = (f"{each['profile_ms'].get(group, 0):.1f}" for each in profiled)
            lines.append(f"| {group} | " + " | ".join(took) + " |")
    return "\n".join(lines)


def parse() -> argparse.Namespace:
    """The command line; what is left out is that of benchmarks/gpu.py."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["1", "2", "3", "4", "table"])
    parser.add_argument("--out", type=Path, default=Path("gpu_day.json"), metavar="FILE")
    parser.add_argument("--bases", type=Path, default=Path("gpu_day_bases"), metavar="FOLDER")
    parser.add_argument("--seconds", type=float, default=500, help="begin no row after so many, default %(default)s")
    parser.add_argument("--tokens", type=int, default=8192, help="max_tokens of a row, default %(default)s")
    chosen, rest = parser.parse_known_args()
    args = gpu.parse(rest)
    args.part, args.out, args.bases, args.seconds, args.tokens = vars(chosen).values()
    return args


def main() -> int:
    """One part; the exit code is 1 where rows are left or one failed."""
    args, started = parse(), time.monotonic()
    report = json.loads(args.out.read_text(encoding="utf-8")) if args.out.exists() else {"rows": []}
    if args.part == "table":
        print(table(report))
        return 0
    args.dtype = torch.bfloat16 if args.device == "cuda" else torch.float32
    examples, source = gpu.load_examples(args)
    report |= {**described(args), "source": source, "model": args.model}
    args.peak = gpu.PEAKS.get(report["device"], 0) * 1e12 or gpu.gemm_rate(args)
    left, failed = 0, False
    if args.part == "1":
        report["check"] = check(args, examples)
        failed = report["check"]["tests_exit_code"] not in (0, 5)  # 5: none was chosen
    for each in rows(args.part, args.model, args.tokens) if args.part != "1" else []:
        known = {(done["name"], done.get("model")) for done in report["rows"]}
        if (each["name"], each.get("model")) in known:
            continue
        if time.monotonic() - started > args.seconds:
            left += 1
            continue
        report["rows"].append(gpu.measure(each, args, examples))
        failed = failed or "error" in each
        print(gpu.line(each), flush=True)
        args.out.write_text(json.dumps(report, indent=1, default=str) + "\n", encoding="utf-8")
    args.out.write_text(json.dumps(report, indent=1, default=str) + "\n", encoding="utf-8")
    print(table(report))
    if left:
        print(f"{left} rows are left: the same command goes on.", file=sys.stderr)
    return int(failed or left > 0)


if __name__ == "__main__":
    sys.exit(main())
