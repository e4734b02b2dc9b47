"""What each recipe and each number of GPUs takes in memory: the tables of docs/scaling.md, computed, not measured.

    PYTHONPATH=src python benchmarks/memory.py                    # micro-batches of 4,096 tokens
    PYTHONPATH=src python benchmarks/memory.py --tokens 16384

Formulas and what they leave out: `alpaca_lora.planning.memory`, `alpaca_lora.models.geometry`. Needs neither GPU nor
torch.
"""

from __future__ import annotations

import argparse

from alpaca_lora.config import FinetuneConfig, recipe_names
from alpaca_lora.models.geometry import SHAPES, Geometry
from alpaca_lora.planning.memory import MemoryModel, MicroBatchSize

GIB = 2**30
COUNTS = (1, 2, 4, 8, 16)


def parts(geometry: Geometry, config: FinetuneConfig, tokens: int, gpus: int = 1) -> dict[str, float]:
    """Bytes on each of `gpus` GPUs at the highest moment of a step of several micro-batches, half supervised."""
    batch = MicroBatchSize(tokens, tokens // 2, 0, config.cutoff_len)
    found = MemoryModel(config, geometry, "bfloat16", gpus).training(batch)._asdict()
    return {**found, "activations": found["activations"] + found.pop("logits")}


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---", *["---:"] * (len(head) - 1)], *rows])


def gib(count: float) -> str:
    """Bytes as GiB."""
    return f"{count / GIB:.1f}"


def sharded(name: str, recipe: str, tokens: int) -> str:
    """A model fully fine-tuned by `recipe`, over 1 to 16 GPUs; its LoRA below, for comparison."""
    full = FinetuneConfig.make(recipe)
    lora = FinetuneConfig.make(recipe.replace("alpaca", "alpaca-lora"), fsdp=True, gradient_checkpointing=True)
    found = [parts(SHAPES[name], full, tokens, gpus) for gpus in COUNTS]
    labels = {
        "weights": "weights, float32",
        "gradients": "gradients, float32",
        "optimizer": "AdamW, float32",
        "copies": "held whole, bfloat16",
        "activations": "activations",
    }
    rows = [[label, *(gib(each[part]) for each in found)] for part, label in labels.items()]
    rows.append(["**`full`, all**", *(f"**{gib(sum(each.values()))}**" for each in found)])
    alike = [parts(SHAPES[name], lora, tokens, gpus) for gpus in COUNTS]
    rows.append(["`lora` with `fsdp: true`, all", *(gib(sum(each.values())) for each in alike)])
    return table([f"{name}: GiB on each GPU", *(f"{gpus} GPU{'s' * (gpus > 1)}" for gpus in COUNTS)], rows)


def copied(tokens: int) -> str:
    """Methods whose weights are whole on every GPU, so that more GPUs change nothing but the time."""
    rows, again = [], {"gradient_checkpointing": True}
    for size in ("7b", "13b"):
        for label, recipe, changes in (
            ("`lora`", "alpaca-lora", {}),
            ("`lora`, checkpointing", "alpaca-lora", again),
            ("`lora`, 8 bits, checkpointing", "alpaca-lora", {**again, "load_in_8bit": True}),
            ("`qlora`, checkpointing", "alpaca-qlora", {}),
            ("`full`, 8-bit AdamW, checkpointing", "alpaca", {"fsdp": False, "optimizer": "paged_adamw_8bit"}),
        ):
            config = FinetuneConfig.make(f"{recipe}-{size}", **changes)
            found = parts(SHAPES[f"llama-{size}"], config, tokens)
            state = found["gradients"] + found["optimizer"]
            cells = [found["weights"], state, found["copies"], found["activations"], sum(found.values())]
            rows.append([f"{size.upper()} {label}", *map(gib, cells)])
    head = ["GiB on each GPU, whatever their number", "weights", "gradients, AdamW", "copies", "activations", "all"]
    return table(head, rows)


def recipes() -> str:
    """What learns in each recipe, a checkpoint (weight and two moments: 12 bytes), and the operations of a token.

    A token that sees 64 in the mean (sequences of 127, Alpaca's mean), every second one with a loss.
    """
    rows = []
    for name in recipe_names():
        config = FinetuneConfig.make(name)
        geometry = SHAPES.get(config.base_model.rpartition("/")[2])
        if geometry is None:
            continue
        lora = 0 if config.method == "full" else geometry.lora_parameters(config.lora_r, config.lora_target_modules)
        trained = lora or geometry.parameters
        flops = geometry.flops_per_token(config.method, 64, 0.5, lora, config.gradient_checkpointing)
        rows.append([f"`{name}`", f"{trained:,}", f"{12 * trained / 1e9:.1f} GB", f"{flops / 1e9:.0f} GFLOP"])
    return table(["recipe", "parameters that learn", "a checkpoint", "operations a token"], rows)


def report(tokens: int) -> str:
    """Everything, as docs/scaling.md has it."""
    sizes = (sharded(f"llama-{size}", f"alpaca-{size}", tokens) for size in ("7b", "13b"))
    return "\n\n".join([recipes(), copied(tokens), *sizes])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=4096, help="of a micro-batch, default %(default)s")
    print(report(parser.parse_args().tokens))
