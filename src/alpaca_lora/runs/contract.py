"""The contract: what an adapter was trained with, so that it is used the same way wherever it goes.

Kept in the run file (run_file.py). In: the encoder and base at hand. Out: a sentence for each mismatch.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.tokens import Encoder
from ..errors import AdapterError
from ..models.fingerprint import computes, differing, same_base
from ..models.hub import split_revision
from ..prompts import PromptTemplate, template_from


@dataclass(frozen=True)
class Contract:
    """What has to be the same at inference as it was in training."""

    base_model: str
    """As the user named it: a hub id, a folder, or `demo`."""
    base_fingerprint: str
    """`models.fingerprint.fingerprint` of the base."""
    template: dict[str, str]
    """The template's bytes."""
    tokenizer_fingerprint: str
    """`Encoder.fingerprint`."""
    prefix_ids: list[int]
    """Ids in front of every prompt (BOS, for LLaMA)."""
    eos_id: int
    stop_ids: list[int]
    """Generation ends at any of these."""
    pad_id: int | None
    model_config: dict[str, Any] | None = None
    """What the base's config.json computes; None in runs of earlier versions."""
    base_revision: str | None = None
    """The commit of a base on the hub; None for a folder, and in runs of earlier versions."""

    @classmethod
    def of(
        cls,
        encoder: Encoder,
        base_model: str,
        base_fingerprint: str,
        model_config: Any = None,
        base_revision: str | None = None,
    ) -> Contract:
        """The contract of a run that trains on what `encoder` encodes; `model_config` is what `load_config` gave."""
        return cls(
            base_model=base_model,
            base_fingerprint=base_fingerprint,
            template=encoder.template.to_dict(),
            tokenizer_fingerprint=encoder.fingerprint,
            prefix_ids=encoder.prefix_ids,
            eos_id=encoder.eos_id,
            stop_ids=encoder.stop_ids,
            pad_id=encoder.tokenizer.pad_token_id,
            model_config=None if model_config is None else computes(model_config),
            base_revision=base_revision,
        )

    @property
    def pinned_base(self) -> str:
        """The base as it is named for loading: on the hub, at the commit trained on."""
        if not self.base_revision or os.path.exists(self.base_model):
            return self.base_model
        return f"{split_revision(self.base_model)[0]}@{self.base_revision}"

    def mismatches(self, encoder: Encoder, base_fingerprint: str | None = None, model_config: Any = None) -> list[str]:
        """A sentence for everything at hand that is not what was trained with.

        Args:
            encoder: The tokenizer and the template that are to be used.
            base_fingerprint: Fingerprint of the base to be used; None for a whole model.
            model_config: Config of the model to be used, from `load_config`; None if it is not checked.
        """
        found = []
        template = self.load_template()
        if encoder.template.sha256 != template.sha256:
            found.append(
                f"the template {encoder.template.name!r} is not the one trained with, {template.name!r}. Leave "
                "prompt_template out to use that."
            )
        if encoder.fingerprint != self.tokenizer_fingerprint:
            found.append(
                f"the tokenizer is not the one trained with (base {self.base_model!r}): its vocabulary or special ids "
                "differ. Use the tokenizer files saved beside the adapter."
            )
        for what, now, then in (
            ("the ids in front of a prompt (BOS)", encoder.prefix_ids, self.prefix_ids),
            ("EOS", encoder.eos_id, self.eos_id),
        ):
            if now != then:
                found.append(f"{what}: {now} here, {then} in training.")
        if encoder.eos_id not in self.stop_ids:
            found.append(f"the stop ids {self.stop_ids} lack EOS, {encoder.eos_id}: answers would not end.")
        if base_fingerprint is not None and not same_base(self.base_fingerprint, base_fingerprint):
            alike = base_fingerprint.partition("-")[0] == self.base_fingerprint.partition("-")[0]
            found.append(
                f"the base is not the one trained on, {self.base_model!r}: it looks like it, but some of its weights "
                "have other values. Copy the model again."
                if alike
                else f"this adapter was trained on another base: it wants {self.base_model!r} (fingerprint "
                f"{self.base_fingerprint[:12]}), not one with fingerprint {base_fingerprint[:12]}."
            )
        elif model_config is not None and (other := differing(self.model_config or {}, computes(model_config))):
            whose = "the model's" if base_fingerprint is None else "the base's"
            found.append(
                f"{whose} config.json is not the one trained with: {'; '.join(other[:3])}"
                f"{'; ...' if len(other) > 3 else ''}. Copy it again from where it was made."
            )
        return found

    def check(
        self,
        encoder: Encoder,
        base_fingerprint: str | None,
        folder: str | Path,
        *,
        model_config: Any = None,
        force: bool | None = None,
    ) -> list[str]:
        """Refuse what does not match, all of it at once; or warn of it, once.

        Args:
            encoder: The tokenizer and the template that are to be used.
            base_fingerprint: Fingerprint of the base to be used; None for a whole model.
            folder: The adapter's, for messages.
            model_config: Of the model, from `load_config`, where it is to be checked. Not even `force` allows more
                token ids than it knows.
            force: Go on with a warning. None where the caller has no such choice to offer.

        Returns:
            What was gone on with.

        Raises:
            AdapterError: naming every mismatch.
        """
        found = self.mismatches(encoder, base_fingerprint, model_config)
        if found and model_config is not None and (never := self.unknown_ids(encoder, model_config.vocab_size)):
            found, force = [*found, never], None
        refuse_or_warn([f"{folder}: {problem}" for problem in found], force)
        return found

    def unknown_ids(self, encoder: Encoder, vocab_size: int) -> str:
        """Why a tokenizer with more ids than a base knows is never used with it; "" where it has no more."""
        if len(encoder.tokenizer) <= vocab_size:
            return ""
        return (
            f"the tokenizer has {len(encoder.tokenizer)} ids, and the base knows {vocab_size} only; nothing "
            f"uses them together. Use the base it was trained on, {self.base_model!r}."
        )

    def load_template(self) -> PromptTemplate:
        """The template trained with."""
        return template_from(self.template, "contract")


def refuse_or_warn(mismatches: list[str], force: bool | None) -> None:
    """Raise AdapterError naming every mismatch, or, where `force` is set, warn of them, once.

    Args:
        mismatches: Sentences.
        force: None where nothing can be forced, so that the error does not offer it.
    """
    if not mismatches:
        return
    one = len(mismatches) == 1
    listed = mismatches[0] if one else "\n  - ".join([f"{len(mismatches)} mismatches:", *mismatches])
    if not force:
        way_out = "" if force is None else f"{' ' if one else chr(10)}--force (force=True) goes on all the same."
        raise AdapterError(listed + way_out)
    warnings.warn(f"going on, as force says: {listed}", stacklevel=4)
