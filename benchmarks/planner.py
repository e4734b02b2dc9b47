"""The planner against truth: predicted and measured peak of tensors, on a CPU, for eight settings.

    python benchmarks/planner.py                     # about 12 minutes on one busy core
    python benchmarks/planner.py --only 2 5

Each setting is two real optimizer steps of the library's own trainer, in a process of its own. Measured by
torch.profiler with profile_memory: every block that torch's CPU allocator gives and takes back, operations' own buffers
included, beside the weights' storages. That is what formulas speak of, exact to the byte and independent of the
machine's load; resident memory adds libraries, fragments and pages kept for later. What products take for themselves
outside that allocator (oneDNN) is not in it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SETTINGS: list[tuple[str, dict[str, Any]]] = [
    ("demo", {"method": "lora", "layout": "padded", "max_tokens": 512}),
    ("demo", {"method": "full", "layout": "packed", "max_tokens": 256}),
    (
        "demo",
        {"method": "qlora", "layout": "tree", "max_tokens": 1024, "lora_target_modules": "all-linear"}
        | {"gradient_checkpointing": True},
    ),
    ("300M", {"method": "lora", "layout": "packed", "max_tokens": 512, "lora_target_modules": "all-linear"}),
    ("300M", {"method": "full", "layout": "tree", "max_tokens": 256, "gradient_checkpointing": True}),
    ("300M", {"method": "lora", "layout": "tree", "max_tokens": 1024, "lora_dropout": 0.0}),
    (
        "300M",
        {"method": "lora", "layout": "padded", "max_tokens": 256, "lora_target_modules": "all-linear"}
        | {"lora_dropout": 0.0, "dtype": "bfloat16"},
    ),
    ("demo", {"method": "full", "layout": "packed", "max_tokens": 256, "dtype": "bfloat16"}),
]
SHAPE_300M = {  # random weights: memory does not depend on their values
    **{"vocab_size": 49_152, "hidden_size": 1024, "intermediate_size": 2816},
    **{"num_hidden_layers": 16, "num_attention_heads": 16, "num_key_value_heads": 16},
}


def make_300m(folder: str) -> None:
    """A random LLaMA of 306 million parameters with the demo model's tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from alpaca_lora.models.load import load_tokenizer, resolve_base

    tokenizer = load_tokenizer(resolve_base("demo"))
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    torch.set_default_dtype(torch.bfloat16)
    LlamaForCausalLM(LlamaConfig(**SHAPE_300M, **ids)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def measure(base_model: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Two steps under the profiler, and what planning says of their micro-batches."""
    from torch.profiler import ProfilerActivity, profile

    from alpaca_lora.config import FinetuneConfig
    from alpaca_lora.data.pack_counts import count_pack
    from alpaca_lora.models.geometry import Geometry
    from alpaca_lora.models.load import Placement, resolve_base
    from alpaca_lora.planning.memory import Memory, MemoryModel, MicroBatchSize
    from alpaca_lora.planning.preparation import prepare
    from alpaca_lora.planning.steps import plan_steps
    from alpaca_lora.training.model import trainable_model
    from alpaca_lora.training.pipeline import train

    with tempfile.TemporaryDirectory() as folder:
        fixed = {"data": "seeds", "output_dir": folder, "batch_size": 4, "max_steps": 2, "val_set_size": 0}
        config = FinetuneConfig(base_model=base_model, warmup_steps=0, **fixed, **settings)
        base = resolve_base(base_model)
        data = prepare(config, base)
        placement = Placement.choose(config.dtype)
        steps = plan_steps(config, data.model_config, data.train, placement, data.mixture)
        model = trainable_model(config, base, placement)
        storages = [tensor.untyped_storage() for tensor in [*model.parameters(), *model.buffers()]]
        weights = sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
            train(config, model, placement, steps, None)
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    live = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        most = max(most, live)

    formula = MemoryModel(config, Geometry.of(data.model_config), config.dtype.replace("auto", "float32"), on_cpu=True)
    second = range(steps.packs_per_step, 2 * steps.packs_per_step)  # the optimizer has its state by then
    packs = {index: MicroBatchSize(**count_pack(steps[index])._asdict()) for index in second}
    found: Memory = max(
        (formula.training(batch, first=index == second[0]) for index, batch in packs.items()), key=lambda m: m.total
    )
    return {"measured": weights + most, "weights": weights, "predicted": found.total, "parts": found._asdict()}


def main() -> int:
    """Print the table; 1 where a prediction is off by more than 15%."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=int, nargs="*", default=range(1, len(SETTINGS) + 1))
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one[0], json.loads(args.one[1]))))
        return 0
    worst = 0.0
    parts = ("weights", "gradients", "optimizer", "copies", "activations", "logits")
    print("| MiB | " + " | ".join([*parts, "predicted", "measured", "off"]) + " |", flush=True)
    print("| --- |" + " ---: |" * (len(parts) + 3), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        if any(SETTINGS[number - 1][0] == "300M" for number in args.only):
            make_300m(folder)
        for number in args.only:
            name, settings = SETTINGS[number - 1]
            base = folder if name == "300M" else name
            command = [sys.executable, __file__, "--one", base, json.dumps(settings)]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
            row = json.loads(done.stdout.splitlines()[-1])
            off = row["predicted"] / row["measured"] - 1
            worst = max(worst, abs(off))
            cells = [*(row["parts"][part] for part in parts), row["predicted"], row["measured"]]
            again = ", checkpointing" if settings.get("gradient_checkpointing") else ""
            again += ", bfloat16" if "dtype" in settings else ""
            label = f"{name} {settings['method']}, {settings['layout']}, {settings['max_tokens']}{again}"
            print(
                f"| {label} | " + " | ".join(f"{cell / 2**20:.0f}" for cell in cells) + f" | {off:+.1%} |", flush=True
            )
    return int(worst > 0.15)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1] / "src"))
    sys.exit(main())
