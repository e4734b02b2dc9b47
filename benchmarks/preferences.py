"""200 preferences for short answers: what DPO makes of the demo model's answers, and what of the same ones, swapped.

    python benchmarks/preferences.py                      # minutes on 2 cores; the same command goes on

A preference is made of a built-in record (the seeds, and those of examples/medalpaca): the first sentence of its output
is preferred to the whole. A tenth of them validates. DPO on them is in FOLDER/short, and on the same with chosen and
rejected swapped in FOLDER/long; each has loss.png, with margin and accuracy. Both, and the model as it was, answer
built-in probe questions, greedily. The table has the lengths in tokens: median with a bootstrap interval, how far it
moved, and on how many of the questions the answer is longer or shorter than before (an exact sign test, which answers
that are cut do not disturb). Exit code 1 if that test does not find shorter answers in one, and longer in the other.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from pathlib import Path

import numpy as np

from alpaca_lora import answer, finetune, load_records
from alpaca_lora.data.probe import PROBE_FILE
from alpaca_lora.files import write_atomically
from alpaca_lora.models.load import load_tokenizer, resolve_base

MEDALPACA = Path(__file__).parents[1] / "examples" / "medalpaca" / "records.jsonl"
MODELS = ("before", "short", "long")
SENTENCE = re.compile(r"\s*\S.*?(?:[.!?](?=\s|$)|(?=\n))", re.DOTALL)  # or a line


def main() -> None:
    """Run what is not there yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/preferences"), help="folder of all stages")
    parser.add_argument("--base_model", default="demo")
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--questions", type=int, default=40)
    parser.add_argument("--max_new_tokens", type=int, default=128, help="of an answer")
    parser.add_argument("--learning_rate", type=float, default=2e-4)
    parser.add_argument("--beta", type=float, default=0.1)
    parser.add_argument("--num_epochs", type=float, default=1.0)
    parser.add_argument("--dtype", default="auto", help="of training; bfloat16 is fast on CPUs with AMX")
    parser.add_argument("--only", nargs="+", choices=MODELS, default=MODELS, help="in a process each, without a table")
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    pairs = preferences(asked.pairs)
    questions = PROBE_FILE.read_text(encoding="utf-8").splitlines()[: asked.questions]
    write_atomically(asked.work / "questions.jsonl", "\n".join(questions) + "\n")
    lengths = {name: lengths_of(asked, name, model_of(asked, name, pairs)) for name in asked.only}
    if len(lengths) == len(MODELS):
        sys.exit(0 if report(lengths, asked.max_new_tokens) else 1)


def preferences(wanted: int) -> list[dict[str, str]]:
    """Pairs of the built-in records that have more than one sentence."""
    rows = [record for data in ("seeds", str(MEDALPACA)) for record in load_records(data).records]
    pairs = [pair for row in rows if (pair := pair_of(row.instruction, row.input, row.output))]
    if len(pairs) < wanted:
        sys.exit(f"There are {len(pairs)} pairs.")
    return pairs[:wanted]


def pair_of(instruction: str, input: str, output: str) -> dict[str, str] | None:
    """The first sentence or line against the whole; None if there is but one.

    Example:
        >>> pair_of("Measure.", "", "It is. 2.5 m, say.")
        {'instruction': 'Measure.', 'input': '', 'chosen': 'It is.', 'rejected': 'It is. 2.5 m, say.'}
    """
    whole = [found[0] for found in SENTENCE.finditer(output.strip() + "\n")]
    first = next((n for n in range(1, len(whole)) if len("".join(whole[:n]).split()) > 1), None)  # "1." is none
    if first is None:
        return None
    chosen = "".join(whole[:first]).strip()
    return {"instruction": instruction, "input": input, "chosen": chosen, "rejected": output.strip()}


def model_of(asked: argparse.Namespace, name: str, pairs: list[dict[str, str]]) -> str:
    """What answers: the base, or the result of its run, which goes on if it is there."""
    if name == "before":
        return asked.base_model
    if name == "long":
        pairs = [{**pair, "chosen": pair["rejected"], "rejected": pair["chosen"]} for pair in pairs]
    data = asked.work / f"prefers-{name}.jsonl"
    write_atomically(data, "".join(json.dumps(pair) + "\n" for pair in pairs))
    run = finetune(
        base_model=asked.base_model,
        data=str(data),
        output_dir=str(asked.work / name),
        objective="dpo",
        resume="auto",
        beta=asked.beta,
        batch_size=8,
        num_epochs=asked.num_epochs,
        val_set_size=asked.pairs // 10,
        learning_rate=asked.learning_rate,
        lora_target_modules="all-linear",
        lora_dropout=0.0,
        dtype=asked.dtype,
        eval_steps=8,
        save_steps=5,
    )
    print(run, flush=True)
    return str(run.output_dir)


def lengths_of(asked: argparse.Namespace, name: str, model: str) -> np.ndarray:
    """Tokens of a model's answers to the questions."""
    out = asked.work / f"{name}.json"
    print(answer(model, asked.work / "questions.jsonl", out, max_new_tokens=asked.max_new_tokens), flush=True)
    tokenizer = load_tokenizer(resolve_base(asked.base_model))
    rows = json.loads(out.read_text(encoding="utf-8"))
    return np.array([len(tokenizer(row["output"], add_special_tokens=False)["input_ids"]) for row in rows])


def report(lengths: dict[str, np.ndarray], limit: int) -> bool:
    """Print the table; whether answers became shorter on one side, and longer on the other."""
    before = lengths["before"]
    draws = np.random.default_rng(0).integers(len(before), size=(10_000, len(before)))

    def interval(medians: np.ndarray) -> str:
        low, high = np.percentile(medians, [2.5, 97.5])
        return f"{low:.0f} to {high:.0f}"

    print(
        f"\n| answers to {len(before)} questions | median tokens | 95% CI | cut at {limit} | moved by | 95% CI ", end=""
    )
    print("| longer | shorter | p |")
    print("|---|---:|---|---:|---:|---|---:|---:|---:|")
    right = True
    for name, own in lengths.items():
        of_draws = np.median(own[draws], axis=1)
        row = f"| {name} | {np.median(own):.0f} | {interval(of_draws)} | {(own >= limit - 1).sum()} |"
        if name != "before":
            longer, shorter = int((own > before).sum()), int((own < before).sum())
            p = sign_test_p(longer, shorter)
            right = right and p < 0.05 and (longer > shorter) == (name == "long")
            by = np.median(own) - np.median(before)
            moved = interval(of_draws - np.median(before[draws], axis=1))
            row += f" {by:+.0f} | {moved} | {longer} | {shorter} | {p:.2g} |"
        print(row)
    return right


def sign_test_p(more: int, less: int) -> float:
    """Exact and two-sided: how often fair coins would differ by as much; ties are left out."""
    tail = sum(math.comb(more + less, k) for k in range(min(more, less) + 1)) / 2 ** (more + less)
    return min(1.0, 2 * tail)


if __name__ == "__main__":
    main()
