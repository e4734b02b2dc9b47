"""How often compare_runs is right: intervals that hold the truth, false alarms, differences found. Simulated, and real.

    PYTHONPATH=src python benchmarks/compare_runs.py [--times 400] [--seed 0]
    PYTHONPATH=src python benchmarks/compare_runs.py --real runs-pool [--groups 40] [--steps 12]

Simulated, two models: records of lognormal lengths, with a difference of loss that is skewed, and correlated with the
length. For comparison, the intervals that are not used: the normal approximation and the plain (percentile) bootstrap.
Then the settings' level: k seeds a side, each with an effect of its own, on the same records or on splits of its own.
`alarms` is the share of intervals that leave out 0 where there is no difference; `held` the share that hold a known
one; `found` the share that detect it, beside the 80% that `needed` was computed for.

Real: runs of a tiny random LLaMA on the built-in seeds, all of the same settings, none of the same seed. Groups of
three are compared with groups of three; no run is in two pairs. Two single runs of other seeds are two different
models, so their difference is real, and is reported beside: it is no false alarm.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from alpaca_lora.experiments.difference import difference
from alpaca_lora.experiments.groups import Group
from alpaca_lora.experiments.run_losses import RunLosses, read_run
from alpaca_lora.experiments.seeds import SeedLosses, difference_by_seed, difference_of_groups
from alpaca_lora.runs.paired_interval import Interval, Ratio, ratio_interval

NOISE = 0.1  # standard deviation of a record's difference, nats per token
SEEDS = 0.01  # that of a seed's effect
POWER = 0.8


def lengths(random: np.random.Generator, count: int | tuple[int, ...]) -> np.ndarray:
    """Tokens: median 33, mean 46, one in twenty above 120."""
    return np.ceil(random.lognormal(3.5, 0.8, count))


def records(random: np.random.Generator, tokens: np.ndarray) -> np.ndarray:
    """A record's difference per token: skewed, larger on short records, and rising with length; mean 0 over tokens."""
    noise = (random.exponential(1, tokens.shape) - 1) * (tokens / 33) ** -0.25
    return NOISE * (0.9 * noise + 0.4 * (np.log(tokens) - OFFSET))


def offset() -> float:
    """Mean of the logarithm of the length, over tokens."""
    tokens = lengths(np.random.default_rng(0), 4_000_000)
    return float((tokens * np.log(tokens)).sum() / tokens.sum())


OFFSET = offset()


def normal(values: np.ndarray, tokens: np.ndarray) -> Interval:
    """The normal approximation."""
    ratio = Ratio.of(values, tokens)
    return Interval(ratio.mean, ratio.mean - 1.96 * ratio.error, ratio.mean + 1.96 * ratio.error)


def percentile(values: np.ndarray, tokens: np.ndarray) -> Interval:
    """The plain bootstrap of records."""
    drawn = np.random.default_rng(0).integers(len(values), size=(1000, len(values)))
    low, high = np.quantile(values[drawn].sum(axis=1) / tokens[drawn].sum(axis=1), [0.025, 0.975])
    return Interval(float(values.sum() / tokens.sum()), float(low), float(high))


METHODS = {"ours": ratio_interval, "normal": normal, "percentile": percentile}


def two_models(times: int, seed: int) -> None:
    """Coverage of a difference of two models, by number of records."""
    print(
        f"Two models, {times:,} times: share of 95% intervals that hold the difference (median width, nats per token)"
    )
    for count in (10, 20, 50, 100, 300, 1000):
        random = np.random.default_rng([seed, 1, count])
        held: dict[str, list[tuple[bool, float]]] = {name: [] for name in METHODS}
        for _ in range(times):
            tokens = lengths(random, count)
            values = tokens * records(random, tokens)
            for name, method in METHODS.items():
                found = method(values, tokens)
                held[name].append((found.low <= 0 <= found.high, found.high - found.low))
        told = [
            f"{name} {np.mean([hit for hit, _ in each]):.1%} ({np.median([width for _, width in each]):.3f})"
            for name, each in held.items()
        ]
        print(f"  {count:5} records: {'; '.join(told)}", flush=True)


def power_of_two_models(times: int, seed: int) -> None:
    """Whether a known difference is found as often as `needed` says."""
    random = np.random.default_rng([seed, 2])
    tokens = lengths(random, 1_000_000)
    error = Ratio.of(tokens * records(random, tokens), tokens).error * 1_000_000**0.5
    print("\nTwo models, a known difference, on as many records as are computed to find it 80% of the time")
    for known in (0.05, 0.02, 0.01):
        count = int(np.ceil((2.8016 * error / known) ** 2))
        found = held = 0
        for _ in range(times):
            tokens = lengths(random, count)
            interval = ratio_interval(tokens * (records(random, tokens) + known), tokens)
            found, held = found + (interval.low > 0), held + (interval.low <= known <= interval.high)
        print(f"  {known} nats on {count:5} records: found {found / times:.1%}, held {held / times:.1%}", flush=True)


def sides(
    random: np.random.Generator, seeds: int, count: int, effect: float, known: float, kind: str
) -> tuple[SeedLosses, SeedLosses]:
    """Losses of two groups of runs.

    Args:
        random: Draws it all.
        seeds: Runs a side.
        count: Records of a run's validation set.
        effect: Standard deviation of a seed's effect on all records; on each it has one of its own, as large as NOISE.
        known: The difference.
        kind: `same records` for all; or, with the same seeds on both sides, `same seeds` and their own splits of twice
            as many records.
    """
    pool = count if kind == "same records" else 2 * count
    tokens = lengths(random, pool)
    shared = random.exponential(0.8, pool) + 1
    shift = records(random, tokens) + known
    found = []
    for side in (0, 1):
        own = random.normal(0, effect, (seeds, 1)) + random.normal(0, NOISE, (seeds, pool))
        found.append(tokens * (shared + side * shift + own))
    has = np.ones((seeds, pool), bool)
    if kind == "same seeds":
        has = random.random((seeds, pool)).argsort(axis=1) < count
    return SeedLosses(found[0] * has, tokens * has), SeedLosses(found[1] * has, tokens * has)


def settings(times: int, seed: int) -> None:
    """Coverage and alarms where seeds are a second level."""
    print(f"\nSettings, {times:,} times: share of 95% intervals that hold the difference, k seeds a side")
    for kind in ("same records", "same seeds"):
        for seeds in (2, 3, 5, 10) if kind == "same records" else (3, 5, 10):
            told = []
            for count, effect in ((50, 0.0), (50, SEEDS), (400, 0.0), (400, 5 * SEEDS)):
                random = np.random.default_rng([seed, 3, seeds, count, int(1000 * effect)])
                held = 0
                for _ in range(times):
                    a, b = sides(random, seeds, count, effect, 0.0, kind)
                    if kind == "same seeds":
                        found = difference_by_seed(SeedLosses(b.losses_KN - a.losses_KN, a.tokens_KN))
                    else:
                        found = difference_of_groups(a, b)
                    interval = found.interval()
                    held += interval.low <= 0 <= interval.high
                told.append(f"{count} records, effect {effect}: {held / times:.1%}")
            print(f"  {kind}, {seeds:2} seeds: {'; '.join(told)}", flush=True)


def real(folder: Path, groups: int, steps: int) -> None:
    """False alarms among real runs of one setting."""
    size = 3
    runs = pool(folder, size * groups, steps)
    sides = [Group(str(start), tuple(runs[start : start + size])) for start in range(0, len(runs), size)]
    alarms = alarms_of(list(zip(sides[::2], sides[1::2], strict=True)))
    print(f"Real runs, {groups // 2} pairs of groups of {size} seeds, no run in two: {np.sum(alarms)} false alarms")
    random, every = np.random.default_rng(0), []
    for _ in range(20):  # the same runs in other groups: more figures, which are not independent of each other
        order = random.permutation(len(runs))
        mixed = [
            Group(str(start), tuple(runs[at] for at in order[start : start + size]))
            for start in range(0, len(runs), size)
        ]
        every += alarms_of(list(zip(mixed[::2], mixed[1::2], strict=True)))
    print(f"  in 20 orders, {len(every)} pairs: {np.mean(every):.1%} false alarms")
    singles = [Group(str(number), (run,)) for number, run in enumerate(runs)]
    other = alarms_of(list(zip(singles[::2], singles[1::2], strict=True)))
    print(f"  single runs of other seeds, {len(other)} pairs: {np.mean(other):.1%} differ, being other models")
    print(f"  validation loss {np.mean([run.loss for run in runs]):.3f}, seeds differ by {spread(runs):.4f} (sd)")


def alarms_of(pairs: Sequence[tuple[Group, Group]]) -> list[bool]:
    """Whether a difference is detected in each pair."""
    return [difference(a, b, "benchmark")(0.95).detected for a, b in pairs]


def spread(runs: Sequence[RunLosses]) -> float:
    """Standard deviation of the runs' losses."""
    return float(np.std([run.loss for run in runs], ddof=1))


def pool(folder: Path, count: int, steps: int) -> list[RunLosses]:
    """Runs of a tiny random LLaMA, trained where they are not there yet; the folder may be given again."""
    import json

    from alpaca_lora import finetune, load_records

    rows = [record._asdict() for record in load_records("seeds").records if sum(map(len, record)) <= 600]
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in (("train", rows[:40]), ("validation", rows[40:])):
        (folder / f"{name}.json").write_text(json.dumps(part), encoding="utf-8")
    base, started = tiny_base(folder / "base", [" ".join(row.values()) for row in rows]), time.perf_counter()
    found = []
    for seed in range(count):
        out = folder / f"seed-{seed}"
        finetune(
            base_model=base,
            data=str(folder / "train.json"),
            val_data=str(folder / "validation.json"),
            output_dir=str(out),
            method="full",
            learning_rate=1e-2,
            batch_size=8,
            max_steps=steps,
            cutoff_len=256,
            save_steps=10_000,
            dtype="float32",
            seed=seed,
            resume="auto",
        )
        found.append(read_run(out, "benchmark"))
    print(f"{count} runs of {steps} steps in {time.perf_counter() - started:.0f} s")
    return found


def tiny_base(folder: Path, texts: Sequence[str]) -> str:
    """A random LLaMA of two layers and 32 dimensions, with a tokenizer of 2,000 tokens like the demo model's."""
    if not (folder / "config.json").exists():
        import torch
        from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

        from alpaca_lora.models.load import resolve_base

        tokenizer = AutoTokenizer.from_pretrained(resolve_base("demo")).train_new_from_iterator(texts, 2_000)
        torch.manual_seed(0)
        shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
        ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
        config = LlamaConfig(vocab_size=len(tokenizer), tie_word_embeddings=True, **shape, **ids)
        LlamaForCausalLM(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return str(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--times", type=int, default=400, help="simulations a setting, default %(default)s")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--real", type=Path, help="train and compare real runs in this folder instead")
    parser.add_argument("--groups", type=int, default=40, help="groups of three real runs, default %(default)s")
    parser.add_argument("--steps", type=int, default=12, help="steps of a real run, default %(default)s")
    options = parser.parse_args()
    started = time.perf_counter()
    if options.real:
        real(options.real, options.groups, options.steps)
    else:
        parts: tuple[Callable[[int, int], None], ...] = (two_models, power_of_two_models, settings)
        for part in parts:
            part(options.times, options.seed)
    print(f"\n{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
