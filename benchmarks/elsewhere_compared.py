"""This library's answers, and how far another program's are from them; for elsewhere.py.

The divergence is that of the distributions over the program's `top` likeliest tokens and all others as one: at most the
whole one, and with 200 tokens nearly all of it. Of a program that reads the model's own weights the answers must be
equal; of quantised files the likeliest tokens and the divergence tell how much was lost.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from alpaca_lora import load
from alpaca_lora.generation.sampling import Sampling

INSTRUCTIONS = (
    "Name three primary colours.",
    "Translate the sentence to French.\nThe cat sleeps on the chair.",
    "Write a haiku about rain.",
    "Give a synonym of 'quick'.",
    "What is the capital of France?",
    "Is this a fruit or a vegetable?\ncarrot",
    "Add the numbers.\n2, 3 and 10",
    "Write a Python function that returns the square of a number.",
    "Why is the sky blue?",
    "Summarise in one sentence.\nThe cat slept all day, and at night it hunted mice in the barn.",
    "Correct the spelling.\nI recieved teh letter yesterday.",
    "Give three tips for staying healthy.",
    "Wie heißt die Hauptstadt von Österreich?",
    "What is 12345 + 67890?",
    "What does this print?\n\n    for i in range(3):\n        print(i * '🦙')\n",
    "日本の首都はどこですか。",
    "What day comes after Tuesday?",
    "Make the sentence polite.  Give me the book.",
    "What do <b>, & and \\n mean in {\"a\": '<b>&\\n'}?",
    "Tell a joke about a horse.",
)


@dataclass(frozen=True)
class Answered:
    """An instruction and this library's answer."""

    messages: list[dict[str, str]]
    prompt_ids: list[int]
    ids: list[int]
    text: str
    stop: str
    forced: list[int]
    """The answer, with the stop it ended at."""
    logprobs: torch.Tensor
    """Logarithms of all probabilities in front of each forced token, shape (len(forced), vocabulary)."""

    def request(self) -> dict[str, Any]:
        """What another program is told of it."""
        return {"messages": self.messages, "prompt_ids": self.prompt_ids, "forced": self.forced}


def answered(path: str, also: Sequence[Path], tokens: int) -> list[list[Answered]]:
    """This library's answers to all instructions: a model's, then those of further adapters of its base.

    Args:
        path: What `load` takes.
        also: Folders of the further adapters.
        tokens: Most tokens of an answer.
    """
    model, found = load(path, also=also), []
    for name in (model.name, *(folder.name for folder in also)):
        answers = []
        for messages, one in _asked(model, name, tokens):
            text, stop = model.encoder.decode(one.ids), str(one.finish_reason)
            after = _logprobs(model, one.prompt, [*one.ids, 0])  # one place more: there the stop was chosen
            forced = [*one.ids, int(after[-1].argmax())] if stop == "stop" else one.ids
            answers.append(Answered(messages, one.prompt, one.ids, text, stop, forced, after[: len(forced)]))
        found.append(answers)
    del model
    gc.collect()
    return found


def told(path: str, reads: Sequence[Answered], tokens: int, top: int) -> list[dict[str, Any]]:
    """What this library's result is where it is asked as another program is: with another form of the model."""
    model, answers = load(path), []
    for (_, one), read in zip(_asked(model, model.name, tokens), reads, strict=True):
        values, ids = _logprobs(model, read.prompt_ids, read.forced).topk(top, dim=-1)
        pairs = zip(ids.tolist(), values.tolist(), strict=True)
        likely = [dict(zip(map(str, row), value, strict=True)) for row, value in pairs]
        said = {"prompt_ids": one.prompt, "ids": one.ids, "text": model.encoder.decode(one.ids)}
        answers.append({**said, "stop": one.finish_reason, "likely": likely})
    return answers


def _asked(model: Any, name: str, tokens: int) -> Iterator[tuple[list[dict[str, str]], Any]]:
    """Each instruction as messages, and its greedy answer."""
    asked = [[{"role": "user", "content": text}] for text in INSTRUCTIONS]
    prompts = [model.prompt_format(name).encoder.message_ids(messages) for messages in asked]
    made = [model.begin(prompt, Sampling(max_new_tokens=tokens), name, growing=False) for prompt in prompts]
    model.select(name)
    batch = model.batch()
    batch.join(made)
    while not all(one.finish_reason for one in made):
        batch.step()
    return zip(asked, made, strict=True)


@torch.no_grad()
def _logprobs(model: Any, prompt: list[int], forced: list[int]) -> torch.Tensor:
    """Of all tokens in front of each forced one, shape (len(forced), vocabulary)."""
    logits = model.model(input_ids=torch.tensor([prompt + forced]), logits_to_keep=len(forced) + 1).logits[0, :-1]
    return logits.float().log_softmax(-1)


def compared(ours: Sequence[Answered], theirs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What another program's answers have in common with ours.

    Returns:
        `of` answers: `prompts` and `answers` whose ids are equal, `texts` that are, and `stops` that are right: as ours
        where the answer is, and never passed over; over all `places` of our answers that were told, the share of
        `agreement`, the mean `kl` in nats, and the largest `logprob_difference` of a token of the answer; and for each
        answer that differs, how far ours was ahead of its token where the two part.
    """
    agree, divergences, gaps, apart = 0, [], [], []
    equal = dict.fromkeys(("prompts", "answers", "texts", "stops"), 0)
    stops = {one.forced[-1] for one in ours if one.stop == "stop"}
    for number, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
        ids = other["ids"][:-1] if other["ids"] and other["ids"][-1] in stops else other["ids"]
        same = ids == mine.ids
        equal["prompts"] += other["prompt_ids"] == mine.prompt_ids
        equal["answers"] += same
        equal["texts"] += other["text"] == mine.text
        equal["stops"] += not stops & {*ids} and (not same or other["stop"] == mine.stop)
        if not same:
            apart.append({"instruction": number, **_where_they_part(mine, ids)})
        for token, old, place in zip(mine.forced, mine.logprobs.double(), other["likely"], strict=False):
            known = torch.tensor([int(id) for id in place])
            new = torch.tensor(list(place.values()), dtype=torch.float64)
            agree += int(known[new.argmax()]) == int(old.argmax())
            divergences.append(_kl(old[known], new))
            if str(token) in place:
                gaps.append(abs(place[str(token)] - old[token].item()))
    return {
        "of": len(ours),
        **equal,
        "places": len(divergences),
        "agreement": agree / len(divergences),
        "kl": sum(divergences) / len(divergences),
        "logprob_difference": max(gaps),
        "first_differences": apart,
    }


def _where_they_part(mine: Answered, ids: list[int]) -> dict[str, Any]:
    at = next((k for k, (a, b) in enumerate(zip(mine.forced, ids, strict=False)) if a != b), len(ids))
    if at >= min(len(mine.forced), len(ids)):
        return {"token": at}
    row = mine.logprobs[at]
    return {"token": at, "nats_ahead": (row[mine.forced[at]] - row[ids[at]]).item()}


def _kl(old: torch.Tensor, new: torch.Tensor) -> float:
    """KL divergence in nats of the second distribution from the first, all tokens that are not told as one."""
    rest = [max(1 - logs.exp().sum().item(), 1e-9) for logs in (old, new)]
    others = rest[0] * torch.tensor(rest[0] / rest[1]).log().item()
    return (old.exp() * (old - new)).sum().item() + others


def table(report: dict[str, Any]) -> str:
    """All rows as Markdown."""
    versions = {name: number for row in report["rows"] for name, number in row.get("versions", {}).items()}
    lines = [
        f"Python {report['python']}, " + ", ".join(f"{name} {number}" for name, number in versions.items()) + ".",
        "",
        "| | prompts | answers | stops | same likeliest token | mean KL, nats | log-probabilities at most |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        if "error" in row:
            lines.append(f"| {row['name']} | {row['error'].replace('|', '/')} | | | | | |")
            continue
        counts = " | ".join(f"{row[what]} of {row['of']}" for what in ("prompts", "answers", "stops"))
        rest = f"{row['agreement']:.2%} | {max(0.0, round(row['kl'], 9)):.2g} | {row['logprob_difference']:.2g}"
        lines.append(f"| {row['name']} | {counts} | {rest} |")
    return "\n".join(lines)
