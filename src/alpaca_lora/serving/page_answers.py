"""The answers that the page shows: queued in the engine, looked at by moderation, and put in words."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from ..data.tokens import user_message
from ..errors import AlpacaLoraError, DataError
from ..generation.batching import Answer
from ..generation.moderation import Moderation, refusal
from ..generation.prompt_format import Question, conversation_of, question_ids
from ..generation.sampling import Sampling
from .engine import Engine, PendingAnswers, text_of


class PageAnswers:
    """Asks for the page."""

    def __init__(self, engine: Engine, moderation: Moderation | None) -> None:
        self.engine, self.moderation = engine, moderation

    async def queued(
        self,
        instruction: str,
        input: str,
        names: list[str],
        sampling: Sampling,
        system: str = "",
        earlier: Sequence[tuple[str, str]] = (),
    ) -> list[PendingAnswers]:
        """Queue one answer for each name: all or none.

        Args:
            instruction: What is asked.
            input: What it is about.
            names: Who answers.
            sampling: How tokens are chosen.
            system: A system text; of a chat template.
            earlier: Questions and answers so far; of a chat template.

        Raises:
            QueueFull, DataError, ConfigError: they cannot be queued.
        """
        if not instruction.strip():
            raise DataError("write an instruction first.")
        # The browser sends earlier turns: they are looked at each time, as the server looks at all messages.
        told = "\n".join([system, *(text for turn in earlier for text in turn), instruction, input])
        if reason := await refusal(self.moderation, told.strip()):
            raise DataError(f"the instruction is refused by this server's moderation: {reason}.")
        asked: list[PendingAnswers] = []
        try:
            for name in names:
                encoder = self.engine.model.prompt_format(name).encoder
                question: Question = (instruction, input)
                if encoder.chats:
                    question = conversation_of(system, earlier, user_message(instruction, input)["content"])
                prompt = await asyncio.to_thread(question_ids, encoder, question)  # a long one takes seconds
                asked.append(self.engine.ask([prompt], [sampling], name))
        except AlpacaLoraError:
            for one in asked:
                one.answers[0].cancel()
            raise
        return asked

    def shown(self, answers: list[Answer]) -> list[str]:
        """What can be shown of unfinished answers; nothing with moderation, which looks at whole ones."""
        return ["" if self.moderation else text_of(answer) for answer in answers]

    def status(self, answers: list[Answer]) -> str:
        """What the status line says of unfinished answers."""
        if not any(answer.ids for answer in answers):
            return "Waiting for its turn."
        return "Generating; shown after moderation." if self.moderation else "Generating."

    async def ended(self, answer: Answer) -> tuple[str, str]:
        """An answer's text, and how it ended; no text if moderation refuses it."""
        if reason := await refusal(self.moderation, text_of(answer)):
            return "", f"not shown, this server's moderation refuses it: {reason}"
        how = {"length": "cut off at the limit of new tokens", "cancelled": "stopped"}.get(
            answer.finish_reason or "", "ended by itself"
        )
        return text_of(answer), f"{len(answer.ids)} tokens, {how}"
