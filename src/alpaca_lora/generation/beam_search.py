"""Beam search, which transformers does: one prompt at a time, no batching.

In: an answer that has not begun. Out: the same answer, ended.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessorList

from ..errors import ModelError
from .batching import Answer
from .sampler import NOT_FINITE


def beam_search(model: Any, answer: Answer, pad_id: int) -> None:
    """Take the tokens of an answer from a beam search over `answer.sampling.num_beams`.

    Raises:
        ModelError: the logits are not finite.
    """
    sampling = answer.sampling
    if sampling.seed is not None:
        torch.manual_seed(sampling.seed)
    sampled: dict[str, Any] = {}
    if sampling.temperature > 0:
        sampled = {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k}
    config = GenerationConfig(
        max_new_tokens=sampling.max_new_tokens,
        do_sample=sampling.temperature > 0,
        repetition_penalty=sampling.repetition_penalty,
        num_beams=sampling.num_beams,
        eos_token_id=sorted(answer.stop_ids),
        pad_token_id=pad_id,
        **sampled,
    )
    ids = torch.tensor([answer.prompt], device=model.device)
    # transformers fills in what `config` leaves out from the model's own settings, which single answers never see.
    own, model.generation_config = model.generation_config, GenerationConfig()
    try:
        with torch.no_grad():
            out = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                generation_config=config,
                logits_processor=LogitsProcessorList([_finite]),
            )
    finally:
        model.generation_config = own
    for token in out[0, len(answer.prompt) :].tolist():
        answer.take(token)


def _finite(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """What a beam search adds nothing to; ModelError where there is nothing to choose by."""
    if not bool(scores.max(-1).values.isfinite().all()):
        raise ModelError(NOT_FINITE)
    return scores
