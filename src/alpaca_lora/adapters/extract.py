"""The LoRA nearest to full fine-tuning: the largest r directions of what it changed.

    D = W_tuned - W_base = U S V^T        B = U_r sqrt(S_r)    A = sqrt(S_r) V_r^T    scale 1

is the best approximation of rank r (Eckart and Young, doi 10.1007/BF02288367). In: two folders. Out: an adapter folder
that peft loads, and how far it is off. The directions are found by a randomised SVD (arXiv 0909.4061), seconds a large
matrix instead of minutes; the error is measured on the matrices that are written. Memory: a few times the largest
matrix, and the adapter.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from ..errors import AdapterError, ConfigError, counted
from ..models.fingerprint import computes, fingerprint
from ..models.hub import commit_of, split_revision
from ..models.load import load_config, resolve_base
from ..models.lora import check_targets
from ..models.shards import Shards, check_new, is_finite, new_folder, write_file
from ..runs.adapter_files import WEIGHTS, read_adapter
from ..runs.peft_config import read_config
from ..runs.run_file import RunFile, read_contract
from ..runs.saved_adapter import describe_adapter
from ..runs.whole_model import checked_folder

REPORT = "extraction.json"
_POWER_STEPS = 8  # each sharpens the directions found, at the cost of two products


@dataclass(frozen=True)
class Extraction:
    """What an extracted adapter keeps of a full fine-tuning, and what it does not.

    Args:
        modules: Relative Frobenius error ||D - B A|| / ||D|| of each module; 0 where nothing changed.
        modules_error: The same over all of them.
        error: The same over everything that changed, tensors without LoRA included.
        left_out: Tensors that changed and have no LoRA (norms, embeddings, the head), with ||D|| / ||W_base||; None
            where base and tuned model have them in different shapes.
    """

    modules: dict[str, float]
    modules_error: float
    error: float
    left_out: dict[str, float | None]


def extract(
    base_model: str | Path, tuned: str | Path, out: str | Path, *, r: int = 16, targets: list[str] | None = None
) -> Extraction:
    """Write the LoRA adapter of rank r that comes nearest to a fully fine-tuned model.

    Args:
        base_model: The base: a folder, a hub id, or `demo`.
        tuned: The tuned model.
        out: New or empty folder.
        r: Rank.
        targets: Names of linear modules; all but the head if left out.

    Raises:
        ConfigError: r or a target is wrong.
        AdapterError: the tuned model lacks a module's weights, or has them in another shape, or holds NaN or Inf.
    """
    from peft import LoraConfig

    if r < 1:
        raise ConfigError(f"lora_r: {r!r} must be a whole number of at least 1.")
    check_new(out)
    base, after = Shards(checked_folder(base_model)), Shards(checked_folder(tuned))
    chosen = _linear_modules(base.folder, targets)
    tensors: dict[str, torch.Tensor] = {}
    modules: dict[str, float] = {}
    left_out: dict[str, float | None] = {}
    kept = lost = 0.0  # squared norms: of the modules' changes, of what is missing from them
    beside = 0.0
    for name in sorted(after.entries):
        module = name.removesuffix(".weight")
        if name not in base.entries or base.entries[name].shape != after.entries[name].shape:
            left_out[name] = None
            continue
        before = base.read(name).float()
        change = after.read(name).float() - before
        if not is_finite(change):
            raise AdapterError(f"{tuned}: {name!r} holds NaN or Inf, or its base does. Train it again.")
        size = change.norm(dtype=torch.float64).item()
        if module in chosen:
            up, down = _factors(change, r)
            rest = torch.addmm(change, up, down, alpha=-1).norm(dtype=torch.float64).item()
            tensors[f"base_model.model.{module}.lora_A.weight"] = down
            tensors[f"base_model.model.{module}.lora_B.weight"] = up
            modules[module] = rest / size if size else 0.0
            kept, lost = kept + size**2, lost + rest**2
        elif size:
            left_out[name] = size / max(before.norm(dtype=torch.float64).item(), 1e-30)
            beside += size**2
    lacking = sorted(chosen - modules.keys())
    if lacking:
        raise AdapterError(
            f"{tuned}: lacks {counted(len(lacking), 'module')}, or has them in another shape, first {lacking[:2]}."
        )
    if not kept:
        raise AdapterError(f"{tuned}: no module differs from {str(base_model)!r}: there is nothing to extract.")
    found = Extraction(modules, math.sqrt(lost / kept), math.sqrt((lost + beside) / (kept + beside)), left_out)
    name, revision = split_revision(resolve_base(str(base_model)))  # what peft's own loading takes, of `demo` too
    config = LoraConfig(
        task_type="CAUSAL_LM",
        base_model_name_or_path=name,
        revision=revision,
        r=r,
        lora_alpha=r,
        target_modules=sorted({module.rsplit(".", 1)[-1] for module in chosen}),
        inference_mode=True,
    )
    with new_folder(out) as part:
        plan = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
        write_file(part / WEIGHTS, plan, tensors.__getitem__)
        config.save_pretrained(str(part))
        (part / REPORT).write_text(json.dumps(asdict(found), indent=2) + "\n", encoding="utf-8")
        _write_contract(part, base_model, base.folder, after.folder)
    return found


def _linear_modules(base: Path, targets: list[str] | None) -> set[str]:
    """Paths of the modules that get a LoRA."""
    from accelerate import init_empty_weights
    from torch import nn
    from transformers import AutoModelForCausalLM

    with init_empty_weights():
        model = AutoModelForCausalLM.from_config(load_config(str(base)), trust_remote_code=False)
    if targets is not None:
        check_targets(model, targets)
    head = model.get_output_embeddings()
    linear = {path for path, module in model.named_modules() if isinstance(module, nn.Linear) and module is not head}
    return {path for path in linear if targets is None or path.rsplit(".", 1)[-1] in targets}


def _factors(change: torch.Tensor, r: int) -> tuple[torch.Tensor, torch.Tensor]:
    """B (outputs, r) and A (r, inputs) with B A nearest to `change`; zeros where the matrix has fewer directions."""
    smaller = min(change.shape)
    with torch.random.fork_rng(devices=[]):  # its starting directions are random: the same ones each time
        torch.manual_seed(0)
        left, sizes, right = torch.svd_lowrank(change, q=min(2 * r + 8, smaller), niter=_POWER_STEPS)
    rank = min(r, smaller)
    root = sizes[:rank].sqrt()
    up, down = change.new_zeros(change.shape[0], r), change.new_zeros(r, change.shape[1])
    up[:, :rank], down[:rank] = left[:, :rank] * root, (right[:, :rank] * root).T
    return up, down


def _write_contract(part: Path, base_model: str | Path, base: Path, tuned: Path) -> None:
    """The tuned model's contract, where it has one, now with this base; and its tokenizer."""
    from ..models.load import load_tokenizer

    contract = read_contract(tuned)
    if contract is None:
        return
    load_tokenizer(str(tuned)).save_pretrained(part)
    computed = computes(load_config(str(base)))
    bound = replace(
        contract,
        base_model=str(base_model),
        base_fingerprint=fingerprint(str(base)),
        model_config=computed,
        base_revision=commit_of(resolve_base(str(base_model))),
    )
    RunFile(bound, adapter=describe_adapter(read_config(part), read_adapter(part))).write(part)
