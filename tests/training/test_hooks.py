"""What is overridden or set in other libraries, by name and signature: a release that changes one fails here first.

Their upper bounds in pyproject.toml are the releases that this has not been seen with.
"""

from __future__ import annotations

import inspect
import re
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from peft import helpers
from peft.tuners.tuners_utils import BaseTunerLayer
from torch._dynamo import config as dynamo
from torch._inductor import config as inductor
from torch.nn.attention import flex_attention
from transformers import AttentionInterface, LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments
from transformers.masking_utils import AttentionMaskInterface

from alpaca_lora.training.trainer import AlpacaTrainer

ROOT = Path(__file__).parents[2]
TRAINER = {
    "_get_train_sampler": ["train_dataset"],
    "get_batch_samples": ["epoch_iterator", "num_batches", "device"],
    "training_step": ["model", "inputs", "num_items_in_batch"],
    "_get_grad_norm": ["model", "grad_norm"],
    "compute_loss": ["model", "inputs", "return_outputs", "num_items_in_batch"],
    "_save": ["output_dir", "state_dict"],
    "log": ["logs", "start_time"],
    "evaluate": ["eval_dataset", "ignore_keys", "metric_key_prefix"],
}


def parameters_of(function):
    return [name for name in inspect.signature(function).parameters if name != "self"]


@pytest.mark.parametrize("name", TRAINER)
def test_the_trainers_methods_take_what_ours_take(name):
    assert parameters_of(getattr(Trainer, name)) == TRAINER[name]
    assert parameters_of(getattr(AlpacaTrainer, name)) == TRAINER[name]


def test_no_other_method_of_the_trainer_is_overridden():
    ours = {name for name, value in vars(AlpacaTrainer).items() if inspect.isfunction(value)}
    assert {name for name in ours if hasattr(Trainer, name)} == {"__init__", *TRAINER}


def test_the_callbacks_methods():
    for name in ("on_train_begin", "on_step_begin", "on_step_end", "on_log", "on_evaluate", "on_save"):
        assert parameters_of(getattr(TrainerCallback, name)) == ["args", "state", "control", "kwargs"]


def test_how_the_trainer_loads_a_checkpoints_weights():
    """The best evaluation's are loaded as a resumed run's are."""
    assert parameters_of(Trainer._load_from_checkpoint) == ["resume_from_checkpoint", "model"]


def test_what_is_set_in_accelerate():
    """Autocast's cache, and on a CPU autocast and a scaler for float16."""
    accelerator = Accelerator(cpu=True)
    assert {"autocast_handler", "native_amp", "scaler"} <= vars(accelerator).keys()
    assert parameters_of(Accelerator.no_sync) == ["model"]
    assert parameters_of(AcceleratedOptimizer.__init__) == ["optimizer", "device_placement", "scaler"]


def test_what_is_set_in_training_arguments(tmp_path):
    """Without several GPUs in one process a pack is never split; gradients of shards are summed in float32."""
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    assert "_n_gpu" in vars(arguments)
    assert "fsdp_plugin_args" in vars(arguments)


def test_what_is_used_of_peft():
    assert parameters_of(helpers.disable_input_dtype_casting) == ["model", "active"]
    assert parameters_of(BaseTunerLayer._cast_input_dtype) == ["x", "dtype"]


def test_what_is_used_of_transformers():
    assert callable(AttentionInterface.register) and callable(AttentionMaskInterface.register)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=8, **sizes))
    assert isinstance(model.get_decoder().layers, torch.nn.ModuleList)
    found = []
    model.get_decoder().register_forward_hook(lambda module, inputs, output: found.append(output))
    logits = model(torch.tensor([[1, 2]]), logits_to_keep=torch.empty(0, dtype=torch.long)).logits
    assert logits.shape == (1, 0, 8)
    assert found[0][0] is found[0].last_hidden_state


def test_what_is_used_of_torch():
    """`compile` is undone by what it sets; the last is replaced by tests only."""
    layer = torch.nn.Linear(2, 2)
    layer.compile(backend="eager")
    assert layer._compiled_call_impl is not None
    assert parameters_of(flex_attention._validate_device) == ["query", "key", "value"]
    for name in ("recompile_limit", "fail_on_recompile_limit_hit", "optimize_ddp"):
        assert hasattr(dynamo, name)
    assert hasattr(inductor, "deterministic")


@pytest.mark.parametrize("package", ["transformers", "peft", "accelerate"])
def test_upper_bounds(package):
    """They are there, and what is installed keeps them."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (bound,) = re.findall(rf'"{package}>=[\d.]+,<(\d+)\.(\d+)"', text)
    assert tuple(map(int, version(package).split(".")[:2])) < tuple(map(int, bound))
