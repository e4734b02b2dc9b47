"""A language model as judge: every pair of answers in both orders, no verdict guessed, nothing paid twice.

folder/judge-NAME/journal.jsonl   each request and reply (llm/journal.py); question 2 i asks about pair i
                                  with a's answer first, 2 i + 1 with b's first
"""

from __future__ import annotations

import hashlib
import re
import warnings

from ..errors import counted
from ..files import sha256_of_json
from ..generation.completion import Completion
from ..llm.job import RAISE_IT
from ..llm.journal import Journal
from ..llm.model_ref import ModelRef, Prompt, check_sampling
from ..llm.questions import Questions, Replies
from ..llm.reply import REMEDIES, read_reply
from .comparison import Comparison
from .judge_prompt import AGAIN, PROMPT, PROMPT_VERSION, question
from .verdicts import ATTEMPTS, MAX_NEW_TOKENS, Verdicts, parse_verdict, verdicts_in

_REMEDY = (
    'A verdict is a last line "Verdict: 1", "Verdict: 2" or "Verdict: tie"; dress around it is taken off. Name a judge '
    "that keeps to it."
)


def judge_pairs(comparison: Comparison, model: ModelRef, *, temperature: float = 0.0) -> Verdicts:
    """Have a model judge every pair in both orders, or continue.

    Returns:
        This judge's verdicts. If the budget ended them, `unasked` says how many questions are left.
    """
    check_sampling(temperature)
    settings = {
        **model.identity,
        **{"name": model.name, "temperature": temperature, "max_new_tokens": MAX_NEW_TOKENS},
        **{"prompt_version": PROMPT_VERSION, "prompt": sha256_of_json([PROMPT, AGAIN])},
        "comparison": comparison.fingerprint,
    }

    def prompt(number: int, replies: Replies) -> Prompt:
        text = question(comparison.pairs[number // 2], a_first=number % 2 == 0)
        return model.prompt(text + (AGAIN.format(number=len(replies) + 1) if replies else ""))

    with Journal(comparison.folder / f"judge-{_word(model.name)}", settings, {}) as journal:
        count = 2 * len(comparison.pairs)
        ended = Questions(
            journal,
            model,
            count,
            prompt,
            _problem,
            attempts=ATTEMPTS,
            max_new_tokens=MAX_NEW_TOKENS,
            temperature=temperature,
            unit="question",
        ).run()
        found = verdicts_in(comparison, journal.state)
    if ended == "budget":
        said = f"the judge's budget allows no more; {counted(found.unasked, 'question')} of {count:,} are not settled"
        warnings.warn(f"{said}. {RAISE_IT}", stacklevel=3)
    return found


def _problem(reply: Completion) -> str:
    if parse_verdict(reply) is not None:
        return ""
    if problem := read_reply(reply, MAX_NEW_TOKENS).problem:
        return REMEDIES[problem]
    if reply.finish_reason == "length":
        return f"It was cut off at {MAX_NEW_TOKENS} new tokens, before its verdict. Name a judge that is brief."
    return _REMEDY


def _word(name: str) -> str:
    """A model's name as part of a folder's name; two models never share one."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name)
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"
