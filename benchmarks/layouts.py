"""The three layouts over a run: the same loss curve on a real model.

    python benchmarks/layouts.py --data FILE

20 optimizer steps of 32 records each on the demo model (LoRA on all linear modules, dropout 0, float32), once in each
layout; prints each step's loss and the largest relative difference from `padded`.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from alpaca_lora import finetune


def main() -> None:
    """Run and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="seeds")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--cutoff_len", type=int, default=512)
    chosen = parser.parse_args()
    curves: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for layout in ("padded", "packed", "tree"):
            run = finetune(
                base_model="demo",
                data=chosen.data,
                output_dir=Path(scratch) / layout,
                layout=layout,
                batch_size=chosen.batch_size,
                max_steps=chosen.steps,
                cutoff_len=chosen.cutoff_len,
                val_set_size=0,
                lora_dropout=0.0,
                lora_target_modules="all-linear",
                dtype="float32",
                save_steps=10**6,
            )
            curves[layout] = [line["loss"] for line in run.history]
            seconds = run.metrics["train_seconds"]
            print(f"{layout:8} {seconds:7.1f} s  {run.metrics['computed_tokens']:,} tokens computed", flush=True)
    print("step  " + "".join(f"{layout:>12}" for layout in curves))
    for step, losses in enumerate(zip(*curves.values(), strict=True), start=1):
        print(f"{step:4}  " + "".join(f"{loss:12.7f}" for loss in losses))
    for layout in ("packed", "tree"):
        pairs = zip(curves[layout], curves["padded"], strict=True)
        print(f"{layout}: largest relative difference from padded {max(abs(a - b) / b for a, b in pairs):.1e}")


if __name__ == "__main__":
    main()
