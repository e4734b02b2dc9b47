"""Answers of one model to a file of instructions, for a comparison, for AlpacaEval or for MT-bench.

In: instructions (outputs.py) and a model. Out: `OUT.json`, AlpacaEval's `model_outputs`, or `OUT.jsonl`, FastChat's
`model_answer` (fastchat.py), written when every instruction is answered. Until then, and after, the folder
`OUT.journal` beside it holds each answer, so that the same command resumes: a process that dies loses only the answers
in flight, one batch at most, and pays for none twice.

Questions are numbered from 0 in the order of the file; second turns come after all first ones, and so on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import ConfigError, DataError, counted
from ..files import sha256_of_json
from ..generation.completion import Completion
from ..llm.budget import Budget
from ..llm.job import RAISE_IT
from ..llm.journal import Journal
from ..llm.model_ref import ModelRef, Prompt, check_sampling
from ..llm.output_folder import make_folder
from ..llm.questions import Questions, Replies, replies_of, spent_text
from ..llm.reply import EMPTY_REPLY, REMEDIES, Reply, read_reply, sample_of, whole_characters
from .fastchat import Answer, write_model_answers
from .outputs import Instruction, ModelOutput, read_instructions, write_outputs
from .turns import Turns


@dataclass(frozen=True)
class Answered:
    """The outcome of a call of `answer`; `print` shows it.

    Attributes:
        path: The file of answers; it is not written yet if `ended` is "budget".
        generator: The model's name in it.
        answered: Instructions answered.
        failed: Why the others have none, by place in the file, from 1.
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
            told += f" The budget allows no more, so the file is not written yet. {RAISE_IT}"
        return told


def answer(
    model: str | Path,
    instructions: str | Path,
    out: str | Path,
    *,
    base_url: str | None = None,
    kind: Literal["chat", "completions"] = "chat",
    base_model: str | None = None,
    prompt_template: str | None = None,
    max_new_tokens: int = 512,
    temperature: float = 0.0,
    concurrency: int = 8,
    max_cost: float | None = None,
    token_budget: int | None = None,
    price_in: float | None = None,
    price_out: float | None = None,
    force: bool = False,
    key: str | None = None,
) -> Answered:
    """Have a model answer a file of instructions, in AlpacaEval's format or FastChat's; the same call resumes it.

    Args:
        model: Adapter folder, merged folder, base folder, hub id, or `demo`; with base_url, the server's name for a
            model.
        instructions: A file of records, of Self-Instruct's tasks, of MT-bench's questions, or in AlpacaEval's format;
            or `probe`, packaged questions on known limits.
        out: A file to write, once all are answered: .json for AlpacaEval's format, .jsonl for FastChat's, in which each
            turn of a question is asked after the answers to those before it. The folder of its name in .journal keeps
            each answer.
        base_url: Address of an OpenAI-compatible API.
        kind: "chat", or "completions" for text-completion models.
        base_model: Path or hub id of an adapter's base, if it is not where the adapter says.
        prompt_template: For models without a contract; `alpaca` if left out.
        max_new_tokens: Maximum number of tokens of an answer.
        temperature: 0 takes the likeliest token each time; higher is more varied.
        concurrency: Maximum number of requests in flight at a server.
        max_cost: Maximum cost of the whole file, in the currency of the prices; requires price_in and price_out.
        token_budget: Maximum number of tokens of the whole file, prompts and answers together.
        price_in: Price of a million prompt tokens.
        price_out: Price of a million new tokens.
        force: Continue even if tokenizer, template or base differ from those trained with.
        key: The server's key; it is written nowhere.

    Raises:
        ConfigError: wrong settings, or others than those `out` was begun with; `out` cannot be written, or was not
            written by this function.
        DataError: instructions that cannot be read.
        AdapterError, ModelError: as `load`.
        EndpointError: the server does not answer, or no reply can be used; what it answered before is kept.
        RunInterrupted: Ctrl-C or SIGTERM; the same call goes on.
    """
    out = Path(out)
    if out.suffix not in (".json", ".jsonl"):
        raise ConfigError(f"{out}: end it in .json, which AlpacaEval reads, or in .jsonl, which FastChat does.")
    check_sampling(temperature, max_new_tokens)
    budget = Budget(max_cost, token_budget, price_in, price_out)
    ref = ModelRef(str(model), base_url, key, kind, prompt_template, concurrency, budget, force, base_model)
    asked = read_instructions(instructions, turns=out.suffix == ".jsonl")
    turns = Turns(asked)
    folder = out.with_suffix(".journal")
    if out.exists() and not folder.exists():
        raise ConfigError(f"{out}: is there already, and {folder} is not, so it was not begun here. Name another file.")
    make_folder(folder, out)
    settings = {
        **ref.identity,
        "instructions": sha256_of_json([[one.instruction, one.input, one.category, *one.more] for one in asked]),
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
    }

    def prompt(number: int, replies: Replies) -> Prompt:
        return turns.prompt(number, ref, lambda earlier: _read(asking.replies[earlier], max_new_tokens).text)

    def problem(reply: Completion) -> str:
        found = read_reply(reply, max_new_tokens).problem
        if found == EMPTY_REPLY and not ref.base_url:  # nothing stands between: the model has nothing to say
            found = ""
        return REMEDIES[found] if found else ""

    with Journal(folder, settings, {}, out) as journal:
        asking = Questions(
            journal,
            ref,
            len(turns.places),
            prompt,
            problem,
            attempts=1,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            unit="answer",
            before=turns.before,
        )
        ended = asking.run()
        state, sampling = journal.state, {"max_new_tokens": max_new_tokens, "temperature": temperature}
        read = {number: _read(replies, max_new_tokens) for number, replies in sorted(replies_of(state).items())}
        usable = {number: reply for number, reply in read.items() if reply.problem in ("", EMPTY_REPLY)}
        made = turns.complete({number: whole_characters(reply.text) for number, reply in usable.items()})
        failed = dict(state.failed)
        for number in read.keys() - usable.keys():
            said = replies_of(state)[number][-1].text
            failed[number] = f"the reply cannot be used: {sample_of(said)}. {REMEDIES[read[number].problem]}"
        if ended == "all":
            if not made:
                raise DataError(f"{instructions}: no instruction could be answered: {failed[min(failed)]}")
            if out.suffix == ".jsonl":
                times = {line["request"]: line["time"] for line in state.answers}
                write_model_answers(out, ref.name, [Answer(one.question, own, times[last]) for one, own, last in made])
            else:
                how = ref.settings_text(**{**sampling, **dict.fromkeys(state.left_out)})
                write_outputs(out, [_output(one, text, ref.name, how) for one, [text], _ in made])
        return Answered(
            out,
            ref.name,
            len(made),
            dict(sorted((turns.places[number][0] + 1, problem) for number, problem in failed.items())),
            sum(not text.strip() for _, texts, _ in made for text in texts),
            sum(line["finish_reason"] == "length" for line in state.answers),
            sum(reply.thoughts and not reply.problem for reply in read.values()),
            state.left_out,
            ended,
            spent_text(ref, state),
        )


def _read(replies: Sequence[Completion], max_new_tokens: int) -> Reply:
    """The first reply to a question that can be used, or the last."""
    found = [read_reply(reply, max_new_tokens) for reply in replies]
    return next((one for one in found if not one.problem), found[-1])


def _output(one: Instruction, text: str, name: str, settings: str) -> ModelOutput:
    return ModelOutput(one.instruction, one.input, text, name, one.category, settings)
