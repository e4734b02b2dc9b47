"""Log-probabilities of an answer's tokens, and of its prompt's, where somebody asks for them.

They are the model's own: the log-softmax, in float32, of its logits, before temperature, penalties and whatever else
decides which token is taken. They do not depend on the sampling, nor on who else is answered (float rounding aside).

    prompt   <s>   Cats   say   |  me   ow   </s>      the first token has none: nothing predicts it
    logprob   -    -7.1  -2.3   | -0.9 -0.1  -0.4      the token an answer stops at has one, too

Cost: a chosen token's is a softmax of logits that are there. A prompt's are read off the pass that computes it anyway,
the head a chunk of tokens at a time, so that a long prompt's logits (T, V) never exist at once; where logits are not
plainly `hidden @ weight.T` (models/predictions.py), it costs one more pass, with these logits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from ..errors import ModelError
from ..models.geometry import logit_rows
from ..models.predictions import PlainHead, chunks
from .sampler import NOT_FINITE

MAX_TOP = 20
"""Of how many of the likeliest tokens a place can tell."""
LEAST = -9999.0
"""Stands for the logarithm of 0, which JSON has no number for; OpenAI's own value."""


class TokenLogprob(NamedTuple):
    """A token, its log-probability, and the likeliest ones at its place with theirs, the likeliest first."""

    token: int
    logprob: float | None
    """None for a prompt's first token, which nothing predicts."""
    top: list[tuple[int, float]]


class Logprobs:
    """The log-probabilities of one answer, kept as its tokens are chosen.

    Args:
        top: How many of the likeliest tokens to tell of at each place, from 0 to `MAX_TOP`.
        of_prompt: Keep those of the prompt's tokens as well.
    """

    def __init__(self, top: int, of_prompt: bool = False) -> None:
        self.top, self.of_prompt = top, of_prompt
        self.prompt: list[TokenLogprob] = []
        """One for each token of the prompt; empty before that is computed."""
        self.chosen: list[TokenLogprob] = []
        """One for each token of the answer, and for the one it stopped at."""


def keep_chosen(wanting: Sequence[Logprobs], logits_MV: torch.Tensor, tokens: Sequence[int]) -> None:
    """Keep what the tokens chosen now have.

    Args:
        wanting: Of M answers.
        logits_MV: What they were chosen by.
        tokens: The tokens, M of them.
    """
    found = _read_off(logits_MV, tokens, max(logprobs.top for logprobs in wanting))
    for logprobs, one in zip(wanting, found, strict=True):
        logprobs.chosen.append(one._replace(top=one.top[: logprobs.top]))


def keep_prompt(
    model: Any, head: PlainHead | None, prompt: Sequence[int], states_TH: torch.Tensor | None, logprobs: Logprobs
) -> None:
    """Keep what the tokens of a prompt have.

    Args:
        model: A causal language model.
        head: Its head, if its logits are plain.
        prompt: T ids.
        states_TH: With a head, the last hidden states of the prompt.
        logprobs: Takes them.

    Raises:
        ModelError: they are not finite.
    """
    if head is None or states_TH is None:
        states_TH = model(input_ids=torch.tensor([prompt], device=model.device), use_cache=False).logits[0]
        weight_VH, most = None, len(prompt)
    else:
        weight_VH = head.linear.weight  # here: an adapter may train rows of the head
        most = logit_rows(len(weight_VH), on_cpu=weight_VH.device.type == "cpu")
        states_TH = states_TH.to(weight_VH.dtype)
    found = [TokenLogprob(prompt[0], None, [])]
    for part in chunks(len(prompt) - 1, most):
        states, targets = states_TH[:-1][part], prompt[1:][part]
        found += _read_off(states if weight_VH is None else states @ weight_VH.T, targets, logprobs.top)
    if any(math.isnan(one.logprob or 0) for one in found):
        raise ModelError(NOT_FINITE)
    logprobs.prompt = found


def _read_off(logits_MV: torch.Tensor, tokens: Sequence[int], top: int) -> list[TokenLogprob]:
    """Of M tokens, with the `top` likeliest at each place."""
    log_MV = torch.log_softmax(logits_MV.float(), dim=-1).clamp_(min=LEAST)
    own = log_MV.gather(1, torch.tensor(tokens, device=log_MV.device)[:, None])[:, 0].tolist()
    highest, ids = log_MV.topk(min(top, log_MV.shape[1]), dim=-1)
    likeliest = [list(zip(*pair, strict=True)) for pair in zip(ids.tolist(), highest.tolist(), strict=True)]
    return [TokenLogprob(*one) for one in zip(tokens, own, likeliest, strict=True)]
