"""Answers of one model to a file of instructions, for a comparison or for AlpacaEval.

In: instructions (outputs.py) and a model. Out: `OUT.json`, AlpacaEval's `model_outputs`, written when every instruction
is answered. Until then, and after, the folder `OUT.journal` beside it holds each answer, so that the same command goes
on where it ended: a process that dies loses the answers on their way, at most one batch, and pays for none twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import ConfigError, DataError, counted
from ..files import sha256_of_json
from ..generation.completion import Completion
from ..llm.folder import make_folder
from ..llm.job import GO_ON
from ..llm.journal import Journal
from ..llm.model_ref import ModelRef, Prompt, check_sampling
from ..llm.questions import Questions, Replies, replies_of, spent_text
from ..llm.reply import EMPTY_REPLY, REMEDIES, Reply, read_reply, sample_of, whole_characters
from .outputs import Instruction, ModelOutput, read_instructions, write_outputs


@dataclass(frozen=True)
class Answered:
    """What a call of `answer` came to.

    Attributes:
        path: The file of answers; it is not there yet where `ended` is "budget".
        generator: The model's name in it.
        answered: Instructions answered.
        failed: Why the others have none, by place in the file, from 1: what the model or its server said, or what
            came instead of an answer.
        empty: Answers without a text; they are in the file.
        cut: Answers that ended at `max_new_tokens`.
        thoughts: Answers before which the model thought aloud; its thoughts were left out.
        left_out: Settings that the model refused, and was asked without.
        ended: "all", or "budget".
        spent: Tokens and money, in words.
    """

    path: Path
    generator: str
    answered: int
    failed: dict[int, str]
    empty: int
    cut: int
    thoughts: int
    left_out: list[str]
    ended: Literal["all", "budget"]
    spent: str

    def __str__(self) -> str:
        told = f"{self.path}: {counted(self.answered, 'answer')} of {self.generator} ({self.spent})."
        if self.empty:
            told += f" {self.empty:,} of them {'is' if self.empty == 1 else 'are'} empty."
        if self.cut:
            told += f" {self.cut:,} of them were cut at max_new_tokens."
        if self.thoughts:
            told += f" Before {self.thoughts:,} of them the model thought aloud; its thoughts were left out."
        if self.left_out:
            told += f" Asked without {', '.join(self.left_out)}, which the model refuses."
        if self.failed:
            place, problem = next(iter(self.failed.items()))
            told += f" {counted(len(self.failed), 'instruction')} without one; number {place}: {problem}"
        if self.ended == "budget":
            told += f" The budget allows no more, so the file is not written yet. {GO_ON}"
        return told


def answer(
    respondent: ModelRef,
    instructions: str | Path,
    out: str | Path,
    *,
    max_new_tokens: int = 512,
    temperature: float = 0.0,
) -> Answered:
    """Answer every instruction of a file, or go on with it.

    Args:
        respondent: The model.
        instructions: A file that `read_instructions` reads.
        out: A .json file to write.
        max_new_tokens: Maximum number of tokens per answer.
        temperature: 0 takes the likeliest token each time.

    Raises:
        ConfigError: `out` cannot be written or is another's file, or its journal is one of another model or other
            settings; all that differ are named.
        DataError: the instructions cannot be read.
        AdapterError, ModelError: the model cannot be loaded.
        EndpointError: the server does not answer, or no reply can be used. What it answered before is kept.
        RunInterrupted: SIGTERM or Ctrl-C.
    """
    out = Path(out)
    if out.suffix != ".json":
        raise ConfigError(f"{out}: a file of answers is JSON, and AlpacaEval goes by its name: end it in .json.")
    check_sampling(temperature, max_new_tokens)
    asked = read_instructions(instructions)
    folder = out.with_suffix(".journal")
    if out.exists() and not folder.exists():
        raise ConfigError(f"{out}: is there already, and {folder} is not, so it was not begun here. Name another file.")
    make_folder(folder, out)
    settings = {
        **respondent.identity,
        "instructions": sha256_of_json([[one.instruction, one.input, one.category] for one in asked]),
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
    }

    def prompt(number: int, replies: Replies) -> Prompt:
        return respondent.prompt(asked[number].instruction, asked[number].input)

    def problem(reply: Completion) -> str:
        found = read_reply(reply, max_new_tokens).problem
        if found == EMPTY_REPLY and not respondent.base_url:  # nothing stands between: the model has nothing to say
            found = ""
        return REMEDIES[found] if found else ""

    with Journal(folder, settings, {}, out) as journal:
        asking = Questions(
            journal,
            respondent,
            len(asked),
            prompt,
            problem,
            attempts=1,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            unit="answer",
        )
        ended = asking.run()
        state, sampling = journal.state, {"max_new_tokens": max_new_tokens, "temperature": temperature}
        read = {
            number: next((one for one in found if not one.problem), found[-1])
            for number, replies in sorted(replies_of(state).items())
            if (found := [read_reply(reply, max_new_tokens) for reply in replies])
        }
        made = _outputs(asked, read, respondent, {**sampling, **dict.fromkeys(state.left_out)})
        failed = dict(state.failed)
        for number, reply in read.items():
            if reply.problem not in ("", EMPTY_REPLY):
                said = replies_of(state)[number][-1].text
                failed[number] = f"the reply cannot be used: {sample_of(said)}. {REMEDIES[reply.problem]}"
        if ended == "all":
            if not made:
                raise DataError(f"{instructions}: no instruction could be answered: {failed[0]}")
            write_outputs(out, made)
        return Answered(
            out,
            respondent.name,
            len(made),
            {number + 1: problem for number, problem in sorted(failed.items())},
            sum(not one.output.strip() for one in made),
            sum(line["finish_reason"] == "length" for line in state.answers),
            sum(reply.thoughts and not reply.problem for reply in read.values()),
            state.left_out,
            ended,
            spent_text(respondent, state),
        )


def _outputs(
    asked: list[Instruction], read: dict[int, Reply], respondent: ModelRef, sampling: dict[str, float | None]
) -> list[ModelOutput]:
    """The answers that can be used; an empty one is an answer, where the model gave others."""
    settings = respondent.settings_text(**sampling)
    return [
        ModelOutput(one.instruction, one.input, whole_characters(reply.text), respondent.name, one.category, settings)
        for number, one in enumerate(asked)
        if (reply := read.get(number)) and reply.problem in ("", EMPTY_REPLY)
    ]
