"""How long planning takes and how much memory, for sets far larger than Alpaca's.

    python benchmarks/plan.py [--records 1000000] [--data seeds] [--turns 3]

A synthetic set: prompt and response lengths are drawn from the given records, encoded with the demo model's tokenizer;
prompts start with one of the two preambles of the `alpaca` template, the rest is random. With `--turns`, records are
conversations in the demo model's chat template, all turns learned, whose questions and answers have the lengths of the
records'. Measured is what a run does before its first step and again at every epoch: `StepDataset` with layout `tree`,
batch 128, one rank.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np

from alpaca_lora.data.plan import Planner
from alpaca_lora.data.records import load_records
from alpaca_lora.data.step_dataset import StepDataset
from alpaca_lora.data.tokens import Examples, encoder_for
from alpaca_lora.models.load import load_tokenizer, resolve_base

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
    return Examples(ids, offsets[:-1], offsets[1:], real.prompt_lens[drawn], np.arange(1, count + 1, dtype=np.int32))


def conversations(real: Examples, count: int, turns: int, vocabulary: int) -> Examples:
    """`count` records of `turns` sequences, each of which begins the next; all share what `real` ones begin with."""
    random = np.random.default_rng(0)
    first = real[0].ids
    shared = min(_common(first, real[k].ids) for k in range(1, len(real)))
    drawn = random.integers(len(real), size=(count, turns))
    ends = shared + np.cumsum(real.lengths[drawn] - shared, axis=1)
    prompt_lens = (ends - real.lengths[drawn] + real.prompt_lens[drawn]).astype(np.int32)
    offsets = np.concatenate([[0], np.cumsum(ends[:, -1])])
    ids = random.integers(vocabulary, size=int(offsets[-1]), dtype=np.int32)
    for start in offsets[:-1]:
        ids[start : start + shared] = first[:shared]
    numbers = np.repeat(np.arange(1, count + 1, dtype=np.int32), turns)
    starts = np.repeat(offsets[:-1], turns)
    return Examples(ids, starts, starts + ends.ravel(), prompt_lens.ravel(), numbers)


def _common(one: np.ndarray, other: np.ndarray) -> int:
    """How many ids two rows begin with in common; neither begins the other."""
    size = min(len(one), len(other))
    return int((one[:size] == other[:size]).argmin())


def peak_mib() -> float:
    """Most memory this process has had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MIB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--data", default="seeds")
    parser.add_argument("--max-tokens", type=int, default=2048)
    parser.add_argument("--turns", type=int, default=0)
    options = parser.parse_args()

    tokenizer = load_tokenizer(resolve_base("demo"))
    real = encoder_for(tokenizer, "chat" if options.turns else "alpaca").encode(load_records(options.data), 512)
    if options.turns:
        examples = conversations(real, options.records, options.turns, len(tokenizer))
    else:
        examples = synthetic(real, options.records, len(tokenizer))
    print(f"{examples.records:,} records, {len(examples):,} sequences, {len(examples.ids):,} tokens")
    print(f"{peak_mib():,.0f} MiB before planning")

    planner = Planner(examples, "tree", options.max_tokens)
    started = time.process_time()
    dataset = StepDataset(planner, batch_size=128, seed=0, epochs=1)
    print(f"first epoch: {time.process_time() - started:.1f} CPU s, {dataset.steps_per_epoch:,} steps")
    started = time.process_time()
    dataset.set_epoch(1)
    print(f"next epoch:  {time.process_time() - started:.1f} CPU s")
    saved = 1 - sum(plan.computed_tokens for plan in dataset.plans) / int(examples.lengths.sum())
    print(f"tokens shared away: {saved:.1%}; peak memory {peak_mib():,.0f} MiB, tokens and imports included")


if __name__ == "__main__":
    main()
