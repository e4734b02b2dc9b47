"""A chat in the terminal: the history is shown, every prompt stands alone, as the template has it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import AlpacaLoraError
from .model import LocalModel
from .moderation import Moderation
from .prompt_format import warnings_of
from .sampling import Sampling

HELP = """\
  /input X    give the next instruction X as its input; without X, several lines, ended by an empty one
  /adapter X  answer as adapter X, or as `base`, without one
  /history    show what was said
  /clear      forget it
  /quit       leave (Ctrl-D does, too); Ctrl-C ends an answer"""


def chat(
    model: LocalModel,
    sampling: Sampling,
    moderation: Moderation | None = None,
    read: Callable[[str], str] = input,
    write: Callable[..., Any] = print,
) -> None:
    """Answer what is typed until the end of input.

    Args:
        model: Answers.
        sampling: How its tokens are chosen.
        moderation: Looks at instructions and answers.
        read: Gives a line for a prompt; raises EOFError at the end.
        write: As `print`.
    """
    adapter, given = model.name, ""
    history: list[tuple[str, str, str]] = []
    names = ", ".join(model.prompt_formats)
    write(f"Template {model.encoder.template.name}; answers: {names}. Each instruction stands alone. /help for help.")
    for warning in warnings_of(model.prompt_formats):
        write(f"Warning: {warning}")
    while True:
        try:
            line = read(f"\n{adapter}> ").strip()
        except (EOFError, KeyboardInterrupt):
            write()
            return
        command, _, rest = line.partition(" ")
        try:
            if not line:
                continue
            if command == "/quit":
                return
            if command == "/help":
                write(HELP)
            elif command == "/history":
                for who, instruction, answer in history:
                    write(f"\n{who}> {instruction}\n{answer}")
            elif command == "/clear":
                history.clear()
            elif command == "/adapter":
                model.prompt_format(rest.strip())
                adapter = rest.strip() or model.name
            elif command == "/input":
                given = rest.strip() or _lines(read)
            elif command.startswith("/"):
                write(f"{command} is no command.\n{HELP}")
            else:
                answer = _answer(model, line, given, sampling, adapter, moderation, write)
                history.append((adapter, f"{line}\n{given}".strip(), answer))
                given = ""
        except AlpacaLoraError as error:
            write(f"{error}")


def _answer(
    model: LocalModel,
    instruction: str,
    given: str,
    sampling: Sampling,
    adapter: str,
    moderation: Moderation | None,
    write: Callable[..., Any],
) -> str:
    """Write the answer while it grows, or, with a moderation, when it was looked at; return it."""
    if moderation and (reason := moderation(f"{instruction}\n{given}")):
        write(f"(not answered: {reason})")
        return ""
    if moderation:
        answer = model.generate(instruction, given, sampling, adapter)
        answer = f"(not shown: {reason})" if (reason := moderation(answer)) else answer
        write(answer)
        return answer
    answer = ""
    pieces = model.stream(instruction, given, sampling, adapter)
    try:
        for piece in pieces:
            write(piece, end="", flush=True)
            answer += piece
    except KeyboardInterrupt:
        write(" [stopped]", end="")
    write()
    return answer


def _lines(read: Callable[[str], str]) -> str:
    """Lines up to an empty one."""
    lines: list[str] = []
    while True:
        try:
            line = read("input> ")
        except (EOFError, KeyboardInterrupt):
            break
        if not line:
            break
        lines.append(line)
    return "\n".join(lines)
