"""What an adapter_config.json says: applied, or refused by name; nothing it says is passed over.

peft itself drops fields it does not know, imports the module that `megatron_core` names, and computes some kinds only
where a model is called in its own way. In: an adapter's folder. Out: peft's config. Nothing is imported that it names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..errors import AdapterError
from ..models.folder import what_is
from ..textfiles import read_json_file

CONFIG = "adapter_config.json"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Kinds that change what modules compute, each token by itself: peft's modules then answer here, in batches and with
# keys and values kept, as they do in peft. The others put tokens in front of the prompt (prompt tuning and its like),
# change attention, or need to be told more at each call.
_RUN = _words(
    "ADALORA BEFT BOFT C3A DEFT DELORA FOURIERFT FROD GLORA GRALORA HIRA HRA IA3 LN_TUNING LOHA LOKR LORA MISS OFT OSF "
    "PEANUT PSOFT PVERA RANDLORA ROAD SHIRA SUPERTUNING TINYLORA TRAINABLE_TOKENS UNILORA VBLORA VERA WAVEFT"
)

# Every field of peft's LoraConfig stands in one of these four; tests/runs/test_peft_config.py holds that.
# Where it came from and how it was trained: nothing to apply.
_SAYS = _words(
    "base_model_name_or_path revision task_type auto_mapping inference_mode peft_type peft_version lora_dropout "
    "runtime_config loftq_config eva_config corda_config lora_ga_config megatron_core qalora_group_size"
)
# Where the matrices are and their scale: applied, merged, and trained on.
_MATRICES = _words(
    "r lora_alpha target_modules use_rslora use_dora rank_pattern alpha_pattern exclude_modules layers_to_transform "
    "layers_pattern init_lora_weights"
)
# Applied as peft does it; not trained on.
_APPLIED = _words(
    "bias fan_in_fan_out modules_to_save trainable_token_indices lora_bias target_parameters ensure_weight_tying "
    "velora_config monteclora_config use_bdlora"
)
_REFUSED = {
    "alora_invocation_tokens": "it acts from certain tokens on (aLoRA)",
    "arrow_config": "it chooses among other adapters (Arrow)",
    "kasa_config": "it changes the base (KaSA)",
    "layer_replication": "it adds layers to the base",
    "megatron_config": "it is Megatron's, whose code would have to run",
    "use_qalora": "it is for a GPTQ base (QALoRA)",
}
_OLD = frozenset({"merge_weights"})  # of peft 0.2; it told how to hold the weights, not what they are
CONTINUED = _SAYS | _MATRICES
APPLIED = _MATRICES | _APPLIED

PLAIN_INITS = (True, False, "gaussian", "eva", "orthogonal")
_UNMERGED_INITS = ("mica",)
BASE_CHANGING_INITS = ("pissa", "olora")  # peft changes the base alike each time; other such starts it cannot repeat


def read_config(folder: str | Path) -> dict[str, Any]:
    """What a folder's adapter_config.json says; AdapterError if it is damaged."""
    return read_json_file(Path(folder) / CONFIG, AdapterError)


def peft_config(folder: str | Path, content: Mapping[str, Any]) -> Any:
    """An adapter's config, which peft can apply on this base or another.

    Args:
        folder: The adapter's folder, for messages.
        content: What `read_config` gave.

    Raises:
        AdapterError: it is not peft's, or says what cannot be applied here; that is named.
    """
    from peft import PeftConfig, __version__
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    path = Path(folder) / CONFIG
    kind = content.get("peft_type")
    if kind is None:
        what, advice = what_is(folder)
        raise AdapterError(f"{folder}: its {CONFIG} has no peft_type, so it is not peft's: it is {what}. {advice}")
    if not isinstance(kind, str) or kind not in _RUN:
        known = kind in list(PEFT_TYPE_TO_CONFIG_MAPPING)
        why = "is not applied here" if known else f"is not known to peft {__version__}"
        raise AdapterError(
            f"{folder}: is an adapter of the kind {kind!r} (peft_type), which {why}. Use it with the tool that made it"
            ", or train a LoRA."
        )
    task = content.get("task_type")
    if task not in (None, "CAUSAL_LM"):
        raise AdapterError(
            f"{folder}: was trained for the task {task!r} (task_type), and only CAUSAL_LM answers here. "
            "Use it with peft."
        )
    form = PEFT_TYPE_TO_CONFIG_MAPPING[kind]
    known_fields = {entry.name for entry in fields(form)} | {"runtime_config"}
    set_ = {name: value for name, value in content.items() if value not in (None, False, "", [], {})}
    if unknown := sorted(set_.keys() - known_fields - _OLD):
        made = content.get("peft_version", "another version")
        raise AdapterError(
            f"{folder}: its {CONFIG} says {_listed(unknown, content)}, which peft {__version__} does not know (it was "
            f"made by {made}), so it would act otherwise here. Install a newer peft, if one knows it."
        )
    if kind == "LORA":
        _check_lora(folder, set_, __version__)
    settings = {name: value for name, value in content.items() if name in known_fields - {"runtime_config"}}
    try:
        return PeftConfig.from_peft_type(**settings)
    except Exception as error:  # peft raises what its own code meets in values it did not expect
        reason = " ".join(str(error).split())[:300]
        raise AdapterError(f"{path}: peft cannot use it: {reason}. Copy it again from where it was made.") from error


def _check_lora(folder: str | Path, says: dict[str, Any], version: str) -> None:
    for name in sorted(says.keys() - CONTINUED - _APPLIED - _OLD):
        why = _REFUSED.get(name, f"it is newer than what is known here of peft {version}")
        raise AdapterError(
            f"{folder}: is more than LoRA: its {CONFIG} says {_listed([name], says)}: {why}, which is not applied "
            "here. Use it with peft."
        )
    start = says.get("init_lora_weights", True)
    if _start(start) not in (*PLAIN_INITS, *_UNMERGED_INITS, *BASE_CHANGING_INITS):
        raise AdapterError(
            f"{folder}: was made with init_lora_weights={start!r}, which changes the base in a way that cannot be "
            "repeated here. Convert it to a plain LoRA with peft first (save_pretrained with "
            "path_initial_model_for_weight_conversion)."
        )


def changes_base(config: Any) -> str:
    """The setting by which an adapter changes its base; "" where it does not."""
    if config.peft_type == "LORA" and (start := _start(config.init_lora_weights)) in BASE_CHANGING_INITS:
        return f"init_lora_weights={start!r}"
    bias = getattr(config, "bias", "none")
    return f"bias={bias!r}" if bias != "none" else ""


def _start(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _listed(names: list[str], content: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={str(content[name])[:60]}" for name in names)
