"""The certificate of a merge: the same questions, asked base + adapters and the merged folder.

The two are loaded one after the other, on the CPU and in float32, whatever they are stored in: so what is measured is
what merging did to the weights, not how some device rounds its products.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..data.tokens import Encoder
from ..errors import AdapterError
from ..models.load import Placement, load_model
from ..runs.saved_adapter import SavedAdapter

PROBES = (
    ("Name three primary colours.", ""),
    ("Translate the sentence to French.", "The cat sleeps on the chair."),
    ("Write a haiku about rain.", ""),
    ("Give a synonym of 'quick'.", ""),
    ("What is the capital of France?", ""),
    ("Is this a fruit or a vegetable?", "carrot"),
    ("Add the numbers.", "2, 3 and 10"),
    ("Write a Python function that returns the square of a number.", ""),
    ("Why is the sky blue?", ""),
    ("Summarise in one sentence.", "The cat slept all day, and at night it hunted mice in the barn."),
    ("List five animals that live in the sea.", ""),
    ("Correct the spelling.", "I recieved teh letter yesterday."),
    ("Classify the review as positive or negative.", "The room was cold and the soup was colder."),
    ("Give three tips for staying healthy.", ""),
    ("Put the words in alphabetical order.", "pear, apple, fig, cherry"),
    ("Explain what a prime number is.", ""),
    ("Write a short e-mail that declines an invitation.", ""),
    ("What day comes after Tuesday?", ""),
    ("Make the sentence polite.", "Give me the book."),
    ("Tell a joke about a horse.", ""),
)
_NEW_TOKENS = 8
_FLOAT32_LIMIT = 1e-4  # of logits up to 10; larger ones round coarser, in proportion
_COARSE_LIMIT = 2e-2  # bfloat16 has 8 bits: weights move by up to 2e-3 of themselves


class Answers(NamedTuple):
    """Answers of a model, and what it made of its own words.

    Args:
        ids: For each probe, prompt and greedy answer.
        starts: Tokens of each prompt.
        logits: For each probe, at the prompt's last token and at each of the answer's, shape (9, vocabulary).
    """

    ids: list[torch.Tensor]
    starts: list[int]
    logits: list[torch.Tensor]


def check_memory(
    parameters: int,
    bytes_each: float = 4.4,
    what: str = "certify",
    advice: str = "Merge with certify=False, which needs little memory, or on a larger machine.",
) -> None:
    """Raise AdapterError where a comparison in float32 does not fit the free memory.

    Args:
        parameters: Number of parameters.
        bytes_each: Bytes per parameter.
        what: What asks for the comparison, for the message.
        advice: What to do instead, for the message.
    """
    import psutil  # accelerate and peft both need it

    needed, free = bytes_each * parameters, psutil.virtual_memory().available
    if needed > free:
        raise AdapterError(
            f"{what}: comparing logits loads the model in float32, about {needed / 1e9:.1f} GB, and {free / 1e9:.1f} "
            f"GB are free. {advice}"
        )


def reference_model(base: Path, adapters: Sequence[SavedAdapter], name: str) -> Any:
    """Base + adapters through peft, the last adapter unmerged; float32, on the CPU."""
    model = load_model(str(base), cpu_float32())
    for number, adapter in enumerate(adapters, start=1):
        model = adapter.put_on(model, name)
        if number < len(adapters):
            model = model.merge_and_unload(safe_merge=True)
    return model


def answers_of(model: Any, encoder: Encoder) -> Answers:
    """Have a model answer the probes greedily, and read its logits along the way."""
    prompts = [encoder.prompt_ids(*probe) for probe in PROBES]
    longest = max(map(len, prompts))
    rows = torch.tensor([[encoder.eos_id] * (longest - len(prompt)) + prompt for prompt in prompts])
    seen = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    from transformers import GenerationConfig

    config = GenerationConfig(
        max_new_tokens=_NEW_TOKENS,
        min_new_tokens=_NEW_TOKENS,
        do_sample=False,
        eos_token_id=encoder.eos_id,
        pad_token_id=encoder.eos_id,
    )
    with torch.no_grad():
        out = model.generate(input_ids=rows, attention_mask=seen, generation_config=config)
    ids = [row[longest - len(prompt) :] for row, prompt in zip(out, prompts, strict=True)]
    starts = [len(prompt) for prompt in prompts]
    return Answers(ids, starts, _logits(model, ids, starts))


def compare(folder: Path, before: Answers, *, exact: bool, out: str | Path) -> dict[str, Any]:
    """Read the merged folder's logits over the same tokens and compare.

    Args:
        folder: The merged folder.
        before: Answers of base + adapters.
        exact: The merged weights are float32.
        out: What the folder will be called, for messages.

    Returns:
        Largest and mean absolute difference, the largest logit, the limit, and in how many probes the likeliest token
        is the same at every place: there the two models answer the same, word for word.

    Raises:
        AdapterError: the difference is over the limit: 1e-4, or 1e-5 of the largest logit where that is more, if
            `exact` (the demo model's logits reach 33, and the order of float32's sums alone moves them by up to
            1.3e-4; in float64 merged and unmerged are equal); else 2e-2, or 2e-2 of the largest logit.
    """
    found = differences(load_model(str(folder), cpu_float32()), before)
    difference, largest = found["max_difference"], found["largest_logit"]
    limit = _FLOAT32_LIMIT * max(1.0, largest / 10) if exact else _COARSE_LIMIT * max(1.0, largest)
    if not difference <= limit:
        advice = "Train the adapter again with a lower learning_rate." if exact else "Merge with dtype='float32'."
        raise AdapterError(
            f"{out}: merged and unmerged logits differ by {difference:.2g}, more than the {limit:.2g} that rounding "
            f"explains; not kept. {advice}"
        )
    return {**found, "limit": limit}


def differences(model: Any, before: Answers) -> dict[str, Any]:
    """Have a model read another's answers, and compare the logits; what is found is as `compare` says."""
    after = _logits(model, before.ids, before.starts)
    apart = [(new - old).abs() for new, old in zip(after, before.logits, strict=True)]
    pairs = [*zip(after, before.logits, strict=True)]
    return {
        "probes": len(PROBES),
        "same_greedy_answers": sum(torch.equal(new.argmax(-1), old.argmax(-1)) for new, old in pairs),
        "max_difference": torch.stack([gap.max() for gap in apart]).max().item(),
        "mean_difference": torch.cat([gap.flatten() for gap in apart]).mean(dtype=torch.float64).item(),
        "mean_kl": torch.cat([_kl(old, new) for new, old in pairs]).mean(dtype=torch.float64).item(),
        "largest_logit": max(logits.abs().max().item() for logits in before.logits),
    }


def _logits(model: Any, ids: list[torch.Tensor], starts: list[int]) -> list[torch.Tensor]:
    with torch.no_grad():
        pairs = zip(ids, starts, strict=True)
        return [model(input_ids=row[None], logits_to_keep=len(row) - start + 1).logits[0] for row, start in pairs]


def cpu_float32() -> Placement:
    """Where models are compared."""
    return Placement(torch.device("cpu"), torch.float32)


def _kl(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """KL divergence of the distributions after from those before, nats, shape (places,)."""
    old, new = before.float().log_softmax(-1), after.float().log_softmax(-1)
    return (old.exp() * (old - new)).sum(-1)
