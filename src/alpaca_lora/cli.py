"""The `alpaca-lora` command: argv ends here, one function a command.

Options of `finetune` are the fields of `FinetuneConfig`, built by jsonargparse from the dataclass.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable
from inspect import Parameter, signature
from pathlib import Path
from typing import Any, Literal, NoReturn

from .config import FinetuneConfig, recipe_names, recipe_path
from .errors import AlpacaLoraError, ConfigError, RunInterrupted, did_you_mean

PROG = "alpaca-lora"


def finetune(config: FinetuneConfig) -> None:
    """Fine-tune a base model on instruction records."""
    from . import api

    run = api.finetune(config)
    if os.environ.get("RANK", "0") != "0":  # under torchrun one process reports
        return
    metrics = run.metrics
    for sample in run.samples:
        print(f"\n### {sample['instruction']}\n--- before\n{sample['before']}\n--- after\n{sample['after']}")
    print(f"\n{metrics['steps']} steps in {metrics['train_seconds']:.0f} s, last loss {metrics['loss']:.4f}", end="")
    if metrics["eval_loss_before"] is not None:
        print(f", validation loss {metrics['eval_loss_before']:.4f} -> {metrics['eval_loss_after']:.4f}", end="")
    here = _command()
    full = config.method == "full"
    print(
        f".\n{'Model' if full else 'Adapter'}, history, loss.png and model card: {run.output_dir}\n\nNext:\n"
        f'  {here} generate {run.output_dir} "Write a haiku about the sea."'
    )
    if not full:
        print(f"  {here} merge {run.output_dir} {run.output_dir}-merged")


def merge(
    adapter: str,
    out: str,
    base_model: str | None = None,
    also: list[str] | None = None,
    dtype: Literal["auto", "float32", "bfloat16"] = "auto",
    certify: bool = True,
    force: bool = False,
) -> None:
    """Merge an adapter into its base: a plain transformers folder that loads without peft.

    Args:
        adapter: Folder of a LoRA adapter.
        out: New folder to write.
        base_model: Where the base is now, if not where the adapter says.
        also: Folders of further adapters, merged after it in this order.
        dtype: Of the merged weights; auto is the base's own.
        certify: Compare logits with those of base + adapter; loads the model, in float32.
        force: Merge although base or tokenizer are not those trained with; the certificate says so.
    """
    from . import api

    adapters = [adapter, *(also or [])]
    folder = api.merge(adapters, out, base_model=base_model, dtype=dtype, certify=certify, force=force)
    measured = json.loads((folder / "merge_certificate.json").read_text(encoding="utf-8"))["logits"]
    print(f"Merged folder: {folder}")
    if certify:
        print(
            f"Logits are at most {measured['max_difference']:.1e} from base + adapter's; "
            f"{measured['same_greedy_answers']} of {measured['probes']} answers are the same."
        )
    print(f'Next:\n  {_command()} generate {out} "Write a haiku about the sea."')


def diff_make(base_model: str, tuned: str, out: str) -> None:
    """Write the difference between a tuned model and its base, as Stanford Alpaca released its weights."""
    from . import api

    print(f"Difference: {api.diff_make(base_model, tuned, out)}")
    print(f"Next:\n  {_command()} diff apply {out} {base_model} RESULT")


def diff_apply(diff: str, base_model: str, out: str) -> None:
    """Give back the tuned model, bit for bit, from a difference and its base."""
    from . import api

    print(f"Tuned model, bit for bit: {api.diff_apply(diff, base_model, out)}")


def diff_verify(diff: str, base_model: str | None = None, result: str | None = None) -> None:
    """Check a difference, and a base and a result where given, by the hash of every tensor."""
    from . import api

    found = api.diff_verify(diff, base_model, result)
    print("As they were: " + ", ".join(f"{count} tensors of the {part}" for part, count in found.items()) + ".")


def extract(base_model: str, tuned: str, out: str, r: int = 16, targets: list[str] | None = None) -> None:
    """Extract a LoRA adapter from a fully fine-tuned model, by SVD.

    Args:
        base_model: The base: a folder, a hub id, or `demo`.
        tuned: The fully fine-tuned model.
        out: New folder for the adapter.
        r: Rank.
        targets: Names of linear modules; all but the head if left out.
    """
    from . import api

    found = api.extract_lora(base_model, tuned, out, r=r, targets=targets)
    width = max(map(len, found.modules))
    for module, error in found.modules.items():
        print(f"{module:{width}}  {error:.4f}")
    print(f"Relative error of these {len(found.modules)} modules: {found.modules_error:.4f}")
    print(f"Of all that changed: {found.error:.4f} ({len(found.left_out)} tensors changed beside them)")
    print(f"Adapter: {out}")


def export(folder: str, out: str, format: Literal["gguf-f16", "gguf-q8_0", "ollama", "chat-template"]) -> None:
    """Write a merged or fully fine-tuned model for another program, with its template and stops.

    Args:
        folder: The model.
        out: New folder to write.
        format: A GGUF file for llama.cpp and Ollama, a Modelfile that names the folder, or the folder again with a
            chat template.
    """
    from . import api

    report = api.export(folder, out, format=format)
    print(f"{out}: {', '.join(report['files'])}")
    if measured := report.get("logits"):
        print(
            f"Logits are at most {measured['max_difference']:.1e} from the folder's (limit {measured['limit']:.1e}); "
            f"{measured['same_greedy_answers']} of {measured['probes']} answers are the same."
        )
    if "Modelfile" in report["files"]:
        print(f"Next:\n  ollama create NAME -f {out}/Modelfile")


def generate(
    model: str,
    instruction: str,
    input: str = "",
    prompt_template: str | None = None,
    max_new_tokens: int = 256,
    temperature: float = 0.0,
    top_p: float = 1.0,
    top_k: int = 0,
    repetition_penalty: float = 1.0,
    num_beams: int = 1,
    seed: int | None = None,
    force: bool = False,
) -> None:
    """Answer one instruction, streaming.

    Args:
        model: Adapter folder, merged folder, base folder, hub id, or `demo`.
        instruction: What to do.
        input: Context.
        prompt_template: For models without a contract; `alpaca` if left out.
        max_new_tokens: Most tokens of the answer.
        temperature: 0 takes the likeliest token each time; higher is more varied.
        top_p: Sample from the likeliest tokens that together have this probability.
        top_k: Sample from this many likeliest tokens; 0 is no limit.
        repetition_penalty: Above 1 makes tokens already used less likely.
        num_beams: Beams of a beam search; 1 is none.
        seed: Makes sampling repeatable.
        force: Go on where tokenizer, template or base are not those the adapter was trained with.
    """
    from . import api

    loaded = api.load(model, prompt_template=prompt_template, force=force)
    pieces = api.stream(
        loaded,
        instruction,
        input,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        repetition_penalty=repetition_penalty,
        num_beams=num_beams,
        seed=seed,
    )
    for piece in pieces:
        print(piece, end="", flush=True)
    print()


def chat(
    model: str,
    also: list[str] | None = None,
    prompt_template: str | None = None,
    max_new_tokens: int = 512,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int | None = None,
    moderation: str | None = None,
    force: bool = False,
) -> None:
    """Answer instructions typed in the terminal, each by itself.

    Args:
        model: Adapter folder, merged folder, base folder, hub id, or `demo`.
        also: Folders of further adapters, to switch between.
        prompt_template: For models without a contract; `alpaca` if left out.
        max_new_tokens: Most tokens of an answer.
        temperature: 0 takes the likeliest token each time; higher is more varied.
        top_p: Sample from the likeliest tokens that together have this probability.
        seed: Makes sampling repeatable.
        moderation: A file with a word or phrase a line that are refused, or the URL of an OpenAI-compatible endpoint,
            whose key is read from OPENAI_API_KEY.
        force: Go on where tokenizer, template or base are not those the adapter was trained with.
    """
    from . import api

    loaded = api.load(model, also=also or (), prompt_template=prompt_template, force=force)
    looks = _moderation(moderation)
    api.chat(loaded, moderation=looks, max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, seed=seed)


def serve(
    model: str,
    also: list[str] | None = None,
    prompt_template: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    web: bool = False,
    max_rows: int = 32,
    max_waiting: int = 64,
    moderation: str | None = None,
    force: bool = False,
) -> None:
    """Serve a model over HTTP, in OpenAI's protocol, and with a page for people.

    Args:
        model: Adapter folder, merged folder, base folder, hub id, or `demo`.
        also: Folders of further adapters; requests name them as `model`, and `base` is none of them.
        prompt_template: For models without a contract; `alpaca` if left out.
        host: What to bind. Another than this machine's own needs a token in ALPACA_LORA_TOKEN.
        port: 0 takes one that is free.
        web: A page at / beside the protocol.
        max_rows: Most answers made at once.
        max_waiting: Most requests that wait; one more is refused with status 429.
        moderation: A file with a word or phrase a line that are refused, or the URL of an OpenAI-compatible endpoint,
            whose key is read from OPENAI_API_KEY.
        force: Go on where tokenizer, template or base are not those the adapter was trained with.
    """
    from . import api

    def ready(url: str) -> None:
        print(f"Serving at {url}v1" if "?" not in url else f"Serving at {url}", end=". Ctrl-C ends it.\n", flush=True)
        if web:
            print(f"Page: {url}", flush=True)

    api.serve(
        model,
        also=also or (),
        prompt_template=prompt_template,
        host=host,
        port=port,
        token=os.environ.get("ALPACA_LORA_TOKEN"),
        web=web,
        max_rows=max_rows,
        max_waiting=max_waiting,
        moderation=_moderation(moderation),
        force=force,
        ready=ready,
    )


def _moderation(where: str | None) -> Any:
    from .inference.moderation import moderation_from

    return moderation_from(where, os.environ.get("OPENAI_API_KEY")) if where else None


def self_instruct_run(
    out: str,
    model: str | None = None,
    base_url: str | None = None,
    base_model: str | None = None,
    kind: Literal["chat", "completions"] = "chat",
    num_records: int = 1000,
    seeds: str = "seeds",
    domain: str | None = None,
    language: str = "English",
    mode: Literal["list", "json"] = "list",
    tasks_per_request: int = 20,
    temperature: float = 1.0,
    max_new_tokens: int = 3072,
    threshold: float = 0.7,
    seed: int = 42,
    concurrency: int = 8,
    timeout_seconds: float = 300,
    max_cost: float | None = None,
    max_tokens: int | None = None,
    price_in: float | None = None,
    price_out: float | None = None,
) -> None:
    """Have a language model write new records from seed records; the same command goes on where it ended.

    The server's key comes from the variable OPENAI_API_KEY.

    Args:
        out: Folder of the run.
        model: The server's name for the model.
        base_url: Address of an OpenAI-compatible API; if left out the variable OPENAI_BASE_URL, or OpenAI's.
        base_model: A model to run here instead: a folder, a hub id, or `demo`.
        kind: completions is for a server's model that only goes on with a text.
        num_records: Enough accepted records.
        seeds: Records to begin with: a file, a hub id, or `seeds`, the packaged ones.
        domain: What tasks are about ("medical questions for patients"); anything if left out.
        language: Of the tasks, by its English name.
        mode: The form answers have: a numbered list, or JSON.
        tasks_per_request: New tasks asked for at a time.
        temperature: Higher is more varied.
        max_new_tokens: Most tokens of an answer.
        threshold: ROUGE-L from which two instructions are too similar.
        seed: Of the draw of seed records.
        concurrency: Most requests in flight.
        timeout_seconds: Longest wait for an answer.
        max_cost: Most money for the whole folder, in the currency of the prices; needs both.
        max_tokens: Most tokens for the whole folder.
        price_in: Price of a million prompt tokens.
        price_out: Price of a million new tokens.
    """
    from . import api

    summary = api.self_instruct(
        out,
        model=model,
        base_url=base_url or os.environ.get("OPENAI_BASE_URL"),
        key=os.environ.get("OPENAI_API_KEY"),
        base_model=base_model,
        kind=kind,
        num_records=num_records,
        seeds=seeds,
        domain=domain,
        language=language,
        mode=mode,
        tasks_per_request=tasks_per_request,
        temperature=temperature,
        max_new_tokens=max_new_tokens,
        threshold=threshold,
        seed=seed,
        concurrency=concurrency,
        timeout_seconds=timeout_seconds,
        max_cost=max_cost,
        max_tokens=max_tokens,
        price_in=price_in,
        price_out=price_out,
    )
    print(summary)
    own = "" if seeds == "seeds" else f" --seeds {seeds}"
    print(f"A page about it:\n  {_command()} self-instruct report {out}{own}")
    if summary.ended == "no progress":
        sys.exit(1)
    if summary.accepted:
        print(f"Next:\n  {_command()} finetune --data {out}/records.jsonl --base_model BASE --output_dir TUNED")


def self_instruct_refilter(out: str, seeds: str = "seeds", threshold: float = 0.7) -> None:
    """Judge a run's answers again with another threshold; nothing is sent or paid.

    Args:
        out: Folder of the run.
        seeds: The records it began with.
        threshold: ROUGE-L from which two instructions are too similar.
    """
    from . import api

    print(api.refilter(out, seeds=seeds, threshold=threshold))


def self_instruct_report(out: str, seeds: str = "seeds") -> None:
    """Write a page about a run, finished or going on: counts, pictures, cost, samples.

    Args:
        out: Folder of the run.
        seeds: The records it began with.
    """
    from . import api

    print(api.self_instruct_report(out, seeds=seeds))


def answer(
    model: str,
    instructions: str,
    out: str,
    base_url: str | None = None,
    kind: Literal["chat", "completions"] = "chat",
    prompt_template: str | None = None,
    max_new_tokens: int = 512,
    temperature: float = 0.0,
    concurrency: int = 8,
    max_cost: float | None = None,
    max_tokens: int | None = None,
    price_in: float | None = None,
    price_out: float | None = None,
    force: bool = False,
) -> None:
    """Answer a file of instructions, in AlpacaEval's format; the same command goes on where it ended.

    A server's key comes from the variable OPENAI_API_KEY.

    Args:
        model: Adapter folder, merged folder, base folder, hub id, or `demo`.
        instructions: Records, Self-Instruct's tasks, AlpacaEval's format, or `probe`.
        out: A .json file to write.
        base_url: Address of an OpenAI-compatible API; MODEL is then its name for a model.
        kind: completions is for a server's model that only goes on with a text.
        prompt_template: For models without a contract; `alpaca` if left out.
        max_new_tokens: Most tokens of an answer.
        temperature: 0 takes the likeliest token each time; higher is more varied.
        concurrency: Most requests in flight at a server.
        max_cost: Most money for the whole file, in the currency of the prices; needs both.
        max_tokens: Most tokens for the whole file.
        price_in: Price of a million prompt tokens.
        price_out: Price of a million new tokens.
        force: Go on where tokenizer, template or base are not those the adapter was trained with.
    """
    from . import api

    answered = api.answer(
        model,
        instructions,
        out,
        base_url=base_url,
        key=os.environ.get("OPENAI_API_KEY") if base_url else None,
        kind=kind,
        prompt_template=prompt_template,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        concurrency=concurrency,
        max_cost=max_cost,
        max_tokens=max_tokens,
        price_in=price_in,
        price_out=price_out,
        force=force,
    )
    print(answered)
    if answered.ended == "budget":
        sys.exit(1)
    print(f"Next, with another model's answers:\n  {_command()} compare {out} OTHER.json --rate")


def compare(
    a: str | None = None,
    b: str | None = None,
    out: str | None = None,
    rate: bool = False,
    judge: str | None = None,
    preferences: str | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    share: float | None = None,
    raters: int | None = None,
    base_url: str | None = None,
    kind: Literal["chat", "completions"] = "chat",
    prompt_template: str | None = None,
    temperature: float = 0.0,
    concurrency: int = 8,
    max_cost: float | None = None,
    max_tokens: int | None = None,
    price_in: float | None = None,
    price_out: float | None = None,
    force: bool = False,
) -> None:
    """Compare two models' answers, by people or by a judge; or `report FOLDER`: the report anew.

    A server's key comes from the variable OPENAI_API_KEY.

    Args:
        a: A file of answers, or the word `report`.
        b: Another model's answers; after `report`, the folder of a comparison.
        out: Folder of the comparison; if left out, named after the files.
        rate: Serve a page on which people rate the pairs, blind, until Ctrl-C.
        judge: Have a model judge the pairs in both orders: an adapter, merged or base folder, hub id, or `demo`.
        preferences: Report on this file instead: AlpacaEval's annotations.json, or a table of preferences.
        host: What --rate binds.
        port: Of --rate; 0 takes one that is free.
        share: The part of the pairs that each rater gets; all if left out.
        raters: How many raters are expected; with --share only.
        base_url: Address of an OpenAI-compatible API; the judge is then its name for a model.
        kind: completions is for a server's model that only goes on with a text.
        prompt_template: For judges without a contract; `alpaca` if left out.
        temperature: Of the judge; 0 takes the likeliest token each time.
        concurrency: Most requests in flight at a server.
        max_cost: Most money for this judge, in the currency of the prices; needs both.
        max_tokens: Most tokens for this judge.
        price_in: Price of a million prompt tokens.
        price_out: Price of a million new tokens.
        force: Go on where the judge's tokenizer, template or base are not those it was trained with.
    """
    from . import api

    if preferences is not None:
        if a is not None or rate or judge is not None:
            raise ConfigError("preferences: has the votes already; leave the files of answers, --rate and --judge out.")
        print(api.compare_preferences(preferences, out or f"{Path(preferences).stem}-report"))
        return
    if a is None or b is None:
        raise ConfigError("compare: give two files of answers, or --preferences FILE, or report FOLDER.")
    if a == "report":
        print(api.compare_report(b))
        return
    if rate and judge is not None:
        raise ConfigError("rate, judge: give one at a time; the report has both, if --out is the same.")
    out = out or f"{Path(a).stem}-vs-{Path(b).stem}"
    if rate:

        def ready(url: str) -> None:
            print(f"Raters open {url}\nCtrl-C ends it; the same command goes on.", flush=True)

        print(api.rate(a, b, out, host=host, port=port, share=share, raters=raters, ready=ready))
        return
    compared = api.compare(
        a,
        b,
        out,
        judge=judge,
        base_url=base_url,
        key=os.environ.get("OPENAI_API_KEY") if base_url else None,
        kind=kind,
        prompt_template=prompt_template,
        temperature=temperature,
        concurrency=concurrency,
        max_cost=max_cost,
        max_tokens=max_tokens,
        price_in=price_in,
        price_out=price_out,
        force=force,
    )
    print(compared)
    if compared.report is None:
        print(f"Next:\n  {_command()} compare {a} {b} --out {out} --rate")


def inspect(
    data: str,
    base_model: str,
    prompt_template: str = "alpaca",
    cutoff_len: int = 512,
    train_on_inputs: bool = False,
    columns: dict[str, str] | None = None,
    examples: int = 3,
) -> None:
    """Show what training would see: counts, lengths, truncation, and examples with supervised tokens in green.

    Args:
        data: Records: a file, a hub id, or `seeds`.
        base_model: Its tokenizer is used; no weights are loaded.
        prompt_template: A packaged template or a JSON file.
        cutoff_len: Most tokens an example may have.
        train_on_inputs: Supervise the prompt too.
        columns: Names of the data's own columns.
        examples: Examples to show.
    """
    from rich.console import Console

    from . import api

    report = api.inspect(
        data,
        base_model,
        prompt_template=prompt_template,
        cutoff_len=cutoff_len,
        train_on_inputs=train_on_inputs,
        columns=columns,
    )
    console = Console(highlight=False)
    console.print(str(report), markup=False, soft_wrap=True)
    for text in report.examples_shown(examples):
        console.print()
        console.print(text, soft_wrap=True)


def lint(data: str, against: str | None = None, fix: str | None = None, columns: dict[str, str] | None = None) -> None:
    """Find what is wrong with instruction data; exit code 1 where errors are left, 0 for warnings.

    Args:
        data: Records: a file, a hub id, or `seeds`.
        against: An evaluation set, a file with any keys; records that share text with it are errors.
        fix: A new .json or .jsonl file for the records with white space, <noinput>, empty outputs and duplicates mended
            or removed; NAME.lint.json beside it says what was done, and what is left with all record numbers.
        columns: Names of the data's own columns.
    """
    from . import api

    report = api.lint(data, against=against, fix=fix, columns=columns)
    print(report)
    if report.errors:
        sys.exit(1)


def recipes(name: str | None = None) -> None:
    """List the packaged recipes, or print one."""
    if name is not None:
        print(recipe_path(name).read_text(encoding="utf-8"), end="")
        return
    width = max(map(len, recipe_names()))
    for known in recipe_names():
        head = recipe_path(known).read_text(encoding="utf-8").partition("\n")[0]
        print(f"{known:{width}}  {head.lstrip('# ')}")


def _command() -> str:
    """How this program was called, for commands to copy: `.venv/bin/alpaca-lora`, say."""
    return sys.argv[0] if sys.argv[0].endswith(PROG) else PROG


_GROUPS = {
    "diff": "Tuned models as differences to their base: make, apply, verify.",
    "self-instruct": "Records written by a language model: run, refilter, report.",
}
# Each command's function, and what is given without an option's name.
_COMMANDS: dict[str, tuple[Callable[..., None], dict[str, str]]] = {
    "finetune": (finetune, {}),
    "merge": (merge, {"adapter": "folder of a LoRA adapter", "out": "new folder to write"}),
    "diff make": (
        diff_make,
        {"base_model": "folder, hub id, or demo", "tuned": "the tuned model", "out": "new folder to write"},
    ),
    "diff apply": (
        diff_apply,
        {"diff": "what diff make wrote", "base_model": "folder, hub id, or demo", "out": "new folder to write"},
    ),
    "diff verify": (
        diff_verify,
        {"diff": "what diff make wrote", "base_model": "the base", "result": "what diff apply wrote"},
    ),
    "extract": (
        extract,
        {"base_model": "folder, hub id, or demo", "tuned": "a fully fine-tuned model", "out": "new folder to write"},
    ),
    "export": (export, {"folder": "a merged or fully fine-tuned model", "out": "new folder to write"}),
    "generate": (
        generate,
        {"model": "adapter, merged or base folder, hub id, or demo", "instruction": "what to do"},
    ),
    "self-instruct run": (self_instruct_run, {"out": "folder of the run"}),
    "self-instruct refilter": (self_instruct_refilter, {"out": "folder of the run"}),
    "self-instruct report": (self_instruct_report, {"out": "folder of the run"}),
    "chat": (chat, {"model": "adapter, merged or base folder, hub id, or demo"}),
    "serve": (serve, {"model": "adapter, merged or base folder, hub id, or demo"}),
    "answer": (
        answer,
        {
            "model": "adapter, merged or base folder, hub id, demo, or a server's model",
            "instructions": "a file of them, or probe: packaged questions on known limits",
            "out": "new .json file",
        },
    ),
    "compare": (
        compare,
        {"a": "a model's answers, or the word report", "b": "another's, or the folder to report on"},
    ),
    "inspect": (inspect, {"data": "records: a file, a hub id, or seeds"}),
    "lint": (lint, {"data": "records: a file, a hub id, or seeds"}),
    "recipes": (recipes, {"name": "the recipe to print; all are listed if left out"}),
}


def main(argv: list[str] | None = None) -> None:
    """Run a command; a user's mistake ends in one message and exit code 1 (2 for wrong options)."""
    warnings.formatwarning = lambda message, *place, **more: f"{PROG}: {message}\n"
    # On CPUs bitsandbytes misses a faster kernel for a product this library does not use, and says so at each start.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    try:
        arguments = _parser().parse_args(argv)
        command, given = arguments.command, arguments[arguments.command]
        if command in _GROUPS:
            command, given = f"{command} {given.command}", given[given.command]
        values = given.as_dict()
        if command == "finetune":
            values.pop("config")
            finetune(FinetuneConfig(**values))
        else:
            _COMMANDS[command][0](**values)
    except RunInterrupted as error:
        if os.environ.get("RANK", "0") == "0":
            print(f"{PROG}: {error}", file=sys.stderr)
        sys.exit(128 + error.signal)
    except AlpacaLoraError as error:
        rank = f" (rank {os.environ['RANK']})" if os.environ.get("WORLD_SIZE", "1") != "1" else ""
        sys.exit(f"{PROG}{rank}: {error}")
    except KeyboardInterrupt:
        print(f"\n{PROG}: interrupted", file=sys.stderr)
        sys.exit(130)


def _parser() -> Any:
    from jsonargparse import ActionConfigFile, ArgumentParser, set_parsing_settings  # type: ignore[attr-defined]

    from . import __version__

    class _Config(ActionConfigFile):  # type: ignore[misc]
        """A config file, or the name of a packaged recipe."""

        def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
            super().__call__(parser, cfg, str(recipe_path(values)), option_string)

    class _Parser(ArgumentParser):  # type: ignore[misc]
        """Names the nearest option where one is unknown."""

        def error(self, message: str, ex: Exception | None = None) -> NoReturn:  # type: ignore[override]
            unknown = re.match(r"unrecognized arguments: --([\w-]+)|.* does not accept option '([^']+)'", message)
            parser = getattr(ex, "subcommand_parser", None) or self
            known = [option.lstrip("-") for action in parser._actions for option in action.option_strings]
            near = did_you_mean(unknown[1] or unknown[2], known) if unknown else ""
            super().error(message + ("." + near if near else ""), ex)

    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    about = "Stanford Alpaca as one library; every speed-up is exact."
    parser = _Parser(prog=PROG, description=about, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"{PROG} {__version__}")
    commands = parser.add_subcommands(dest="command", metavar="COMMAND", title="commands", help="one of:")
    places = {"": commands}
    for name, (function, positional) in _COMMANDS.items():
        group, _, own = name.rpartition(" ")
        if group not in places:
            above = _Parser(prog=f"{PROG} {group}", description=_GROUPS[group], allow_abbrev=False)
            commands.add_subcommand(group, above, help=_GROUPS[group])
            places[group] = above.add_subcommands(dest="command", metavar="ACTION", title="actions", help="one of:")
        summary = (function.__doc__ or "").split("\n")[0]
        optional = {word for word in positional if signature(function).parameters[word].default is not Parameter.empty}
        words = [f"[{word.upper()}]" if word in optional else word.upper() for word in positional]
        usage = " ".join([PROG, name, *words, "[options]"])
        sub = _Parser(prog=f"{PROG} {name}", usage=usage, description=summary, allow_abbrev=False)
        if function is finetune:
            files = f"a YAML file of settings, or a packaged recipe: {', '.join(recipe_names())}; options after it win"
            sub.add_argument("--config", "--recipe", action=_Config, help=files)
            sub.add_class_arguments(FinetuneConfig)
        else:
            for word in positional:
                sub.add_argument(word, type=str, nargs="?" if word in optional else None, help=positional[word])
            sub.add_function_arguments(function, skip=set(positional))
        for action in sub._actions:
            if action.default is False:  # a switch may stand alone: --force is --force true
                action.nargs, action.const = "?", True
        places[group].add_subcommand(own, sub, help=summary)
    return parser
