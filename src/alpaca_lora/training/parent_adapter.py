"""The adapter a run starts from: its matrices go on training under its contract, in a new run that remembers it.

In: settings that name an adapter. Out: the same settings with the adapter's filled in, and a Parent: what the new run's
alpaca_lora.json says of it, and the means to put it on a base. Cost: the adapter is read and hashed once.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ..config import FinetuneConfig
from ..data.tokens import Encoder
from ..errors import AdapterError, ConfigError
from ..files import sha256_of_file
from ..models.distributed import processes
from ..models.fingerprint import computes
from ..models.load import load_tokenizer
from ..prompts import Template
from ..runs.adapter_files import WEIGHTS, check_adapter, load_adapter, named_base, read_adapter
from ..runs.contract import Contract, read_contract, read_run_file, run_file_in_use, settle
from ..runs.peft_config import CONFIG, CONTINUED, PLAIN_INITS

_DEFAULTS = {entry.name: entry.default for entry in fields(FinetuneConfig)}
_KEPT = ("lora_r", "lora_alpha", "lora_target_modules", "use_rslora", "use_dora")


@dataclass(frozen=True)
class Parent:
    """An adapter to go on from.

    Args:
        folder: Its folder.
        contract: Its contract; None where another tool made it.
        described: For the new run's alpaca_lora.json: path, sha256 of its weights, fingerprint of its data, and its own
            parent; None where unknown.
    """

    folder: Path
    contract: Contract | None
    described: dict[str, Any]

    def encoder(self, config: FinetuneConfig, base: str) -> Encoder:
        """Tokenizer and template trained with; without a contract the settings' template, and a warning.

        Args:
            config: The run's settings.
            base: What `resolve_base` gave.
        """
        if self.contract is None and processes().is_main_process:
            warnings.warn(
                f"{self.folder}: has no alpaca_lora.json, so it cannot be checked whether {config.base_model!r} is the "
                f"base it was trained on, nor with which tokenizer and template; {config.prompt_template!r} is used.",
                stacklevel=2,
            )
        template = self.contract.load_template() if self.contract else Template.load(config.prompt_template)
        source = str(self.folder) if (self.folder / "tokenizer_config.json").exists() else base
        encoder = Encoder(load_tokenizer(source), template)
        if self.contract is None:
            encoder.check_template()
        return encoder

    def contract_for(
        self, config: FinetuneConfig, encoder: Encoder, base_fingerprint: str, model_config: Any
    ) -> Contract:
        """The new run's contract: this one, with the base where it is now; `model_config` is the base's.

        Raises:
            AdapterError: base or tokenizer are not those it was trained with.
        """
        if self.contract is None:
            return Contract.of(encoder, config.base_model, base_fingerprint, model_config)
        found = self.contract.mismatches(encoder, base_fingerprint, model_config)
        settle([f"{self.folder}: {problem}" for problem in found], force=None)
        return replace(self.contract, base_model=config.base_model, model_config=computes(model_config))

    def put_on(self, model: Any, config: FinetuneConfig) -> Any:
        """A base with the adapter's matrices on it, which train, in float32.

        Raises:
            AdapterError: the adapter is damaged, not what its run wrote, or does not fit.
        """
        continued = load_adapter(model, self.folder, config.base_model, dropout=config.lora_dropout)
        continued.peft_config["default"].base_model_name_or_path = model.name_or_path
        return continued


def continue_from(config: FinetuneConfig) -> tuple[FinetuneConfig, Parent]:
    """The adapter that settings name, and the settings with what they leave at its default taken from it.

    Raises:
        AdapterError: it is no adapter, unfinished, damaged, or more than LoRA matrices on linear modules.
        ConfigError: settings that contradict it, all of them; or no base is named, by it or by the settings.
    """
    assert config.adapter is not None
    folder = Path(config.adapter)
    found = check_adapter(folder, "adapter: ")
    contract, content = read_contract(folder), read_run_file(folder) or {}
    kept, dropout = _settings_of(folder, found, content)
    problems = list(_contradictions(config, kept, contract))
    if contract is None and not config.base_model:
        problems.append(
            f"base_model is missing: {folder} has no alpaca_lora.json. Its {CONFIG} names {named_base(folder)!r}; if "
            "that is right, give it as base_model."
        )
    if problems:
        raise ConfigError(problems)
    if config.lora_dropout == _DEFAULTS["lora_dropout"]:  # dropout is training's, not the adapter's: it may be another
        kept["lora_dropout"] = dropout
    if contract is not None:
        kept["prompt_template"] = contract.load_template().name
        kept["base_model"] = config.base_model or contract.base_model
    with run_file_in_use(folder):
        data = content["data"]["fingerprint"] if "data" in content else None
        described = {"path": str(folder), "sha256": sha256_of_file(folder / WEIGHTS), "data": data}
        described["parent"] = _described(content.get("parent"))
    config = replace(config, **kept)
    processes().print(
        f"Going on from {folder}: base {config.base_model!r}, template {config.prompt_template!r}, rank "
        f"{config.lora_r}, alpha {config.lora_alpha:g}, dropout {config.lora_dropout:g}."
    )
    return config, Parent(folder, contract, described)


def _described(parent: Any) -> dict[str, Any] | None:
    """What a run file says of its run's parent, and of that one's; TypeError or KeyError where it is damaged."""
    if parent is None:
        return None
    path, sha256, data = parent["path"], parent["sha256"], parent["data"]
    if not isinstance(path, str) or not isinstance(sha256, str) or not isinstance(data, str | None):
        raise TypeError(f"parent is {parent!r}")
    return {"path": path, "sha256": sha256, "data": data, "parent": _described(parent["parent"])}


def _settings_of(folder: Path, found: Any, content: dict[str, Any]) -> tuple[dict[str, Any], float]:
    """Those of our settings that an adapter has decided, and the dropout it was trained with."""
    from peft import LoraConfig

    if found.peft_type != "LORA":
        raise AdapterError(
            f"{folder}: is an adapter of the kind {found.peft_type.value!r} (peft_type), which is not trained here. Go "
            "on with a LoRA, or merge this one with peft (merge_and_unload) and train on the result."
        )
    tensors = read_adapter(folder)
    try:
        says, plain = found.to_dict(), LoraConfig().to_dict()
        more = [key for key in says if key not in CONTINUED and says[key] != plain.get(key)]
        if says.get("init_lora_weights") not in PLAIN_INITS:
            more.append("init_lora_weights")
        targets = sorted({name.split(".")[-3] for name in tensors if ".lora_A." in name})
        run_targets = (content.get("config") or {}).get("lora_target_modules")
        kept = {
            "lora_r": found.r,
            "lora_alpha": found.lora_alpha,
            "lora_target_modules": run_targets if run_targets == "all-linear" else targets,
            "use_rslora": found.use_rslora,
            "use_dora": found.use_dora,
        }
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise AdapterError(
            f"{folder / CONFIG}: damaged or not LoRA: {error!r}. Give the folder finetune wrote."
        ) from error
    others = [
        name for name in tensors if not any(part in name for part in (".lora_A.", ".lora_B.", ".lora_magnitude_"))
    ]
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
