"""Similarity filtering at Alpaca's size: are the decisions those of rouge_score, how fast, and in how much memory.

    python benchmarks/similarity.py [--data seeds] [--pool 52000] [--candidates 90000]

Instructions are recombined from the given records: sentences are cut into pieces of one to four words, and a new one
is drawn piece by piece, each from those that followed the same word somewhere; every fourth is a text drawn before
with some words changed, as models repeat themselves. Measured, in one thread: (1) the decisions on 20,000 pairs of
them, half disturbed copies, against `rouge_score`; (2) a candidate against a full pool, against the loop of
`rouge_score` over the same pool (texts tokenized before, as Alpaca did); (3) a whole run: candidates judged by all
filters into a pool that starts with the records and grows.
"""

from __future__ import annotations

import argparse
import collections
import random
import resource
import time
from collections.abc import Iterator

from rouge_score import rouge_scorer
from rouge_score.tokenize import tokenize

from alpaca_lora.data.records import Record, load_records
from alpaca_lora.data.similarity import SimilarityIndex, words
from alpaca_lora.selfinstruct.filters import Filters

THRESHOLD = 0.7
SLOW_QUERIES = 3  # for which the loop of rouge_score goes through the whole pool; each takes it several seconds
MIB = 2**20


def synthetic(instructions: list[str], seed: int) -> Iterator[str]:
    """Instructions without end, with the words and about the lengths of the given ones."""
    generator = random.Random(seed)
    followers: dict[str, list[list[str]]] = collections.defaultdict(list)
    starts: list[list[str]] = []
    for text in instructions:
        parts = text.split()
        starts.append(parts[:2])
        for place in range(1, len(parts)):
            followers[parts[place - 1]].append(parts[place : place + generator.randint(1, 4)])
    lengths = [len(text.split()) for text in instructions]
    every = [word for text in instructions for word in text.split()]
    earlier: list[str] = []
    while True:
        if earlier and generator.random() < 0.25:
            text = disturbed(generator.choice(earlier), every, generator)
        else:
            length, parts = max(4, generator.choice(lengths)), list(generator.choice(starts))
            while len(parts) < length:
                parts += generator.choice(followers.get(parts[-1]) or starts)
            text = " ".join(parts[:length])
            earlier.append(text)
        yield text


def disturbed(text: str, vocabulary: list[str], generator: random.Random) -> str:
    """The text with about a quarter of its words replaced, dropped or doubled."""
    changed: list[str] = []
    for word in text.split():
        draw = generator.random()
        if draw < 0.12:
            changed.append(generator.choice(vocabulary))
        elif draw < 0.2:
            changed += [word, generator.choice(vocabulary)]
        elif draw > 0.08 + 0.2:
            changed.append(word)
    return " ".join(changed)


def pairs(texts: list[str], count: int) -> Iterator[tuple[str, str]]:
    """Pairs of texts: half of them strangers, half disturbed copies, which lie about the threshold."""
    generator = random.Random(1)
    vocabulary = [word for text in texts[:1000] for word in text.split()]
    for number in range(count):
        one = generator.choice(texts)
        yield one, generator.choice(texts) if number % 2 else disturbed(one, vocabulary, generator)


def peak_mib() -> float:
    """Most memory this process has had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MIB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", default="seeds")
    parser.add_argument("--pool", type=int, default=52_000)
    parser.add_argument("--candidates", type=int, default=90_000)
    parser.add_argument("--pairs", type=int, default=20_000)
    parser.add_argument("--queries", type=int, default=200)
    options = parser.parse_args()
    records = load_records(options.data).records
    instructions = [record.instruction for record in records]

    stream = synthetic(instructions, seed=0)
    texts = [next(stream) for _ in range(options.pool + options.queries)]
    mean = sum(len(words(text)) for text in texts) / len(texts)
    print(f"{len(instructions):,} records of {options.data}; new instructions have {mean:.1f} words on average")

    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
    different = near = above = 0
    for one, other in pairs(texts, options.pairs):
        expected = scorer.score(one, other)["rougeL"].fmeasure
        index = SimilarityIndex(THRESHOLD)
        index.add(one)
        different += index.nearest(other) != ((0, expected) if expected >= THRESHOLD else None)
        near += abs(expected - THRESHOLD) < 0.05
        above += expected >= THRESHOLD
    print(f"{options.pairs:,} pairs: {above:,} at or above {THRESHOLD}, {near:,} within 0.05 of it; {different} differ")

    index = SimilarityIndex(THRESHOLD)
    for text in texts[: options.pool]:
        index.add(text)
    queries = texts[options.pool :]
    seconds = []
    for query in queries:
        started = time.process_time()
        index.nearest(query)
        seconds.append(time.process_time() - started)
    tokens = [tokenize(text, None) for text in texts[: options.pool]]
    started = time.process_time()
    for query in queries[:SLOW_QUERIES]:
        words_of_query = tokenize(query, None)
        for entry in tokens:
            rouge_scorer._score_lcs(words_of_query, entry)
    slow = (time.process_time() - started) / SLOW_QUERIES
    times = slow / (sum(seconds[:SLOW_QUERIES]) / SLOW_QUERIES)
    seconds.sort()
    print(
        f"a candidate against {options.pool:,}: mean {sum(seconds) / len(seconds) * 1e3:.1f} ms, 99% within "
        f"{seconds[int(len(seconds) * 0.99)] * 1e3:.1f} ms, worst {seconds[-1] * 1e3:.1f} ms; "
        f"rouge_score's loop {slow:.2f} s, {times:,.0f} times as long for the same candidates"
    )

    del index, texts, tokens
    stream = synthetic(instructions, seed=2)
    started, clock = time.process_time(), time.perf_counter()
    filters = Filters(records, threshold=THRESHOLD)
    found: collections.Counter[str] = collections.Counter()
    for _ in range(options.candidates):
        record = Record(next(stream), "", "An answer.")
        rejection = filters.judge(record)
        found[rejection.reason if rejection else "accepted"] += 1
        if rejection is None:
            filters.add(record)
    spent, waited = (time.process_time() - started) / 60, (time.perf_counter() - clock) / 60
    print(f"{options.candidates:,} candidates: {dict(found.most_common())}")
    print(f"{spent:.1f} CPU minutes ({waited:.1f} by the clock); peak memory {peak_mib():,.0f} MiB, imports included")


if __name__ == "__main__":
    main()
