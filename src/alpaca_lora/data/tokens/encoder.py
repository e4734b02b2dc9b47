"""Records to token ids: one encoder for training and inference.

    ids         <s> B e l o w ... # R e s p o n s e : \\n | M e o w </s>
                '--------------- prompt_len ----------------'

`ids[:prompt_len]` is exactly what inference feeds the model; everything after it is supervised, and the last id always
ends the answer, even if `cutoff_len` cut the response. The boundary is known because it is where generation starts; it
is never searched for. text_codec.py says how text becomes ids, chat_encoder.py how conversations do.

Cost: about 1,700 Alpaca records per second on one core; results are cached by fingerprint.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...errors import DataError, counted
from ...prompts import PromptTemplate, Template
from ..record import AnyRecord, Conversation, Preference, Record
from ..records import RecordSet, shown_numbers
from .cache import read_examples, write_examples
from .examples import Examples
from .text_codec import TextCodec

_BATCH_RECORDS = 1_000
_EVERY = 32
# Anything but ASCII, runs of white space, white space at either end, controls: what normalisers squeeze, fold or strip.
_UNUSUAL = re.compile(r"[^\x20-\x7e\n]|\s\s|\A\s|\s\Z")
_FORMAT = "tokens-3"  # part of the cache key: change it whenever the same records would give other ids


class Turn(NamedTuple):
    """One supervised answer: ids of everything before it, of its text, and of what ends it."""

    prompt: list[int]
    response: list[int]
    end: list[int]


class Encoder(TextCodec):
    """Turns prompts and responses into ids, and new ids back into text, for one tokenizer and one template.

    Args:
        tokenizer: A transformers tokenizer with an EOS token.
        template: The prompt template.

    Raises:
        ModelError: the tokenizer has no EOS token, so no answer could ever end.
    """

    template: PromptTemplate
    chats = False
    """Whether the template has a place for several turns."""

    def __init__(self, tokenizer: Any, template: Template) -> None:
        super().__init__(tokenizer)
        self.template = template
        self._prompt = template.prompt
        self._special_template = self.specials.held_by(template.own_text)

    @property
    def stop_ids(self) -> list[int]:
        """Ids that end an answer, as trained."""
        return [self.eos_id]

    def comes_back_as(self, record: AnyRecord) -> str:
        """What becomes of a record's texts, around the first character that is lost or changed; "" if all come back.

        Example: `'na\u00efve' comes back as 'naive'`.
        """
        for text in record:
            back = self.decode(self.response_ids(text))
            if back != text:
                same = (k for k, (a, b) in enumerate(zip(text, back, strict=False)) if a != b)
                at = next(same, min(len(text), len(back)))
                around = slice(max(at - 10, 0), at + 10)
                return f"{text[around]!r} comes back as {back[around]!r}"
        return ""

    def prompt_ids(self, instruction: str, input: str = "") -> list[int]:
        """Ids of a prompt as the model is fed it, in training and at inference: BOS, if wanted, stands once."""
        if self._special_template:
            return self._special_prompt(instruction, input)
        return self.text_ids(self._prompt(instruction, input))

    def message_ids(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = ()) -> list[int]:
        """Ids of a conversation that the model is to go on with.

        Raises:
            DataError: it is more than a user's one message, which is all that a prompt template has a place for.
        """
        if len(messages) != 1 or messages[0]["role"] != "user" or tools:
            raise DataError(
                f"the template {self.template.name!r} has a place for one user's message; this conversation has "
                f"{', '.join(str(message['role']) for message in messages)}{' and tools' if tools else ''}. Train with "
                "prompt_template=chat for conversations."
            )
        return self.prompt_ids(messages[0]["content"])

    def _special_prompt(self, instruction: str, input: str) -> list[int]:
        """The same for a template whose own text holds special tokens."""
        first = self.specials.first_free(instruction + input)
        text = self._prompt(*(self.specials.hide(part, first) for part in (instruction, input)))
        (ids,) = self.marked_ids([(text, first)])
        return ids if ids[: len(self.prefix_ids)] == self.prefix_ids else self.prefix_ids + ids

    def encode(self, records: RecordSet, cutoff_len: int, *, train_on_inputs: bool = False) -> Examples:
        """Encode every record.

        Args:
            records: The records.
            cutoff_len: Maximum number of tokens per example. A response is cut, its end keeps its place; one whose
                prompt leaves no room for a token and the end is dropped and listed in `too_long`. Of a preference both
                answers are dropped then, and also where their ids are the same (`same`).
            train_on_inputs: Supervise the prompt too.

        Raises:
            DataError: no record is left, or the template refuses some.
        """
        rows: list[list[int]] = []
        prompt_lens: list[int] = []
        kept: list[int] = []
        truncated: list[int] = []
        too_long: list[int] = []
        same: list[int] = []
        refused: dict[str, list[int]] = {}
        for start in range(0, len(records.records), _BATCH_RECORDS):
            batch = records.records[start : start + _BATCH_RECORDS]
            for number, record, turns in zip(records.numbers[start:], batch, self._answers(batch), strict=False):
                if isinstance(turns, str):
                    refused.setdefault(turns, []).append(number)
                    continue
                rooms = [cutoff_len - len(prompt) - len(end) for prompt, _, end in turns]
                fitting = [(turn, room) for turn, room in zip(turns, rooms, strict=True) if room > 0]
                if len(fitting) < len(turns):
                    too_long.append(number)
                made = [[*prompt, *response[:room], *end] for (prompt, response, end), room in fitting]
                if isinstance(record, Preference) and (len(made) < 2 or made[0] == made[1]):
                    same += [number] if len(made) == 2 else []
                    continue
                truncated += [number for turn, room in fitting if len(turn.response) > room]
                rows += made
                prompt_lens += [len(turn.prompt) for turn, _ in fitting]
                kept += [number] * len(made)
        if refused:
            raise DataError(_refusal(records, refused))
        if not rows:
            alike = f", and both answers have the same tokens in {len(same):,} more" if same else ""
            raise DataError(
                f"{records.source}: no record is left: the prompt alone reaches cutoff_len={cutoff_len} in "
                f"{'' if same else 'all '}{counted(len(set(too_long)), 'record')}{alike}. Raise cutoff_len."
            )
        return Examples.from_lists(
            rows,
            prompt_lens,
            record_numbers=np.asarray(kept, np.int32),
            truncated=list(dict.fromkeys(truncated)),
            too_long=list(dict.fromkeys(too_long)),
            same=same,
            special_text=self._with_special_text(records),
            changed_text=self._with_changed_text(records),
            train_on_inputs=train_on_inputs,
        )

    def encode_cached(
        self, records: RecordSet, cutoff_len: int, *, cache_dir: Path, train_on_inputs: bool = False
    ) -> Examples:
        """`encode`, remembered in `cache_dir` under a hash of records, template, tokenizer and `cutoff_len`.

        A damaged file is made anew; a folder that cannot be written is a warning.
        """
        key = [_FORMAT, records.fingerprint, records.numbers, self.template.sha256, self.fingerprint, cutoff_len]
        path = cache_dir / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]}.safetensors"
        examples = read_examples(path, train_on_inputs)
        if examples is None:
            examples = self.encode(records, cutoff_len, train_on_inputs=train_on_inputs)
            try:
                write_examples(path, examples)
            except OSError as error:
                warnings.warn(f"tokenised records are not cached: {error}", stacklevel=2)
        return examples

    def _answers(self, batch: Sequence[AnyRecord]) -> list[list[Turn] | str]:
        """The supervised answers of each record, or why it has none; those of a preference have one prompt."""
        each = [(one.chosen, one.rejected) if isinstance(one, Preference) else (one,) for one in batch]
        turns = iter(self._turns([one for several in each for one in several]))
        found: list[list[Turn] | str] = []
        for several in each:
            chosen, *others = [next(turns) for _ in several]
            for rejected in others:
                if not isinstance(chosen, str):
                    prompt = chosen[0].prompt
                    chosen = rejected if isinstance(rejected, str) else [*chosen, rejected[0]._replace(prompt=prompt)]
            found.append(chosen)
        return found

    def _turns(self, batch: Sequence[Record | Conversation]) -> list[list[Turn] | str]:
        """The supervised answers of each record, or why it has none."""
        asked = [record for record in batch if isinstance(record, Record)]
        if self._special_template:
            prompts = [self.prompt_ids(record.instruction, record.input) for record in asked]
        else:
            texts = self._ids([self._prompt(record.instruction, record.input) for record in asked])
            prompts = [self.prefix_ids + ids for ids in texts]
        responses = self._responses([record.output for record in asked])
        made = iter(zip(prompts, responses, strict=True))
        refusal = (
            f"a conversation does not fit the template {self.template.name!r}, which has a place for one instruction. "
            "Choose prompt_template=chat, or a .jinja file"
        )
        return [[Turn(*next(made), [self.eos_id])] if isinstance(record, Record) else refusal for record in batch]

    def _with_special_text(self, records: RecordSet) -> list[int]:
        def has_special(record: AnyRecord) -> bool:
            return any(map(self.specials.held_by, record))

        return [n for n, record in zip(records.numbers, records.records, strict=True) if has_special(record)]

    def _with_changed_text(self, records: RecordSet) -> list[int]:
        """Decodes every text with a character that tokenizers are known to change, and one of `_EVERY` others."""
        found = []
        for start in range(0, len(records), _BATCH_RECORDS):
            looked_at = [
                (number, text)
                for index, (number, record) in enumerate(
                    zip(records.numbers[start : start + _BATCH_RECORDS], records.records[start:], strict=False), start
                )
                if index % _EVERY == 0 or any(map(_UNUSUAL.search, record))
                for text in record
            ]
            rows = self._responses([text for _, text in looked_at]) if looked_at else []
            found += [number for (number, text), row in zip(looked_at, rows, strict=True) if self.decode(row) != text]
        return list(dict.fromkeys(found))


def _refusal(records: RecordSet, refused: Mapping[str, list[int]]) -> str:
    """Why records cannot be encoded, the commonest reason first."""
    reasons = sorted(refused.items(), key=lambda entry: -len(entry[1]))
    total = len(records.records)
    told = [f"{reason}: {shown_numbers(numbers, total, records.parts)}." for reason, numbers in reasons[:3]]
    more = [f"And {len(reasons) - 3} more reasons."] if len(reasons) > 3 else []
    return f"{records.source}: {' '.join([*told, *more])}"
