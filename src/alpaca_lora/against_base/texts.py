"""The packaged texts, as examples: 100 general texts, 50 questions with answers, and the probe's questions.

general.jsonl   {"kind": "letters", "text": "..."} or {"kind": "logic", "question": "...", "answer": "..."}

They were written for this library, fourteen kinds in a dozen languages, short, and true where they state something. A
text stands alone behind what the tokenizer puts in front (BOS); a question is asked with the model's own template.
"""

from __future__ import annotations

import json
from importlib import resources
from typing import Any, NamedTuple

import numpy as np

from ..data.probe import probe_questions
from ..data.records import load_records
from ..data.tokens import Encoder, Examples


class GeneralTexts(NamedTuple):
    """Examples and the kind of each; texts and questions apart, for their supervised tokens begin elsewhere."""

    texts: Examples
    text_kinds: list[str]
    questions: Examples
    question_kinds: list[str]


def general_texts(encoder: Encoder, positions: int) -> GeneralTexts:
    """The general texts.

    Args:
        encoder: The tuned model's tokenizer and template.
        positions: Tokens the model reads at most; longer texts are cut.
    """
    rows = _rows()
    texts, asked = [row for row in rows if "text" in row], [row for row in rows if "question" in row]
    ids = [encoder.text_ids(row["text"])[:positions] for row in texts]
    first = max(len(encoder.prefix_ids), 1)  # nothing predicts the very first token
    records = load_records([{"instruction": row["question"], "output": row["answer"]} for row in asked])
    questions = encoder.encode(records, positions)
    return GeneralTexts(
        Examples.from_lists(ids, [first] * len(ids)),
        [row["kind"] for row in texts],
        questions,
        [asked[number - 1]["kind"] for number in questions.record_numbers],
    )


def probe_prompts(encoder: Encoder, positions: int) -> Examples:
    """The probe's questions; supervised is one token each, the first of the answer (EOS stands for it)."""
    prompts = [encoder.prompt_ids(*question) for question in probe_questions()]
    kept = [[*prompt, encoder.eos_id] for prompt in prompts if len(prompt) < positions]
    return Examples.from_lists(kept, [len(ids) - 1 for ids in kept])


def spread(examples: Examples, most: int) -> np.ndarray:
    """Indices of the sequences of at most so many records, evenly spread over all."""
    count = min(most, examples.records)
    return examples.sequences_of(np.arange(count) * examples.records // count)


def _rows() -> list[dict[str, Any]]:
    text = resources.files(__package__).joinpath("general.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]
