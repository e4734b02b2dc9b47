"""Questions of one turn or several as numbers, for a journal: first turns, second turns, and so on.

instructions       numbers
A, then A2         0: A    2: A2, after the answer to 0
B                  1: B
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ..errors import ConfigError
from ..llm.model_ref import ModelRef, Prompt
from .outputs import Instruction


class Turns:
    """The turns of a file's instructions.

    Args:
        asked: The instructions.
    """

    def __init__(self, asked: Sequence[Instruction]) -> None:
        self.texts = [[one.text, *one.more] for one in asked]
        self.asked = asked
        longest = max(map(len, self.texts))
        self.places = [(k, turn) for turn in range(longest) for k, own in enumerate(self.texts) if turn < len(own)]
        """Number -> place of the instruction and its turn, both from 0."""
        self.numbers = {place: number for number, place in enumerate(self.places)}
        self.before = {number: self.numbers[k, turn - 1] for (k, turn), number in self.numbers.items() if turn}
        """Number -> number of the turn before it."""

    def prompt(self, number: int, model: ModelRef, answered: Callable[[int], str]) -> Prompt:
        """What is asked under a number; `answered` gives what was answered under an earlier one.

        Raises:
            ConfigError: there are several turns, and the model's prompt takes one.
        """
        k, turn = self.places[number]
        one = self.asked[k]
        if one.more and not model.takes_turns():
            raise ConfigError(
                "prompt_template: the questions have several turns, and this model's prompt takes one. Name a chat "
                "template (--prompt_template chat, if its tokenizer has one; of a server the kind chat), or a file in "
                ".json for the answers: then only first turns are asked."
            )
        if not turn:
            return model.prompt(one.instruction, one.input)
        earlier = [(self.texts[k][t], answered(self.numbers[k, t])) for t in range(turn)]
        return model.prompt(self.texts[k][turn], "", earlier)

    def complete(self, texts: Mapping[int, str]) -> list[tuple[Instruction, list[str], int]]:
        """The instructions all of whose turns have a text: with those, and the number of the last."""
        numbers = [[self.numbers[k, turn] for turn in range(len(own))] for k, own in enumerate(self.texts)]
        return [
            (one, [texts[number] for number in own], own[-1])
            for one, own in zip(self.asked, numbers, strict=True)
            if all(number in texts for number in own)
        ]
