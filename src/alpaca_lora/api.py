"""The library's functions: what notebooks call and the command line wraps.

from alpaca_lora import finetune
run = finetune(base_model="demo", data="seeds", output_dir="out", batch_size=10, max_steps=3)
run.generate("Name three fruits.")
run.merge("merged")
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .config import FinetuneConfig
from .errors import ConfigError

if TYPE_CHECKING:
    from .adapters.export import ExportFormat
    from .adapters.extract import Extraction
    from .adapters.merge import OutputDtype
    from .data.lint.report import LintReport
    from .data.report import DataReport
    from .evaluation.answer import Answered
    from .evaluation.compare import Compared
    from .inference.local import LocalModel
    from .inference.moderation import Moderation
    from .selfinstruct.summary import Summary


@dataclass(frozen=True)
class Run:
    """A finished run; everything it knows is in its folder, so `Run(folder)` works later too."""

    output_dir: Path

    @property
    def adapter_dir(self) -> Path:
        """Folder of the adapter."""
        return self.output_dir

    @property
    def history(self) -> list[dict[str, Any]]:
        """A dict an optimizer step and evaluation, as in history.jsonl."""
        from .training.history import read_history

        return read_history(self.output_dir)

    @property
    def samples(self) -> list[dict[str, str]]:
        """`sample_instructions` with the answers before and after training."""
        return self._file["samples"]

    @property
    def metrics(self) -> dict[str, Any]:
        """Losses before and after, steps, tokens and seconds."""
        return self._file["metrics"]

    def plot(self) -> Any:
        """A matplotlib Figure of training and validation loss."""
        from .training.history import plot_history

        return plot_history(self.history, self.output_dir.name)

    def generate(self, instruction: str, input: str = "", **sampling: Any) -> str:
        """The tuned model's answer; `sampling` as for `generate`."""
        return generate(self._model, instruction, input, **sampling)

    def merge(self, out: str | Path) -> Path:
        """Merge the adapter into its base; see `merge`."""
        return merge(self.output_dir, out)

    @property
    def _file(self) -> dict[str, Any]:
        return json.loads((self.output_dir / "alpaca_lora.json").read_text(encoding="utf-8"))

    @cached_property
    def _model(self) -> LocalModel:
        return load(self.output_dir)


def finetune(config: FinetuneConfig | None = None, *, recipe: str | None = None, **overrides: Any) -> Run:
    """Fine-tune a base model: LoRA or QLoRA beside frozen weights, or all weights.

    Args:
        config: A whole config; or, instead,
        recipe: a packaged recipe's name or a YAML file, and
        **overrides: any field of `FinetuneConfig`; they win over the recipe.

    Returns:
        The run; its folder holds the adapter (the whole model with `method="full"`), history.jsonl, loss.png, a model
        card and alpaca_lora.json.

    Raises:
        ConfigError: wrong settings, all of them at once.
        DataError: records that cannot be used.
        ModelError: a base that cannot be used.
        TrainingError: losses that are no numbers, a full disk, no memory for a single example.
        RunInterrupted: Ctrl-C or SIGTERM; the run has a checkpoint and `resume="auto"` continues it.
    """
    if config is None:
        config = FinetuneConfig.make(recipe, **overrides)
    elif recipe or overrides:
        raise ConfigError("finetune: give either a config, or a recipe and settings, not both.")
    return _finetune(config)


def load(
    path: str | Path,
    *,
    base_model: str | None = None,
    prompt_template: str | None = None,
    also: Sequence[str | Path] = (),
    force: bool = False,
) -> LocalModel:
    """Load an adapter folder, a merged folder or a base for generation.

    Args:
        path: Folder, hub id of a base, or `demo`.
        base_model: For an adapter: where its base is now, if not where the adapter says.
        prompt_template: For models without a contract; `alpaca` if left out.
        also: Further adapters of the same base, each called by its folder's name; `base` is the base itself.
        force: Go on where tokenizer, template or base are not those the adapter was trained with.

    Raises:
        AdapterError: an adapter is damaged, or not for this base, tokenizer or template.
        ModelError: the base cannot be loaded.
    """
    from .inference.local import LocalModel

    return LocalModel.load(path, base_model=base_model, prompt_template=prompt_template, also=also, force=force)


def generate(
    model: str | Path | LocalModel, instruction: str, input: str = "", *, adapter: str | None = None, **sampling: Any
) -> str:
    """The answer to one instruction; for many, `load(...).answers([...])` makes them together, several times as fast.

    Args:
        model: What `load` returned, or anything it takes.
        instruction: What to do.
        input: Context, may be empty.
        adapter: Which of several adapters answers; `base` is none of them.
        **sampling: Fields of `Sampling`: max_new_tokens, temperature, top_p, top_k, repetition_penalty, num_beams,
            seed, stop.
    """
    from .inference.sampling import Sampling

    loaded = load(model) if isinstance(model, str | Path) else model
    return loaded.generate(instruction, input, Sampling(**sampling), adapter)


def stream(
    model: str | Path | LocalModel, instruction: str, input: str = "", *, adapter: str | None = None, **sampling: Any
) -> Iterator[str]:
    """As `generate`, in pieces as they are made."""
    from .inference.sampling import Sampling

    loaded = load(model) if isinstance(model, str | Path) else model
    return loaded.stream(instruction, input, Sampling(**sampling), adapter)


def chat(model: str | Path | LocalModel, *, moderation: Moderation | None = None, **sampling: Any) -> None:
    """Answer instructions typed in the terminal, each by itself, until the end of input; see `generate`."""
    from .inference.chat import chat as talk
    from .inference.sampling import Sampling

    talk(load(model) if isinstance(model, str | Path) else model, Sampling(**sampling), moderation)


def serve(
    model: str | Path | LocalModel,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    web: bool = False,
    max_rows: int = 32,
    max_waiting: int = 64,
    moderation: Moderation | None = None,
    also: Sequence[str | Path] = (),
    prompt_template: str | None = None,
    force: bool = False,
    ready: Callable[[str], None] = print,
) -> None:
    """Serve a model over HTTP, in OpenAI's protocol, until Ctrl-C or SIGTERM.

    Args:
        model: What `load` returned, or anything it takes.
        host: What to bind.
        port: 0 takes one that is free.
        token: What clients must present; needed where `host` is not this machine's own.
        web: With a page for people at /, too.
        max_rows: Most answers made at once.
        max_waiting: Most requests that wait; one more is refused with status 429.
        moderation: Called with each prompt and each answer; returns why it is refused, or None.
        also: Further adapters, as for `load`.
        prompt_template: As for `load`.
        force: As for `load`.
        ready: Called with the address once requests are answered.

    Raises:
        ConfigError: the port is taken, or the address needs a token.
        AdapterError, ModelError: as `load`.
        MissingDependencyError: the extra `serve`, or `web`, is not installed.
    """
    from .inference.serve import serve_model

    def loaded() -> LocalModel:
        if not isinstance(model, str | Path):
            return model
        return load(model, also=also, prompt_template=prompt_template, force=force)

    serve_model(
        loaded,
        host=host,
        port=port,
        token=token,
        web=web,
        max_rows=max_rows,
        max_waiting=max_waiting,
        moderation=moderation,
        ready=ready,
    )


def merge(
    adapter: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    base_model: str | None = None,
    dtype: OutputDtype = "auto",
    certify: bool = True,
    force: bool = False,
) -> Path:
    """Merge an adapter into its full-precision base and write a plain transformers folder, a tensor at a time.

    Args:
        adapter: Folder of a LoRA adapter, or several, which are merged one after the other.
        out: New or empty folder.
        base_model: Where the base is now, if not where the adapter says.
        dtype: Of the merged weights: "float32", "bfloat16", or "auto", the base's own.
        certify: Compare logits with those of base + adapter. This loads the model in float32; without it, merging needs
            little memory.
        force: Merge although the base or tokenizer is not the one trained with; the certificate says so.

    Returns:
        `out`. Its merge_certificate.json tells what was merged and what was measured.

    Raises:
        AdapterError: not an adapter, another base, a merged tensor that is not finite, or logits that differ by more
            than rounding explains (float32: 1e-4, or 1e-5 of the largest logit).
        ModelError: the base is quantised or cannot be read.
    """
    from .adapters.merge import merge_adapters

    if dtype not in ("auto", "float32", "bfloat16"):
        raise ConfigError(f"dtype: {dtype!r} must be auto, float32 or bfloat16.")
    adapters = [adapter] if isinstance(adapter, str | Path) else list(adapter)
    merge_adapters(adapters, out, base_model=base_model, dtype=dtype, certify=certify, force=force)
    return Path(out)


def diff_make(base_model: str | Path, tuned: str | Path, out: str | Path) -> Path:
    """Write the difference between a tuned model and its base, which is of no use without that base.

    Args:
        base_model: The base: a folder, a hub id, or `demo`.
        tuned: The tuned model.
        out: New or empty folder.

    Returns:
        `out`: differences of all tensors, hashes of base, difference and result, and the tuned model's other files.
    """
    from .adapters.diff import make_diff

    return make_diff(base_model, tuned, out)


def diff_apply(diff: str | Path, base_model: str | Path, out: str | Path) -> Path:
    """Give back the tuned model, bit for bit, from a difference and its base.

    Args:
        diff: What `diff_make` wrote.
        base_model: The base.
        out: New or empty folder.

    Raises:
        AdapterError: a tensor of diff, base or result is not the one the difference was made with; it is named.
    """
    from .adapters.diff import apply_diff

    return apply_diff(diff, base_model, out)


def diff_verify(
    diff: str | Path, base_model: str | Path | None = None, result: str | Path | None = None
) -> dict[str, int]:
    """Check a difference, and a base and a result where given, against the hashes it was made with.

    Returns:
        How many tensors were checked: `diff`, `base`, `result`.

    Raises:
        AdapterError: some are not the same; they are named.
    """
    from .adapters.diff import verify_diff

    return verify_diff(diff, base_model, result)


def extract_lora(
    base_model: str | Path,
    tuned: str | Path,
    out: str | Path,
    *,
    r: int = 16,
    targets: list[str] | None = None,
) -> Extraction:
    """The LoRA adapter of rank r that comes nearest to what full fine-tuning did to a base.

    Args:
        base_model: The base.
        tuned: The fully fine-tuned model.
        out: New or empty folder for the adapter, which peft loads.
        r: Rank.
        targets: Names of linear modules; all but the head if left out.

    Returns:
        The relative error of each module and of the whole; also in the folder, as extraction.json.
    """
    from .adapters.extract import extract

    return extract(base_model, tuned, out, r=r, targets=targets)


def export(folder: str | Path, out: str | Path, *, format: ExportFormat) -> dict[str, Any]:
    """Write a merged or fully fine-tuned model for another program, with the template and stops it was trained with.

    Args:
        folder: The model; its alpaca_lora.json says template and stops.
        out: New or empty folder.
        format: "gguf-f16" or "gguf-q8_0", a file for llama.cpp and Ollama, read back and compared; "ollama", a
            Modelfile that names `folder`; "chat-template", the folder again, for servers that read chat templates.

    Returns:
        `format` and `files`; for GGUF also `logits`: the largest difference and its limit.

    Raises:
        AdapterError: an adapter, no contract, `out` is not empty, or logits beyond the limit.
        ModelError: a model or tokenizer that the format cannot hold.
        MissingDependencyError: GGUF without the gguf package.
    """
    from .adapters.export import export_model

    return export_model(folder, out, format)


def self_instruct(
    out: str | Path,
    *,
    model: str | None = None,
    base_url: str | None = None,
    key: str | None = None,
    base_model: str | None = None,
    kind: Literal["chat", "completions"] = "chat",
    num_records: int = 1000,
    seeds: Any = "seeds",
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
) -> Summary:
    """Have a language model write new records, from seed records and a brief, or go on with it.

    Args:
        out: Folder of the run; one that exists is continued, with what its requests are made from unchanged.
        model: The server's name for the model; or, instead,
        base_model: a model to run here, as `load` takes it; it goes on with a text and costs nothing.
        base_url: Address of an OpenAI-compatible API; OpenAI's own if left out.
        key: Its key; it is written nowhere.
        kind: "chat", or "completions" for a server's model that only goes on with a text.
        num_records: Enough accepted records.
        seeds: Records, as for `finetune`.
        domain: What tasks are about ("medical questions for patients"); anything if left out.
        language: Of the tasks, by its English name.
        mode: The form answers have: a numbered "list", or "json".
        tasks_per_request: New tasks asked for at a time.
        temperature: Higher is more varied.
        max_new_tokens: Most tokens of an answer.
        threshold: ROUGE-L from which two instructions are too similar.
        seed: Of the draw of seed records.
        concurrency: Most requests in flight.
        timeout_seconds: Longest wait for an answer.
        max_cost: Most money for the whole folder; needs both prices.
        max_tokens: Most tokens for the whole folder.
        price_in: Price of a million prompt tokens.
        price_out: Price of a million new tokens.

    Returns:
        What it came to. `out` holds records.jsonl, journal.jsonl with every answer, and report.json.

    Raises:
        ConfigError: wrong settings, or others than those the run in `out` began with.
        DataError: seeds, or a journal, that cannot be used.
        EndpointError: the server does not answer; what it answered before is kept.
        RunInterrupted: Ctrl-C or SIGTERM; the same call goes on.
    """
    from .inference.meter import Budget
    from .selfinstruct.prompt import Brief
    from .selfinstruct.run import write_records

    return write_records(
        out,
        model=model,
        base_url=base_url,
        key=key,
        base_model=base_model,
        kind=kind,
        num_records=num_records,
        seeds=seeds,
        brief=Brief(domain=domain, language=language, count=tasks_per_request, mode=mode),
        temperature=temperature,
        max_new_tokens=max_new_tokens,
        threshold=threshold,
        seed=seed,
        concurrency=concurrency,
        timeout_seconds=timeout_seconds,
        budget=Budget(max_cost, max_tokens, price_in, price_out),
    )


def refilter(out: str | Path, *, seeds: Any = "seeds", threshold: float = 0.7) -> Summary:
    """Judge all answers of a self-instruct run again and write its records.jsonl anew; nothing is sent or paid.

    Args:
        out: Folder of the run.
        seeds: The records it began with.
        threshold: ROUGE-L from which two instructions are too similar.

    Raises:
        ConfigError: other seeds, or the run is going on.
        DataError: `out` holds no journal, or a damaged one.
    """
    from .data.records import load_records
    from .inference.meter import Budget
    from .selfinstruct.pool import refilter as judge_again
    from .selfinstruct.summary import Summary

    if not 0 < threshold <= 1:
        raise ConfigError(f"threshold: {threshold!r} must be above 0 and at most 1.")
    state = judge_again(out, load_records(seeds), {"threshold": threshold})
    summary = Summary.of(Path(out), state, Budget(), "refilter", f"Judged again, with threshold {threshold:g}.")
    summary.write(state.samples)
    return summary


def answer(
    model: str | Path,
    instructions: str | Path,
    out: str | Path,
    *,
    base_url: str | None = None,
    key: str | None = None,
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
) -> Answered:
    """Have a model answer a file of instructions, or go on with it; the answers are in AlpacaEval's format.

    Args:
        model: What `load` takes; with `base_url`, the server's name for a model.
        instructions: A file of records, of Self-Instruct's tasks, or in AlpacaEval's format; or "probe", the
            packaged probe of known limits.
        out: A .json file to write, once all are answered. The folder of its name in .journal keeps each answer.
        base_url: Address of an OpenAI-compatible API.
        key: Its key; it is written nowhere.
        kind: "chat", or "completions" for a server's model that only goes on with a text.
        prompt_template: For models without a contract; `alpaca` if left out.
        max_new_tokens: Most tokens of an answer.
        temperature: 0 takes the likeliest token each time.
        concurrency: Most requests in flight at a server.
        max_cost: Most money for the whole file; needs both prices.
        max_tokens: Most tokens for the whole file.
        price_in: Price of a million prompt tokens.
        price_out: Price of a million new tokens.
        force: As for `load`.

    Raises:
        ConfigError: wrong settings, or others than those `out` was begun with.
        DataError: instructions that cannot be read.
        AdapterError, ModelError: as `load`.
        EndpointError: the server does not answer; what it answered before is kept.
        RunInterrupted: Ctrl-C or SIGTERM; the same call goes on.
    """
    from .evaluation.answer import answer as answer_all
    from .evaluation.respondent import Respondent
    from .inference.meter import Budget

    budget = Budget(max_cost, max_tokens, price_in, price_out)
    respondent = Respondent(str(model), base_url, key, kind, prompt_template, concurrency, budget, force)
    return answer_all(respondent, instructions, out, max_new_tokens=max_new_tokens, temperature=temperature)


def compare(
    a: str | Path,
    b: str | Path,
    out: str | Path,
    *,
    judge: str | Path | None = None,
    base_url: str | None = None,
    key: str | None = None,
    kind: Literal["chat", "completions"] = "chat",
    prompt_template: str | None = None,
    temperature: float = 0.0,
    concurrency: int = 8,
    max_cost: float | None = None,
    max_tokens: int | None = None,
    price_in: float | None = None,
    price_out: float | None = None,
    force: bool = False,
) -> Compared:
    """Compare two models by their answers: pair them, have a model judge them, and report what the votes support.

    Args:
        a: A file of answers: AlpacaEval's `model_outputs`, as `answer` writes them, or Self-Instruct's predictions.
        b: Another's.
        out: Folder of the comparison; one that exists is gone on with.
        judge: The judge, as `model` for `answer`; the settings after it are the judge's. It sees each pair in both
            orders. Without a judge, the pairs are made and votes that are there reported.

    Returns:
        What it came to; `print` shows it, and `out` holds report.html and report.md.

    Raises:
        DataError: files that cannot be used, or that have no instruction in common.
        ConfigError: wrong settings, or `out` holds another comparison, or this judge with other settings.
        AdapterError, ModelError, EndpointError, RunInterrupted: as `answer`.
    """
    from .evaluation.compare import report_on
    from .evaluation.judge import judge as judge_all
    from .evaluation.pairs import Comparison
    from .evaluation.respondent import Respondent
    from .inference.meter import Budget

    budget = Budget(max_cost, max_tokens, price_in, price_out)
    comparison = Comparison.open(out, a, b)
    if judge is not None:
        respondent = Respondent(str(judge), base_url, key, kind, prompt_template, concurrency, budget, force)
        judge_all(comparison, respondent, temperature=temperature)
    return report_on(out)


def rate(
    a: str | Path,
    b: str | Path,
    out: str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    token: str | None = None,
    share: float | None = None,
    raters: int | None = None,
    ready: Callable[[str], object] = print,
) -> Compared:
    """Let people rate two models' answers in their browsers, blind, until Ctrl-C or SIGTERM; then report.

    Args:
        a: A file of answers, as for `compare`.
        b: Another's.
        out: Folder of the comparison; one that exists is gone on with.
        host: What is bound.
        port: 0 takes one that is free.
        token: What browsers must present; a new one if left out. It is in the address.
        share: The part of the pairs that each rater gets; all if left out.
        raters: How many are expected; given with `share`, and only then.
        ready: Called with the address once it can be opened.

    Raises:
        DataError, ConfigError: as `compare`.
        MissingDependencyError: the extra `judge` is not installed.
    """
    import secrets

    from .evaluation.compare import report_on
    from .evaluation.pairs import Comparison
    from .evaluation.rate import rate as serve_page

    comparison = Comparison.open(out, a, b)
    token = token or secrets.token_urlsafe(16)
    serve_page(comparison, host=host, port=port, token=token, share=share, raters=raters, ready=ready)
    return report_on(out)


def compare_report(folder: str | Path) -> Compared:
    """Write the report of a comparison's folder anew, from all votes in it, of people and of judges.

    Raises:
        DataError: the folder holds no comparison, or something in it is damaged.
    """
    from .evaluation.compare import report_on

    return report_on(folder)


def compare_preferences(path: str | Path, out: str | Path) -> Compared:
    """Report on judgements made elsewhere.

    Args:
        path: AlpacaEval's annotations.json, or a table (CSV, JSON, Parquet) of item, model_a, model_b and preference.
        out: Folder for report.html and report.md.

    Raises:
        DataError: the file cannot be read, or a row cannot be used.
    """
    from .evaluation.compare import report_on_preferences

    return report_on_preferences(path, out)


def self_instruct_report(out: str | Path, *, seeds: Any = "seeds") -> Path:
    """Write a page about a self-instruct run, finished or going on: counts, pictures, cost, samples.

    Args:
        out: Folder of the run.
        seeds: The records it began with.

    Returns:
        The page, report.html in `out`.

    Raises:
        ConfigError: other seeds.
        DataError: `out` holds no journal, or a damaged one.
    """
    from .data.records import load_records
    from .selfinstruct.report import write_report

    return write_report(out, load_records(seeds))


def inspect(data: Any, base_model: str, **settings: Any) -> DataReport:
    """What training would see, before any training: counts, lengths, truncation, supervised tokens, examples.

    Args:
        data: Records, as for `finetune`.
        base_model: Its tokenizer and config are used; no weights are loaded.
        **settings: Other fields of `FinetuneConfig`: prompt_template, cutoff_len, columns, batch_size, ...

    Raises:
        ConfigError, DataError, ModelError: as `finetune` would.
    """
    from .data.report import DataReport
    from .models.load import resolve_base
    from .training.prepare import prepare

    config = FinetuneConfig.make(data=data, base_model=base_model, output_dir=".", **{"val_set_size": 0, **settings})
    prepared = prepare(config, resolve_base(base_model))
    return DataReport(prepared.records, prepared.train, prepared.encoder)


def lint(
    data: Any,
    *,
    against: Any = None,
    fix: str | Path | None = None,
    columns: dict[str, str] | None = None,
) -> LintReport:
    """Find what is wrong with instruction data, and mend what needs no judgement.

    Args:
        data: Records, as for `finetune`; blank outputs and rows that are no records are findings here.
        against: An evaluation set, with any keys; records that share text with it are findings.
        fix: A new .json or .jsonl file for the mended records. NAME.lint.json beside it says what was done.
        columns: Our field -> the data's own column.

    Returns:
        The findings, of the data as they were; `print` shows a table and examples.

    Raises:
        DataError: data that cannot be read, or without a single record.
        ConfigError: `fix` names a file that is there already, or none for data.
        MissingDependencyError: rapidfuzz is not installed.
    """
    from .data.lint.report import lint_data

    return lint_data(data, against=against, fix=fix, columns=columns)


def _finetune(config: FinetuneConfig) -> Run:
    from transformers import set_seed

    from .adapters.contract import Contract, write_run_file
    from .adapters.parent import continue_from
    from .adapters.result import save_run
    from .inference.local import LocalModel
    from .models.fingerprint import fingerprint
    from .models.load import Placement, processes, resolve_base
    from .training.checkpoint import full_disk_explained
    from .training.identity import check_identity, fingerprint_of, identity_of
    from .training.model import check_abilities, trainable_model
    from .training.prepare import all_of, claim_output_dir, prepare
    from .training.run import plan_training, train
    from .training.sharding import check_can_shard, from_first_rank
    from .training.start import print_start

    check_abilities(config)
    config, parent = continue_from(config) if config.adapter else (config, None)
    _, placement, (output_dir, before) = all_of(
        lambda: check_can_shard(config), lambda: Placement.choose(config.dtype), lambda: claim_output_dir(config)
    )
    main = processes().is_main_process
    base = resolve_base(config.base_model)
    data = prepare(config, base, parent.encoder(config, base) if parent else None)
    steps = plan_training(config, data.model_config, data.train, placement.device)

    base_fingerprint = from_first_rank(fingerprint(base) if main else None)
    if parent:
        contract = parent.contract_for(config, data.encoder, base_fingerprint)
    else:
        contract = Contract.of(data.encoder, config.base_model, base_fingerprint)
    described: dict[str, Any] = {"config": config.to_dict(), "data": data.described, "seed": config.seed}
    described |= {"parent": parent.described} if parent else {}
    identity = identity_of(config, data.records.fingerprint, asdict(contract), described.get("parent"))
    if before:
        was = identity_of(before["config"], before["data"]["fingerprint"], before["contract"], before.get("parent"))
        check_identity(was, identity)
        if before["finished"]:
            processes().print(f"{output_dir} holds this run, finished; nothing is left to do.")
            return Run(output_dir)
    set_seed(config.seed)
    model = trainable_model(config, base, placement, partial(parent.put_on, config=config) if parent else None)
    print_start(config, model, placement, data, steps)
    local = LocalModel(model, data.encoder, contract.stop_ids, contract)
    untrained = [local.generate(instruction) for instruction in config.sample_instructions]
    if main:
        write_run_file(output_dir, contract, finished=False, **described)
    with full_disk_explained(output_dir):
        train(config, model, placement, steps, data.validation, fingerprint_of(identity))
        model.eval()
        answers = [local.generate(instruction) for instruction in config.sample_instructions]
        samples = [
            {"instruction": instruction, "before": old, "after": new}
            for instruction, old, new in zip(config.sample_instructions, untrained, answers, strict=True)
        ]
        save_run(
            output_dir, model, placement.dtype, data.encoder.tokenizer, contract, {**described, "samples": samples}
        )
    processes().wait_for_everyone()
    return Run(output_dir)
