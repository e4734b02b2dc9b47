"""Conversations to token ids, by a chat template.

A conversation with n trained turns gives n sequences. For turn k:

    prompt_k    the template over the messages before it, with its generation prompt
    response_k  what the template says for the turn as the last message, beyond prompt_k, up to the token that ends it

    sys u1 | a1 $            sequence 1
    sys u1   a1 $ u2 | a2 $  sequence 2: its prompt begins with sequence 1, in most templates

Each sequence is what the model sees at inference: a template that rewrites history makes sequences that differ, and
stays exact. Ids are those of `tokenizer.apply_chat_template`; if a text of the data holds the text of a special token,
it stays text. If the response's first token would merge with the prompt's last one, the prompt's ids win: generation
starts behind them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ...errors import DataError, TemplateError
from ...prompts import ChatTemplate
from ..record import Conversation, Record
from .encoder import Encoder, Turn
from .text_codec import TextCodec

_ASKED = {"role": "user", "content": "Say 2 words: a, b."}
_ANSWERED = {"role": "assistant", "content": "Ab, cd."}


class _Texts(NamedTuple):
    """What a template says for a turn: all before it, its text, the special token that ends it."""

    before: str
    response: str
    end: str
    first: int
    """Where special-token text of the data is hidden; 0 if there is none."""


class ChatEncoder(Encoder):
    """An encoder whose template is a chat's.

    Args:
        tokenizer: A transformers tokenizer with an EOS token.
        template: The chat template.

    Raises:
        TemplateError: the template refuses a user's message and its answer, or has no generation prompt.
    """

    template: ChatTemplate
    chats = True

    def __init__(self, tokenizer: Any, template: ChatTemplate) -> None:
        TextCodec.__init__(self, tokenizer)
        self.template = template
        try:
            self._end, self._by_pieces = self._probe()
        except TemplateError as error:
            raise TemplateError(f"prompt_template: {error}.") from error

    @property
    def stop_ids(self) -> list[int]:
        """The end of a turn, as the template writes it, and EOS."""
        return sorted({self._special_ids.get(self._end, self.eos_id), self.eos_id})

    def prompt_ids(self, instruction: str, input: str = "") -> list[int]:
        """Ids of an instruction as a user's message: the instruction, a blank line, the input."""
        return self.message_ids([user_message(instruction, input)])

    def message_ids(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = ()) -> list[int]:
        """Ids of a conversation that the model is to go on with.

        Raises:
            DataError: the template refuses it, in its own words.
        """
        first = self._first_free(messages, tools)
        try:
            text = self._render(messages, tools, first, add_generation_prompt=True)
            self._check_known(messages, tools, text, first)
        except TemplateError as error:
            raise DataError(str(error)) from error
        return self._encoded([(text, first)])[0]

    def _turns(self, batch: Sequence[Record | Conversation]) -> list[list[Turn] | str]:
        texts: list[_Texts] = []
        places: list[slice | str] = []
        for record in batch:
            try:
                mine = self._texts(as_conversation(record))
            except (TemplateError, DataError) as error:
                places.append(str(error))
                continue
            places.append(slice(len(texts), len(texts) + len(mine)))
            texts += mine
        wholes = [(one.before + one.response, one.first) for one in texts]
        ids = self._encoded([*((one.before, one.first) for one in texts), *wholes])  # in one go: they share pieces
        turns = [self._turn(*parts) for parts in zip(texts, ids[: len(texts)], ids[len(texts) :], strict=True)]
        return [place if isinstance(place, str) else turns[place] for place in places]

    def _texts(self, conversation: Conversation) -> list[_Texts]:
        """What the template says for each turn that is learned."""
        tools = conversation.tools
        first = self._first_free(conversation.messages, tools)
        return [self._text(conversation.upto(place), tools, first) for place in conversation.trained]

    def _text(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]], first: int) -> _Texts:
        """The last message, an assistant's, as the answer to those before it."""
        before = self._render(messages[:-1], tools, first, add_generation_prompt=True)
        whole = self._render(messages, tools, first, add_generation_prompt=False)
        if not whole.startswith(before):
            raise TemplateError(
                f"the chat template {self.template.name!r} writes an answer otherwise than behind its generation "
                "prompt, so that what is learned would not be what is asked for"
            )
        rest = whole[len(before) :]
        end = rest.rfind(self._end) if self._end else -1  # texts of the data hide theirs
        if end >= 0:
            texts = _Texts(before, rest[:end], self._end, first)
        else:
            found = next(reversed([*self.specials.pattern.finditer(rest)]), None)  # a call of a tool may end otherwise
            texts = _Texts(before, rest[: found.start()] if found else rest, found[0] if found else "", first)
        self._check_known(messages[:-1], tools, before, first)
        self._check_answer(messages[-1], texts)
        return texts

    def _check_answer(self, answer: Mapping[str, Any], texts: _Texts) -> None:
        """Raise TemplateError if the template leaves out the answer, or what was thought before it."""
        if not texts.response.strip() and (answer["content"].strip() or answer.get("tool_calls")):
            what = "the calls of tools" if answer.get("tool_calls") else "the assistant's answer"
            raise self._leaves_out(f"{what}, so there is nothing to learn", "it", "remove these records")
        if not self._is_in(texts.response, answer.get("reasoning_content"), texts.first):
            raise self._leaves_out("the answer's 'reasoning_content'", "it", "remove that key from the turns")

    def _check_known(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]], text: str, first: int
    ) -> None:
        """Raise TemplateError if the text of messages leaves out a system text, a tool, its call or what it gave."""
        for message in messages:
            role, said = message.get("role"), message.get("content")
            if role == "system" and not self._is_in(text, said, first):
                raise self._leaves_out("the system text", "it", "put the text into the user's first turn")
            if role == "tool" and not self._is_in(text, said, first):
                raise self._leaves_out("what a tool gave", "it", "remove it")
            if any(name not in text for name in _names(message.get("tool_calls") or ())):
                raise self._leaves_out("the calls of tools", "them", "remove them")
        if any(name not in text for name in _names(tools)):
            raise self._leaves_out("the tools", "them", "remove them")

    def _leaves_out(self, what: str, which: str, otherwise: str) -> TemplateError:
        return TemplateError(
            f"the chat template {self.template.name!r} leaves out {what}. Give one that writes {which} as a .jinja "
            f"file, or {otherwise}"
        )

    def _is_in(self, text: str, said: Any, first: int) -> bool:
        """Whether a rendered text has a message's in it, as it is or as JSON; true of what is no text."""
        if not isinstance(said, str):
            return True
        said = (self.specials.hide(said, first) if first else said).strip()
        return said in text or json.dumps(said, ensure_ascii=False)[1:-1] in text

    def _turn(self, texts: _Texts, prompt: list[int], joined: list[int]) -> Turn:
        end = [self._special_ids.get(texts.end, self.eos_id)]
        if joined[: len(prompt)] == prompt:
            return Turn(prompt, joined[len(prompt) :], end)
        return Turn(prompt, self.response_ids(self.specials.show(texts.response, texts.first)), end)

    def _probe(self) -> tuple[str, bool]:
        """The special token that ends a turn, "" if none does; and whether ids of pieces are those of whole texts.

        Raises:
            TemplateError: the template refuses a question and its answer, or has no generation prompt.
        """
        before = self._render([_ASKED], (), 0, add_generation_prompt=True)
        bare = self._render([_ASKED], (), 0, add_generation_prompt=False)
        whole = self._render([_ASKED, _ANSWERED], (), 0, add_generation_prompt=False)
        rest = whole[len(before) :] if whole.startswith(before) else ""
        own, answered, after = rest.partition(_ANSWERED["content"])
        if not answered:
            raise TemplateError(
                f"the chat template {self.template.name!r} does not write an answer behind its generation prompt, so "
                "that what is learned would not be what is asked for. Give a template that does as a .jinja file"
            )
        if before == bare and own.strip():
            raise TemplateError(
                f"the chat template {self.template.name!r} has no generation prompt: it writes {own!r} before an "
                "answer, and not for add_generation_prompt. Give a template that does as a .jinja file"
            )
        found = self.specials.pattern.search(after)
        (pieces,) = self.marked_ids([(whole, 0)])
        return found[0] if found else "", pieces == self._whole_ids([whole])[0]

    def _encoded(self, texts: Sequence[tuple[str, int]]) -> list[list[int]]:
        """Ids of rendered texts, each with where its hidden texts begin, 0 if it has none."""
        if self._by_pieces:
            return self.marked_ids(texts)
        return [self.marked_ids([one])[0] if one[1] else self._whole_ids([one[0]])[0] for one in texts]

    def _whole_ids(self, texts: list[str]) -> list[list[int]]:
        """The tokenizer's own way."""
        return self.tokenizer(texts, add_special_tokens=False, return_attention_mask=False).input_ids

    def _render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]],
        first: int,
        *,
        add_generation_prompt: bool,
    ) -> str:
        """The text of messages; special-token text in them is hidden from `first` on, if that is not 0."""
        said = [dict(message) for message in messages]
        known = [dict(tool) for tool in tools]
        if first:
            said, known = self.specials.hide(said, first), self.specials.hide(known, first)
        return self.template.render(self.tokenizer, said, known, add_generation_prompt=add_generation_prompt)

    def _first_free(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> int:
        """Where hidden special-token text begins; 0 if there is none."""
        data = [[dict(message) for message in messages], [dict(tool) for tool in tools]]
        return self.specials.first_free(data) if self.specials.held_by(data) else 0


def _names(tools: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of tools, or of calls of them."""
    inner = [tool.get("function") for tool in tools]
    named = [(one if isinstance(one, Mapping) else tool).get("name") for one, tool in zip(inner, tools, strict=True)]
    return [name for name in named if isinstance(name, str)]


def user_message(instruction: str, input: str = "") -> dict[str, str]:
    """An instruction and its input as one message."""
    return {"role": "user", "content": "\n\n".join(filter(None, (instruction, input)))}


def as_conversation(record: Record | Conversation) -> Conversation:
    """A record as a conversation of one turn; a conversation as it is."""
    if isinstance(record, Conversation):
        return record
    answer = {"role": "assistant", "content": record.output}
    return Conversation((user_message(record.instruction, record.input), answer), (1,))
