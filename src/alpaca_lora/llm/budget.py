"""What requests cost, and a budget that is never passed.

A request is paid for after the fact, by the tokens the server counts. So before it is sent its worst case is held: a
token for each byte of its prompt, and every new token it may make. While spent + held stays within the budget, no
answer can pass it.

    hold ──> settle   answered: the measured tokens are spent, the rest of the worst case is free again
         ├─> release  refused (an error answer, no connection): nothing is spent
         └─> lose     no answer (a timeout, a cut connection, a killed process): it may be billed all the same, so the
                      worst case counts as spent
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from ..errors import AlpacaLoraError, ConfigError


class BudgetReached(AlpacaLoraError, RuntimeError):
    """One more request could pass the budget, so it was not sent."""


@dataclass(frozen=True)
class Usage:
    """Tokens of one or many requests."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.prompt_tokens + other.prompt_tokens, self.completion_tokens + other.completion_tokens)

    def __sub__(self, other: Usage) -> Usage:
        return Usage(self.prompt_tokens - other.prompt_tokens, self.completion_tokens - other.completion_tokens)

    @property
    def tokens(self) -> int:
        """Both together."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True)
class Budget:
    """Prices, and the maximum that may be spent.

    Raises:
        ConfigError: a value is negative or no number, one price is missing, or money is limited and no price is known.
    """

    max_cost: float | None = None
    """Maximum cost, in the currency of the prices; no limit if None."""
    token_budget: int | None = None
    """Maximum number of tokens, prompts and answers together; no limit if None."""
    price_in: float | None = None
    """Price of a million prompt tokens; None is unknown."""
    price_out: float | None = None
    """Price of a million new tokens."""

    def __post_init__(self) -> None:
        problems = [
            f"{name}: {value!r} must be a number of at least 0."
            for name, value in vars(self).items()
            if value is not None and not (math.isfinite(value) and value >= 0)
        ]
        if (self.price_in is None) != (self.price_out is None):
            problems.append("price_in, price_out: give both (per million tokens), or neither.")
        elif self.max_cost is not None and self.price_in is None:
            problems.append(
                f"max_cost: {self.max_cost!r} needs price_in and price_out, the model's prices per million tokens; "
                "token_budget limits tokens without them."
            )
        if problems:
            raise ConfigError(problems)

    def cost(self, usage: Usage) -> float | None:
        """Money for these tokens, or None if prices are unknown."""
        if self.price_in is None or self.price_out is None:
            return None
        return (usage.prompt_tokens * self.price_in + usage.completion_tokens * self.price_out) / 1e6


@dataclass
class Spending:
    """Counts what is spent and what is held for requests in flight."""

    budget: Budget = field(default_factory=Budget)
    """Prices and limits."""
    spent: Usage = Usage()
    """Tokens that servers reported."""
    lost: Usage = Usage()
    """Worst cases of requests without an answer, which may have been billed."""
    held: Usage = Usage()
    """Worst cases of requests in flight."""

    def hold(self, worst: Usage) -> None:
        """Set a request's worst case aside.

        Raises:
            BudgetReached: with it the budget could be passed.
        """
        budget, sure = self.budget, self.spent + self.lost
        after = sure + self.held + worst
        if budget.token_budget is not None and after.tokens > budget.token_budget:
            raise BudgetReached(
                f"token_budget: up to {sure.tokens:,} of {budget.token_budget:,} are spent, {self.held.tokens:,} held "
                f"for requests in flight, and one more request could take {worst.tokens:,}."
            )
        cost = budget.cost(after)
        if budget.max_cost is not None and cost is not None and cost > budget.max_cost:
            raise BudgetReached(
                f"max_cost: up to {budget.cost(sure):.4f} of {budget.max_cost:g} is spent, "
                f"{budget.cost(self.held):.4f} held for requests in flight, and one more request could cost "
                f"{budget.cost(worst):.4f}."
            )
        self.held += worst

    def settle(self, worst: Usage, used: Usage) -> None:
        """The request was answered and used this."""
        self.held -= worst
        self.spent += used

    def release(self, worst: Usage) -> None:
        """The request was refused and cost nothing."""
        self.held -= worst

    def lose(self, worst: Usage) -> None:
        """The request had no answer; it may cost its worst case."""
        self.held -= worst
        self.lost += worst
