"""Decoder layers through torch.compile: norms, rotary positions, activations and LoRA's additions in a few passes.

Each layer is compiled by itself, and all layers share what was compiled. Matrix products stay what they are. Attention
by branches, whose calls differ from pack to pack, stays out of the graphs; FlexAttention becomes part of them.

    eager       norm | q k v | + LoRA | rope | attention | o | + LoRA | + | norm | gate up | + LoRA | silu | x ...
    compiled    [norm] q k v [+ LoRA, rope] attention o [+ LoRA, +, norm] gate up [+ LoRA, silu, x] ...

Kernels are made before the first step, for a small batch of zeros that is the same in every run: how torch cuts loops
depends on the sizes it sees first, and a run that was resumed must see the same ones to be bit-identical.
"""

from __future__ import annotations

import shutil
import sysconfig
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from ..config import FinetuneConfig
from ..data.packs import build_pack
from ..data.plan import Planner
from ..data.step_dataset import StepDataset, collate
from ..data.tokens import Examples
from ..errors import TrainingError
from ..models.attention import GRAPHS, PackMask
from ..models.distributed import processes

BACKEND = "inductor"
PAYS_FROM = 1e14
"""Operations from which `auto` compiles on a CPU, 8 minutes of two cores: a tenth of the time is saved, and compiling
takes 20 to 30 seconds of a CPU (6 where torch's cache has it from an earlier run). Not measured on a GPU: off there."""


def compiles(config: FinetuneConfig, device: torch.device, parameters: int, steps: StepDataset) -> bool:
    """Whether a run compiles its layers.

    Args:
        config: Its settings.
        device: Where it runs.
        parameters: All of the model's.
        steps: Its steps.
    """
    if config.compile != "auto":
        return config.compile
    if device.type != "cpu" or config.fsdp or config.use_dora or config.method == "qlora" or config.load_in_8bit:
        return False
    tokens = sum(plan.computed_tokens for plan in steps.plans) / len(steps.plans)
    operations = 4 * parameters * tokens * config.total_steps(steps.steps_per_epoch)
    return operations >= PAYS_FROM and compiler_is_here()


def compiler_is_here() -> bool:
    """Whether torch can make kernels for a CPU: it needs a C++ compiler and Python's headers."""
    compiler = any(shutil.which(name) for name in ("g++", "clang++"))
    return compiler and (Path(sysconfig.get_path("include")) / "Python.h").exists()


class CompiledLayers(TrainerCallback):
    """While it is entered, and from the beginning of training on, a model's decoder layers run compiled.

    Args:
        on: Whether they do at all.
        needed: A failure to compile ends the run; else it goes on uncompiled, with a warning.
        model: The model.
        planner: Whose layout the run's batches have.
    """

    def __init__(self, on: bool, needed: bool, model: Any, planner: Planner) -> None:
        self.layers = list(getattr(model.get_decoder(), "layers", [])) if on else []
        self.needed, self.model, self.planner = needed, model, planner
        if on and needed and not self.layers:
            raise TrainingError(f"compile: {type(model).__name__} has no list of decoder layers. Leave it out.")
        self.settings = ExitStack()

    def __enter__(self) -> CompiledLayers:
        if self.layers:
            import torch._dynamo
            import torch._inductor.config

            # Graphs differ by what learns and by training or evaluating; DDP would cut them into its own pieces.
            self.settings.enter_context(torch._dynamo.config.patch(recompile_limit=GRAPHS, optimize_ddp=False))
            # On a GPU, kernels would be chosen by timing them, and sums would differ from run to run.
            self.settings.enter_context(torch._inductor.config.patch(deterministic=True))
        return self

    def __exit__(self, *error: Any) -> None:
        self._uncompile()
        self.settings.close()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Compile, once the Trainer has prepared the model."""
        if not self.layers:
            return
        processes().print("Compiling the decoder layers; the first time takes half a minute or more.")
        try:
            for layer in self.layers:
                layer.compile(dynamic=True, backend=BACKEND)
            self._warm_up(args.device, evaluated=args.eval_strategy != "no")
        except Exception as error:  # torch has dozens, of its own and of compilers
            self._uncompile()
            said = " ".join(str(error).split())[:200]
            found = f"compile: torch.compile failed ({type(error).__name__}: {said})"
            if self.needed:
                raise TrainingError(f"{found}. Set compile=false.") from error
            warnings.warn(f"{found}; the layers run uncompiled. compile=false says so from the start.", stacklevel=2)

    def _warm_up(self, device: torch.device, evaluated: bool) -> None:
        """A forward and backward pass, and an evaluation's forward pass; nothing of them stays but the kernels."""
        zeros = Examples.from_lists([[0] * 128] * 4, prompt_lens=[32] * 4)
        pack = build_pack(zeros, [0, 1, 2, 3], self.planner.layout, self.planner.multiple)
        batch = {name: tensor.to(device) for name, tensor in collate([pack]).items()}
        masks = {"attention_mask": batch.get("attention_mask")}
        if "subtree_end" in batch:
            ends = batch["subtree_end"]
            masks = {"attention_mask": ends[:, None, None], "pack_mask": PackMask(ends[0])}
        masks["logits_to_keep"] = torch.empty(0, dtype=torch.long, device=device)
        inputs = {"input_ids": batch["input_ids"], "position_ids": batch["position_ids"], "use_cache": False, **masks}
        trained, was_training = [each for each in self.model.parameters() if each.requires_grad], self.model.training
        kept: list[torch.Tensor] = []
        hook = self.model.get_decoder().register_forward_hook(lambda module, given, output: kept.append(output[0]))
        try:
            with torch.random.fork_rng([device] if device.type == "cuda" else []):
                self.model.train()
                self.model(**inputs)
                torch.autograd.grad(kept[0].float().sum(), trained, allow_unused=True)  # gradients are no one's
                if evaluated:
                    self.model.eval()
                    with torch.no_grad():
                        self.model(**inputs)
        finally:
            hook.remove()
            self.model.train(was_training)

    def _uncompile(self) -> None:
        for layer in self.layers:
            layer._compiled_call_impl = None  # what `compile` sets; torch has no word for undoing it
        self.layers = []
