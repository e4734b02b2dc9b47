"""Resident memory over many `finetune` calls in one process, as a notebook makes them.

    python benchmarks/repeat.py                       # 20 runs of the demo model, about 20 minutes on 2 cores
    python benchmarks/repeat.py --base_model FOLDER   # another base

Each run trains an adapter, answers with it, is shown, and is let go: what a notebook's cell does when it is run again.
Printed after each: resident memory, and its growth over that after the third run (libraries load until then).
"""

from __future__ import annotations

import argparse
import gc
import tempfile
from pathlib import Path

import psutil

from alpaca_lora import finetune


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base_model", default="demo")
    parser.add_argument("--method", default="lora")
    parser.add_argument("--runs", type=int, default=20)
    args = parser.parse_args()
    settings = {"base_model": args.base_model, "data": "seeds", "batch_size": 8, "max_steps": 2, "cutoff_len": 256}
    sizes: list[int] = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(1, args.runs + 1):
            out = Path(folder) / str(number)
            run = finetune(**settings, method=args.method, val_set_size=10, output_dir=str(out))
            run.generate("Name three fruits.", max_new_tokens=8)
            del run
            gc.collect()
            sizes.append(psutil.Process().memory_info().rss)
            third = sizes[min(number, 3) - 1]
            print(f"run {number:2}: {sizes[-1] / 2**20:6.0f} MiB, {sizes[-1] / third - 1:+.1%} since run 3", flush=True)


if __name__ == "__main__":
    main()
