"""How long planning takes and how much memory, for sets far larger than Alpaca's.

    python benchmarks/plan.py [--records 1000000] [--data seeds]

A synthetic set: prompt and response lengths are drawn from the given records, encoded with the demo model's tokenizer;
prompts start with one of the two preambles of the `alpaca` template, the rest is random. Measured is what a run does
before its first step and again at every epoch: `StepDataset` with layout `tree`, batch 128, one rank.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np

from alpaca_lora.data.plan import Planner
from alpaca_lora.data.records import load_records
from alpaca_lora.data.steps import StepDataset
from alpaca_lora.data.tokens import Encoder, Examples
from alpaca_lora.models.load import load_tokenizer, resolve_base
from alpaca_lora.prompts import Template

MIB = 2**20


def synthetic(real: Examples, count: int, vocabulary: int) -> Examples:
    """`count` examples with lengths of `real` and its shared preambles."""
    random = np.random.default_rng(0)
    drawn = random.integers(len(real), size=count)
    offsets = np.concatenate([[0], np.cumsum(real.lengths[drawn])])
    ids = random.integers(vocabulary, size=int(offsets[-1]), dtype=np.int32)
    heads = [real[int(k)].ids[: min(30, real[int(k)].prompt_len - 2)] for k in range(len(real))]
    for k, start in zip(drawn, offsets[:-1], strict=True):
        ids[start : start + len(heads[k])] = heads[k]
    return Examples(ids, offsets, real.prompt_lens[drawn], np.arange(1, count + 1, dtype=np.int32))


def peak_mib() -> float:
    """Most memory this process has had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MIB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--data", default="seeds")
    parser.add_argument("--max-tokens", type=int, default=2048)
    options = parser.parse_args()

    tokenizer = load_tokenizer(resolve_base("demo"))
    real = Encoder(tokenizer, Template.load("alpaca")).encode(load_records(options.data), cutoff_len=512)
    examples = synthetic(real, options.records, len(tokenizer))
    print(f"{len(examples):,} examples, {len(examples.ids):,} tokens; {peak_mib():,.0f} MiB before planning")

    planner = Planner(examples, "tree", options.max_tokens)
    started = time.perf_counter()
    dataset = StepDataset(planner, batch_size=128, seed=0, epochs=1)
    print(f"first epoch: {time.perf_counter() - started:.1f} s, {dataset.steps_per_epoch:,} steps")
    started = time.perf_counter()
    dataset.set_epoch(1)
    print(f"next epoch:  {time.perf_counter() - started:.1f} s")
    saved = 1 - sum(plan.computed_tokens for plan in dataset.plans) / int(examples.lengths.sum())
    print(f"tokens shared away: {saved:.1%}; peak memory {peak_mib():,.0f} MiB, tokens and imports included")


if __name__ == "__main__":
    main()
