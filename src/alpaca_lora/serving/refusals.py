"""How a request is told that it cannot be honoured: an error of OpenAI's protocol."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class Refused(Exception):
    """A request that gets an error: HTTP status, reason, and the parameter it is about."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code

    @property
    def body(self) -> dict[str, Any]:
        """The error as clients of the protocol read it."""
        kind = {429: "rate_limit_error", 500: "server_error", 503: "server_error"}.get(
            self.status, "invalid_request_error"
        )
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    @classmethod
    def because(cls, problems: list[str]) -> Refused:
        """One refusal of all problems, each of which begins with its parameter and a colon."""
        return cls(400, in_sentences(problems), problems[0].partition(":")[0])


def in_sentences(problems: list[str]) -> str:
    """Problems in one line, each with one mark at its end, whether it came with one or not.

    Example:
        >>> in_sentences(["n: must be 1.", "topp: is not known. Did you mean 'top_p'?"])
        "n: must be 1; topp: is not known. Did you mean 'top_p'?"
    """
    parts = [problem.rstrip(".") for problem in problems]
    ends = [";"] * (len(parts) - 1) + ["."]
    return " ".join(part if part.endswith(("?", "!")) else part + end for part, end in zip(parts, ends, strict=True))


_OBJECTS = ("model_type", "model_attributes_type", "dict_type")  # pydantic says "dictionary", and names our classes


def validation_problems(errors: Iterable[Any], called: dict[str, str] | None = None) -> list[str]:
    """What pydantic complains about, each with the place in the body: `messages[0].role: Field required`."""
    problems = []
    for problem in errors:
        first, *more = [part for part in problem["loc"] if part != "body"] or ["the body"]
        where = str((called or {}).get(first, first))
        where += "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in more)
        rule = "Input should be an object" if problem["type"] in _OBJECTS else problem["msg"]
        problems.append(f"{where}: {rule.removeprefix('Value error, ')}")
    return problems
