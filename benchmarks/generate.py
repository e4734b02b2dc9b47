"""Batched generation against one answer at a time: the same greedy answers, faster.

    python benchmarks/generate.py --instructions user_oriented_instructions.jsonl [--model demo] [--max_new_tokens 64]

Reads instruction and input of every line (Self-Instruct's format, or instruction/input records), answers them with
`LocalModel.answers` in batches and one by one, both in this process, and compares texts. The order of the two is
turned round with --reverse. Prints seconds, CPU seconds (which others on the machine
change less), tokens a second, and how many answers are the same.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from alpaca_lora import Sampling, load


def read(path: str) -> list[tuple[str, str]]:
    """Pairs of instruction and input."""
    rows = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
    return [(row["instruction"], (row.get("instances") or [row])[0].get("input") or "") for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--instructions", required=True)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--max_new_tokens", type=int, default=64)
    parser.add_argument("--max_rows", type=int, default=32)
    parser.add_argument("--limit", type=int, default=None)
    parser.add_argument("--reverse", action="store_true", help="one by one first")
    options = parser.parse_args()

    model, sampling = load(options.model), Sampling(max_new_tokens=options.max_new_tokens)
    requests = read(options.instructions)[: options.limit]
    model.generate("Warm up.", "", Sampling(max_new_tokens=4))

    def together() -> list[str]:
        return model.answers(requests, sampling, max_rows=options.max_rows)

    def one_by_one() -> list[str]:
        return [model.generate(instruction, input, sampling) for instruction, input in requests]

    found: dict[str, Any] = {}
    ways = {"together": together, "one by one": one_by_one}
    for name in reversed(ways) if options.reverse else ways:
        start, cpu = time.perf_counter(), time.process_time()
        found[name] = (ways[name](), time.perf_counter() - start, time.process_time() - cpu)
    for name, (answers, seconds, cpu_seconds) in found.items():
        tokens = sum(len(model.encoder.response_ids(answer)) for answer in answers)
        print(f"{name:10}  {seconds:7.1f} s  {cpu_seconds:7.1f} CPU s  {tokens / seconds:6.1f} tokens/s")
    same = sum(a == b for a, b in zip(found["together"][0], found["one by one"][0], strict=True))
    print(
        f"{found['one by one'][1] / found['together'][1]:.2f} times as fast, "
        f"{found['one by one'][2] / found['together'][2]:.2f} by CPU time; {same} of {len(requests)} answers are the "
        f"same; {torch.get_num_threads()} threads, {model.model.dtype}, torch {torch.__version__}"
    )


if __name__ == "__main__":
    main()
