"""One request of a run: which seeds it shows, its text, and whether the budget allows it."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from ..data.records import Record
from ..errors import ConfigError
from ..llm.budget import Budget, Usage
from ..llm.client import PROMPT_MARGIN
from .prompt import Brief, Prompt, build_prompt

SEEDS_PER_REQUEST = 3


def draw(seeds: Sequence[Record], seed: int, request: int) -> list[Record]:
    """The seeds that request number `request` shows; the same on every platform and version of Python."""
    generator = random.Random(f"{seed}/{request}")  # only its `random()` is promised to repeat across versions
    chosen: list[int] = []
    while len(chosen) < min(SEEDS_PER_REQUEST, len(seeds)):
        index = int(generator.random() * len(seeds))
        if index not in chosen:
            chosen.append(index)
    return [seeds[index] for index in chosen]


def check_budget(
    budget: Budget, seeds: Sequence[Record], brief: Brief, *, chat: bool, seed: int, max_new_tokens: int
) -> None:
    """Raise ConfigError, naming the minimum, if a budget does not allow even the first request."""
    text = request_text(build_prompt(draw(seeds, seed, 0), brief), chat)
    worst = Usage(len(text.encode()) + PROMPT_MARGIN, max_new_tokens)
    problems = []
    if budget.token_budget is not None and worst.tokens > budget.token_budget:
        problems.append(
            f"token_budget: {budget.token_budget:,} allows no request; the first may take {worst.tokens:,}. Give at "
            f"least {worst.tokens}, or lower max_new_tokens ({max_new_tokens:,} of them)."
        )
    cost = budget.cost(worst)
    if budget.max_cost is not None and cost is not None and cost > budget.max_cost:
        least = math.ceil(cost * 1e4) / 1e4
        problems.append(
            f"max_cost: {budget.max_cost:g} allows no request; the first may cost {least:.4f}. Give at least that, or "
            f"lower max_new_tokens ({max_new_tokens:,})."
        )
    if problems:
        raise ConfigError(problems)


def request_text(prompt: Prompt, chat: bool) -> str:
    """The text that is sent."""
    # One message of the user: the templates of many models have no place for a system message and refuse it.
    return f"{prompt.system}\n\n{prompt.user}" if chat else prompt.text
