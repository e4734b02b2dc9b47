"""One contestant of `step.py`, in a process of its own.

In: a job as JSON in argv[1]; then a line on stdin for each step to take. Out, on stdout: a JSON line when everything is
loaded and the first step may start, and one after each step. {"skip": reason} where the contestant cannot run.
What libraries print goes to stderr.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

ANSWERS = os.fdopen(os.dup(1), "w")
MICRO_BATCH = 8
LEARNING_RATE = 3e-4
# The demo model's own template, and what TRL needs to find the assistant's tokens in it.
SAID = "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
MARKED = (
    "{{'<|im_start|>' + message['role'] + '\n'}}{% if message['role'] == 'assistant' %}{% generation %}"
    "{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{% else %}{{ message['content'] + '<|im_end|>' }}"
    "{% endif %}{{ '\n' }}"
)


def answer(**figures: Any) -> None:
    """One line to step.py."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(json.dumps({**figures, "peak_rss_bytes": peak}), file=ANSWERS, flush=True)


def wait() -> None:
    """Until step.py says go; when it is gone, so are we. Freed memory is handed back, for others to use."""
    with contextlib.suppress(OSError, AttributeError):  # glibc only
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    if not sys.stdin.readline():
        os._exit(0)


def load(job: dict[str, Any], with_model: bool = True) -> tuple[Any, Any, Any, Any]:
    """The step's records, their encoder and examples, and the demo model with LoRA on it."""
    import torch

    from alpaca_lora.data.records import load_records
    from alpaca_lora.data.tokens import encoder_for
    from alpaca_lora.models.load import Placement, load_model, load_tokenizer, resolve_base
    from alpaca_lora.models.lora import add_lora

    base = resolve_base("demo")
    encoder = encoder_for(load_tokenizer(base), job["template"])
    records = load_records(pairs(job["data"]), objective="dpo") if job["pairs"] else load_records(job["data"])
    too_long = set(encoder.encode(records, job["cutoff_len"]).too_long)
    fit = [index for index, number in enumerate(records.numbers) if number not in too_long]
    if len(fit) < job["records"]:
        raise SystemExit(f"{job['data']} has {len(fit)} usable records; give --records a smaller number.")
    records = records.subset(fit[: job["records"]])
    model = None
    if with_model:
        torch.manual_seed(0)
        model = load_model(base, Placement(torch.device("cpu"), torch.float32))
        model = add_lora(model, r=job["lora_r"], alpha=16, dropout=0.0, targets=["q_proj", "v_proj"])
    return records, encoder, encoder.encode(records, job["cutoff_len"]), model


def pairs(data: str) -> list[dict[str, str]]:
    """Records as preferences: the rejected answer is the next record's, so both are about as long as outputs are."""
    from alpaca_lora.data.records import load_records

    records = load_records(data).records
    return [
        {
            **{name: getattr(record, name) for name in ("instruction", "input")},
            "chosen": record.output,
            "rejected": other,
        }
        for record, other in zip(records, [*(one.output for one in records[1:]), records[0].output], strict=True)
        if record.output != other
    ]


def clock(job: dict[str, Any], model: Any, settings: str | list[str]) -> Any:
    """A Trainer callback that takes a step when told to, times it, and answers.

    It also counts tokens, and keeps the gradients of the first step, which only warms up, for step.py to compare.
    """
    import transformers
    from safetensors.torch import save_file

    count = {"computed_tokens": 0, "supervised_tokens": 0}

    def count_tokens(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        count["computed_tokens"] += kwargs["input_ids"].numel()
        if kwargs.get("labels") is not None:  # a row's first token has nothing to predict it
            count["supervised_tokens"] += int((kwargs["labels"][:, 1:] != -100).sum())

    class Clock(transformers.TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            model.register_forward_pre_hook(count_tokens, with_kwargs=True)
            answer(settings="".join(settings))

        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            wait()
            count.update(computed_tokens=0, supervised_tokens=0)
            self.started = time.perf_counter(), time.process_time()

        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 0:
                trained = ((name, each) for name, each in model.named_parameters() if each.grad is not None)
                gradients = {name.replace("_orig_mod.", ""): each.grad.contiguous() for name, each in trained}
                save_file(gradients, Path(job["folder"]) / f"{job['contestant']}.safetensors")

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            wall, cpu = self.started
            self.took = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            if "loss" in logs:  # our trainer has no labels to count, but logs its supervised tokens
                supervised = logs.get("supervised_tokens", count["supervised_tokens"])
                answer(**self.took, loss=logs["loss"], **{**count, "supervised_tokens": supervised})

    return Clock()


def peer_arguments(job: dict[str, Any], rows: int) -> dict[str, Any]:
    """What transformers' and TRL's trainers are both told; a step is all rows, in the order they like."""
    return {
        "output_dir": job["folder"],
        "per_device_train_batch_size": MICRO_BATCH,
        "gradient_accumulation_steps": -(-rows // MICRO_BATCH),
        "max_steps": 1 + job["repeats"],
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
    }


def hf_padded(job: dict[str, Any]) -> None:
    """Plain transformers.Trainer on padded batches, labels -100 on prompt and padding."""
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

    _, encoder, examples, model = load(job)
    rows = [examples[index] for index in range(len(examples))]
    dataset = [
        {"input_ids": ids.tolist(), "labels": [-100] * prompt_len + ids[prompt_len:].tolist()}
        for ids, prompt_len in rows
    ]
    trainer = Trainer(
        model=model,
        args=TrainingArguments(**peer_arguments(job, len(dataset)), train_sampling_strategy="sequential"),
        train_dataset=dataset,
        data_collator=DataCollatorForSeq2Seq(encoder.tokenizer),
        callbacks=[clock(job, model, f"transformers {version('transformers')} Trainer, micro-batch {MICRO_BATCH}")],
    )
    trainer.train()


def trl(job: dict[str, Any], rows: str = "prompts", **changed: Any) -> None:
    """TRL's SFTTrainer at its defaults but for `changed`.

    Args:
        job: What step.py wants.
        rows: What a row is: a record with its prompt as text ("prompts"), one turn of a conversation ("turns"), or a
            whole conversation ("conversations").
        changed: Settings of SFTConfig.
    """
    from datasets import Dataset

    from alpaca_lora.data.tokens.chat_encoder import as_conversation

    try:
        from trl import SFTConfig, SFTTrainer
    except ImportError:
        return answer(skip="TRL is not installed: pip install trl==1.16.0")
    records, encoder, _, model = load(job)
    tokenizer = encoder.tokenizer
    if rows == "prompts":
        dataset = Dataset.from_list(
            [
                {"prompt": encoder.template.prompt(record.instruction, record.input), "completion": record.output}
                for record in records.records
            ]
        )
    else:
        said = [as_conversation(record) for record in records.records]
        if changed.get("assistant_only_loss"):
            mark(tokenizer, [list(one.messages) for one in said])
        if rows == "turns":
            turns = [one.upto(place) for one in said for place in one.trained]
            dataset = Dataset.from_list([{"prompt": turn[:-1], "completion": turn[-1:]} for turn in turns])
        else:
            dataset = Dataset.from_list([{"messages": list(one.messages)} for one in said])
    args = SFTConfig(**peer_arguments(job, len(dataset)), max_length=job["cutoff_len"], bf16=False, **changed)
    settings = (
        f"trl {version('trl')} SFTTrainer, micro-batch {MICRO_BATCH}, packing={args.packing}, "
        f"gradient_checkpointing={args.gradient_checkpointing}, order={args.train_sampling_strategy}, "
        f"loss_type={args.loss_type}, {len(dataset)} rows"
    )
    trainer = SFTTrainer(
        model=model,
        args=args,
        train_dataset=dataset,
        processing_class=tokenizer,
        callbacks=[clock(job, model, settings)],
    )
    trainer.train()


def trl_dpo(job: dict[str, Any], **changed: Any) -> None:
    """TRL's DPOTrainer at its defaults but for `changed`."""
    from datasets import Dataset

    try:
        from trl import DPOConfig, DPOTrainer
    except ImportError:
        return answer(skip="TRL is not installed: pip install trl==1.16.0")
    records, encoder, _, model = load(job)
    prompt = encoder.template.prompt
    dataset = Dataset.from_list(
        [
            {"prompt": prompt(*one.chosen[:2]), "chosen": one.chosen.output, "rejected": one.rejected.output}
            for one in records.records
        ]
    )
    args = DPOConfig(**peer_arguments(job, len(dataset)), max_length=job["cutoff_len"], bf16=False, **changed)
    settings = (
        f"trl {version('trl')} DPOTrainer, micro-batch {MICRO_BATCH} pairs, "
        f"gradient_checkpointing={args.gradient_checkpointing}, "
        f"precompute_ref_log_probs={args.precompute_ref_log_probs}"
    )
    trainer = DPOTrainer(
        model=model,
        args=args,
        train_dataset=dataset,
        processing_class=encoder.tokenizer,
        callbacks=[clock(job, model, settings)],
    )
    trainer.train()


def mark(tokenizer: Any, conversations: list[list[dict[str, Any]]]) -> None:
    """Mark the assistant's tokens in the tokenizer's chat template, which has no marks, and see that ids stay."""
    before = [tokenizer.apply_chat_template(messages)["input_ids"] for messages in conversations]
    tokenizer.chat_template = tokenizer.chat_template.replace(SAID, MARKED)
    assert MARKED in tokenizer.chat_template, "this is not the demo model's template"
    assert before == [tokenizer.apply_chat_template(messages)["input_ids"] for messages in conversations]


def ours(job: dict[str, Any], layout: str) -> None:
    """alpaca_lora, as `finetune` trains."""
    import torch

    from alpaca_lora.config import FinetuneConfig
    from alpaca_lora.models.load import Placement
    from alpaca_lora.planning.steps import plan_steps
    from alpaca_lora.training import pipeline

    _, _, examples, model = load(job)
    (output_dir := Path(job["folder"]) / layout).mkdir()
    config = FinetuneConfig(
        base_model="demo",
        data=job["data"],
        prompt_template=job["template"],
        output_dir=str(output_dir),
        cutoff_len=job["cutoff_len"],
        val_set_size=0,
        batch_size=job["records"],
        max_steps=1000,  # a run of a usual length, cut short by step.py: `compile` goes by the length
        learning_rate=LEARNING_RATE,
        lr_scheduler="constant",
        warmup_steps=0,
        lora_r=job["lora_r"],
        lora_alpha=16,
        lora_dropout=0.0,
        dtype="float32",
        save_steps=10**6,
        layout=layout,
        **({"max_tokens": job["max_tokens"]} if job["max_tokens"] else {}),
        **({"objective": "dpo"} if job["pairs"] else {}),
    )
    placement = Placement(model.device, torch.float32)
    steps = plan_steps(config, model.config, examples, placement)
    settings = f"alpaca_lora {version('alpaca_lora')}, layout {layout}, max_tokens {steps.planner.max_tokens}"
    on = pipeline.compiles(config, placement.device, sum(each.numel() for each in model.parameters()), steps)
    settings += f", {steps.packs_per_step} packs, layers {'compiled' if on else 'eager'}"

    said = [settings]
    trainer_for = pipeline.trainer_for

    def clocked(*of_the_run: Any) -> Any:
        """`train` takes no callbacks, and the rest of it is to be as users get it."""

        def make(**kwargs: Any) -> Any:
            trainer = trainer_for(*of_the_run)(**kwargs)
            trainer.add_callback(clock(job, model, said))
            if job["pairs"]:
                trainer.find_reference = timed(trainer.find_reference)
            return trainer

        return make

    def timed(find_reference: Any) -> Any:
        def find() -> None:
            started = time.perf_counter()
            find_reference()
            said.append(f", reference {time.perf_counter() - started:.2f} s before the first step")

        return find

    pipeline.trainer_for = clocked
    pipeline.train(config, model, placement, steps, None)


def gemm(job: dict[str, Any]) -> None:
    """The machine's float32 matrix product rate, and what the step needs at least. A turn: GFLOP/s by product."""
    import numpy as np
    import torch

    from alpaca_lora.data.packs import build_pack, by_prefix
    from alpaca_lora.models.load import load_config, resolve_base

    _, _, examples, _ = load(job, with_model=False)
    everything = by_prefix(examples, np.arange(len(examples)))  # all records in one pack: each token once
    pack = build_pack(examples, everything, "tree")
    config = load_config(resolve_base("demo"))
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    hidden, mlp, vocabulary = config.hidden_size, config.intermediate_size, config.vocab_size
    answer(
        tokens=pack.input_ids.size,
        supervised=len(pack.targets),
        cut_records=len(examples.truncated),
        visible_pairs=int((pack.subtree_end - np.arange(pack.input_ids.size)).sum()),  # who sees each token
        shape={
            "layers": config.num_hidden_layers,
            "hidden": hidden,
            "mlp": mlp,
            "vocabulary": vocabulary,
            "query_width": config.num_attention_heads * head_size,
            "key_width": config.num_key_value_heads * head_size,
        },
    )
    products = [(2048, hidden, mlp), (2048, mlp, hidden), (2048, hidden, hidden)]
    products += [(1024, hidden, vocabulary), (1024, vocabulary, hidden), (2048, 2048, 2048)]
    while True:
        wait()
        rates = {}
        for rows, inner, columns in products:
            left, right = torch.randn(rows, inner), torch.randn(columns, inner)
            out = torch.mm(left, right.T)  # as nn.Linear keeps its weight
            done, started = 0, time.perf_counter()
            while (seconds := time.perf_counter() - started) < 0.7:
                torch.mm(left, right.T, out=out)
                done += 1
            rates[f"{rows}x{inner}x{columns}"] = 2 * rows * inner * columns * done / seconds / 1e9
        print(json.dumps(rates), file=ANSWERS, flush=True)


def version(package: str) -> str:
    """Version of a module that is imported."""
    return sys.modules[package].__version__


def main() -> None:
    """Be the contestant the job names."""
    os.dup2(2, 1)  # only answers go to stdout
    job = json.loads(sys.argv[1])
    import torch

    torch.set_num_threads(job["threads"])
    match job["contestant"]:
        case "gemm":
            gemm(job)
        case "hf-padded":
            hf_padded(job)
        case "trl-default":
            trl(job)
        case "trl-grouped":
            trl(job, train_sampling_strategy="group_by_length")
        case "trl-no-ckpt":
            trl(job, gradient_checkpointing=False)
        case "trl-turns":
            trl(job, "turns")
        case "trl-turns-marked":
            trl(job, "turns", assistant_only_loss=True)
        case "trl-whole":
            trl(job, "conversations", assistant_only_loss=True)
        case "trl-whole-no-ckpt":
            trl(job, "conversations", assistant_only_loss=True, gradient_checkpointing=False)
        case "trl-dpo":
            trl_dpo(job)
        case "trl-dpo-no-ckpt":
            trl_dpo(job, gradient_checkpointing=False)
        case "trl-dpo-precomputed":
            trl_dpo(job, gradient_checkpointing=False, precompute_ref_log_probs=True)
        case layout:
            ours(job, layout)


if __name__ == "__main__":
    main()
