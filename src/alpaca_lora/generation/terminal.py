"""A chat in the terminal.

A model trained with a chat template is told what was said before; any other answers each instruction by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..data.tokens import user_message
from ..errors import AlpacaLoraError
from .model import LocalModel
from .moderation import Moderation
from .prompt_format import Question, conversation_of, warnings_of
from .sampling import Sampling

HELP = """\
  /input X    give the next instruction X as its input; without X, several lines, ended by an empty one
  /system X   begin anew, with the system text X; without X, with none
  /adapter X  answer as adapter X, or as `base`, without one
  /history    show what was said
  /clear      forget it
  /quit       leave (Ctrl-D does, too); Ctrl-C ends an answer"""


@dataclass
class _Talk:
    """What was said, and how it is gone on with."""

    model: LocalModel
    sampling: Sampling
    moderation: Moderation | None
    write: Callable[..., Any]
    adapter: str
    system: str = ""
    given: str = ""
    history: list[tuple[str, str, str, str]] = field(default_factory=list)
    """Who answered, the instruction, its input, and the answer."""

    @property
    def chats(self) -> bool:
        """Whether the adapter is told what was said before."""
        return self.model.prompt_format(self.adapter).encoder.chats

    def ask(self, instruction: str) -> None:
        """Answer an instruction, and remember both."""
        question: Question = (instruction, self.given)
        if self.chats or self.system:
            earlier = [(user_message(asked, about)["content"], answer) for _, asked, about, answer in self.history]
            question = conversation_of(self.system, earlier, user_message(instruction, self.given)["content"])
        answer = self._answer(question, f"{instruction}\n{self.given}".strip())
        if answer:
            self.history.append((self.adapter, instruction, self.given, answer))
        self.given = ""

    def _answer(self, question: Question, text: str) -> str:
        """Write the answer while it grows, or, with a moderation, when it was looked at; return it."""
        if self.moderation and (reason := self.moderation(text)):
            self.write(f"(not answered: {reason})")
            return ""
        if self.moderation:
            answer = self.model.generate(question, "", self.sampling, self.adapter)
            if reason := self.moderation(answer):
                self.write(f"(not shown: {reason})")
                return ""
            self.write(answer)
            return answer
        answer = ""
        pieces = self.model.stream(question, "", self.sampling, self.adapter)
        try:
            for piece in pieces:
                self.write(piece, end="", flush=True)
                answer += piece
        except KeyboardInterrupt:
            self.write(" [stopped]", end="")
        self.write()
        return answer

    def greeting(self) -> str:
        """Which template, who answers, and what is remembered."""
        told = "Earlier turns are remembered." if self.chats else "Each instruction stands alone."
        names = ", ".join(self.model.prompt_formats)
        return f"Template {self.model.encoder.template.name}; answers: {names}. {told} /help for help."


def chat(
    model: LocalModel,
    sampling: Sampling,
    moderation: Moderation | None = None,
    read: Callable[[str], str] = input,
    write: Callable[..., Any] = print,
    system: str = "",
) -> None:
    """Answer what is typed until the end of input.

    Args:
        model: Answers.
        sampling: How its tokens are chosen.
        moderation: Looks at instructions and answers.
        read: Gives a line for a prompt; raises EOFError at the end.
        write: As `print`.
        system: A system text, for models trained with a chat template.
    """
    talk = _Talk(model, sampling, moderation, write, model.name, system)
    write(talk.greeting())
    for warning in warnings_of(model.prompt_formats):
        write(f"Warning: {warning}")
    while True:
        try:
            line = read(f"\n{talk.adapter}> ").strip()
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
                for who, instruction, about, answer in talk.history:
                    asked = f"{instruction}\n{about}".strip()
                    write(f"\n{who}> {asked}\n{answer}")
            elif command == "/clear":
                talk.history.clear()
            elif command == "/system" and rest.strip() and not talk.chats:
                write(f"The template {model.encoder.template.name!r} has no system text. Train with one of chats.")
            elif command == "/system":
                talk.history.clear()
                talk.system = rest.strip()
                write("Begun anew." if talk.system else "Begun anew, without a system text.")
            elif command == "/adapter":
                model.prompt_format(rest.strip())
                talk.adapter = rest.strip() or model.name
            elif command == "/input":
                talk.given = rest.strip() or _lines(read)
            elif command.startswith("/"):
                write(f"{command} is no command.\n{HELP}")
            else:
                talk.ask(line)
        except AlpacaLoraError as error:
            write(f"{error}")


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
