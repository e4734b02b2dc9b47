"""The adapter a run starts from: its matrices go on training under its contract, in a new run that remembers it.

In: settings that name an adapter. Out: the same settings with the adapter's filled in, and a Parent: what the new run's
file says of it, and the means to put it on a base. Cost: the adapter is read and hashed once.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ..config import FinetuneConfig
from ..data.tokens import Encoder, encoder_for
from ..errors import AdapterError, ConfigError
from ..files import sha256_of_file
from ..models.distributed import processes
from ..models.fingerprint import computes
from ..models.hub import commit_of
from ..models.load import load_tokenizer
from ..prompts import Template
from ..runs.adapter_files import WEIGHTS
from ..runs.contract import Contract, refuse_or_warn
from ..runs.peft_config import CONFIG, CONTINUED, PLAIN_INITS
from ..runs.run_file import RUN_FILE, Ancestor
from ..runs.saved_adapter import SavedAdapter

_DEFAULTS = {entry.name: entry.default for entry in fields(FinetuneConfig)}


@dataclass(frozen=True)
class Parent:
    """An adapter to go on from.

    Args:
        saved: What its folder holds.
        described: For the new run's file.
    """

    saved: SavedAdapter
    described: Ancestor

    @property
    def folder(self) -> Path:
        """Its folder."""
        return self.saved.folder

    @property
    def contract(self) -> Contract | None:
        """Its contract; None if another tool made it."""
        return self.saved.contract

    def encoder(self, config: FinetuneConfig, base: str) -> Encoder:
        """Tokenizer and template trained with; without a contract the settings' template, and a warning.

        Args:
            config: The run's settings.
            base: What `resolve_base` gave.
        """
        if self.contract is None and processes().is_main_process:
            warnings.warn(
                f"{self.folder}: has no {RUN_FILE}, so it cannot be checked whether {config.base_model!r} is the "
                f"base it was trained on, nor with which tokenizer and template; {config.prompt_template!r} is used.",
                stacklevel=2,
            )
        template = self.contract.load_template() if self.contract else config.prompt_template
        source = str(self.folder) if (self.folder / "tokenizer_config.json").exists() else base
        return encoder_for(load_tokenizer(source), template)

    def contract_for(
        self, config: FinetuneConfig, encoder: Encoder, base: str, base_fingerprint: str, model_config: Any
    ) -> Contract:
        """The new run's contract: this one, with the base where it is now; `model_config` is the base's.

        Raises:
            AdapterError: base or tokenizer are not those it was trained with.
        """
        if self.contract is None:
            return Contract.of(encoder, config.base_model, base_fingerprint, model_config, commit_of(base))
        found = self.contract.mismatches(encoder, base_fingerprint, model_config)
        refuse_or_warn([f"{self.folder}: {problem}" for problem in found], force=None)
        now: dict[str, Any] = {"base_model": config.base_model, "base_revision": commit_of(base)}
        return replace(self.contract, model_config=computes(model_config), **now)

    def put_on(self, model: Any, config: FinetuneConfig) -> Any:
        """A base with the adapter's matrices on it, which train, in float32.

        Raises:
            AdapterError: the adapter is damaged, not what its run wrote, or does not fit.
        """
        continued = self.saved.put_on(model, config.base_model, dropout=config.lora_dropout)
        continued.peft_config["default"].base_model_name_or_path = model.name_or_path
        return continued


def continue_from(config: FinetuneConfig) -> tuple[FinetuneConfig, Parent]:
    """The adapter that settings name, and the settings with what they leave at its default taken from it.

    Raises:
        AdapterError: it is no adapter, unfinished, damaged, or more than LoRA matrices on linear modules.
        ConfigError: settings that contradict it, all of them; or no base is named, by it or by the settings.
    """
    assert config.adapter is not None
    saved = SavedAdapter.read(config.adapter, "adapter: ")
    folder, contract, run_file = saved.folder, saved.contract, saved.run_file
    kept, dropout = _settings_of(saved)
    problems = list(_contradictions(config, kept, contract))
    if contract is None and not config.base_model:
        problems.append(
            f"base_model is missing: {folder} has no {RUN_FILE}. Its {CONFIG} names {saved.named_base!r}; if "
            "that is right, give it as base_model."
        )
    if problems:
        raise ConfigError(problems)
    if config.lora_dropout == _DEFAULTS["lora_dropout"]:  # dropout is training's, not the adapter's: it may be another
        kept["lora_dropout"] = dropout
    if contract is not None:
        kept["prompt_template"] = contract.load_template().name
        kept["base_model"] = config.base_model or contract.pinned_base
    data = run_file.data.fingerprint if run_file and run_file.data else None
    grandparent = run_file.parent if run_file else None
    described = Ancestor(str(folder), sha256_of_file(folder / WEIGHTS), data, grandparent)
    config = replace(config, **kept)
    processes().print(
        f"Going on from {folder}: base {config.base_model!r}, template {config.prompt_template!r}, rank "
        f"{config.lora_r}, alpha {config.lora_alpha:g}, dropout {config.lora_dropout:g}."
    )
    return config, Parent(saved, described)


def _settings_of(saved: SavedAdapter) -> tuple[dict[str, Any], float]:
    """Those of our settings that an adapter has decided, and the dropout it was trained with."""
    from peft import LoraConfig

    folder, found, tensors = saved.folder, saved.config, saved.tensors
    if found.peft_type != "LORA":
        raise AdapterError(
            f"{folder}: is an adapter of the kind {found.peft_type.value!r} (peft_type), which is not trained here. Go "
            "on with a LoRA, or merge this one with peft (merge_and_unload) and train on the result."
        )
    try:
        says, plain = found.to_dict(), LoraConfig().to_dict()
        more = [key for key in says if key not in CONTINUED and says[key] != plain.get(key)]
        if says.get("init_lora_weights") not in PLAIN_INITS:
            more.append("init_lora_weights")
        targets = sorted({name.split(".")[-3] for name in tensors if ".lora_A." in name})
        run_targets = saved.run_file.config.get("lora_target_modules") if saved.run_file else None
        kept = {
            "lora_r": found.r,
            "lora_alpha": found.lora_alpha,
            "lora_target_modules": run_targets if run_targets == "all-linear" else targets,
            "rank_pattern": dict(found.rank_pattern) or None,
            "new_tokens": saved.run_file.config.get("new_tokens") if saved.run_file else None,
            "use_rslora": found.use_rslora,
            "use_dora": found.use_dora,
        }
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise AdapterError(
            f"{folder / CONFIG}: damaged or not LoRA: {error!r}. Give the folder finetune wrote."
        ) from error
    trained = [".lora_A.", ".lora_B.", ".lora_magnitude_"]
    if kept["new_tokens"]:  # of a run here, which has trained these rows and no others
        more = [key for key in more if key != "trainable_token_indices"]
        trained.append(".token_adapter.")
    others = [name for name in tensors if not any(part in name for part in trained)]
    ends = [name for name in targets if name in ("lm_head", "embed_tokens")]
    if more or others or ends:
        what = ", ".join([*(f"{key}={says.get(key)!r}" for key in more), *others[:2], *ends])
        raise AdapterError(
            f"{folder}: is more than LoRA, rsLoRA or DoRA on the decoder's linear modules ({what}), which is not "
            "trained here. Merge it first (alpaca-lora merge) and train on the result."
        )
    return kept, found.lora_dropout


def _contradictions(config: FinetuneConfig, kept: dict[str, Any], contract: Contract | None) -> Iterator[str]:
    """A sentence for each setting that is neither its default nor the adapter's."""
    for name, theirs in kept.items():
        ours = getattr(config, name)
        same = set(ours) == set(theirs) if isinstance(ours, list) and isinstance(theirs, list) else ours == theirs
        if not same and ours != _DEFAULTS[name]:
            yield f"{name}: {ours!r} is not that of the adapter {config.adapter}, {theirs!r}. Leave it out."
    if contract is None or config.prompt_template == _DEFAULTS["prompt_template"]:
        return
    theirs = contract.load_template()
    if Template.load(config.prompt_template).sha256 != theirs.sha256:
        yield (
            f"prompt_template: {config.prompt_template!r} is not that of the adapter {config.adapter}, "
            f"{theirs.name!r}. Leave it out."
        )
