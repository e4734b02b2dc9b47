"""A run as a small HTML card, for notebooks. In: its folder. Out: HTML without scripts; all text is escaped."""

from __future__ import annotations

from base64 import b64encode
from html import escape
from pathlib import Path
from typing import Any

from ..config import FinetuneConfig
from .benchmarks import Benchmarks
from .history import read_history
from .regressions import Regressions
from .run_file import RUN_FILE, Metrics, RunFile, TrainingData

_OUTER = "display: flex; flex-wrap: wrap; gap: 1.5em; align-items: flex-start; max-width: 60em"
_CELL = "text-align: left; padding: 0.1em 0.8em 0.1em 0; vertical-align: top"
_SHOWN_ALWAYS = ("base_model", "method", "batch_size", "learning_rate")
_SHOWN_ELSEWHERE = ("output_dir", "data", "sample_instructions", "resume")


def run_card(folder: Path) -> str:
    """Settings, loss curve, metrics and folder of a run; of an unfinished one, how far it came.

    Raises:
        AdapterError, DataError: its alpaca_lora.json or history.jsonl is damaged.
    """
    run_file, history = RunFile.read(folder), read_history(folder)
    if run_file is None:
        return f"<p>{escape(run_line(folder))}</p>"
    tables = [
        _table("Run", {"folder": folder, **_progress(run_file.metrics, history)}),
        *([_table("Against the base", _against_base(run_file.regressions))] if run_file.regressions else []),
        *([_table("Benchmarks", _benchmarks(measured))] if (measured := Benchmarks.read(folder)) else []),
        _table("Settings", _settings(run_file.config)),
        _table("Data", _data(run_file.data) if run_file.data else {}),
    ]
    picture = ""
    if history:
        from .plots import plot_history  # matplotlib, only where a picture is drawn

        figure = b64encode(plot_history(history).png(dpi=60)).decode()
        picture = f'<img alt="loss of the run" src="data:image/png;base64,{figure}">'
    return f'<div style="{_OUTER}"><div>{"".join(tables)}</div>{picture}</div>'


def run_line(folder: Path) -> str:
    """The same in a line of text."""
    run_file = RunFile.read(folder)
    said = _progress(run_file.metrics, read_history(folder)) if run_file else {RUN_FILE: "not there yet"}
    return f"Run {folder}: " + "; ".join(f"{name}: {value}" for name, value in said.items()) + "."


def _progress(metrics: Metrics | None, history: list[dict[str, Any]]) -> dict[str, str]:
    if not metrics:
        done = max((line["step"] for line in history), default=0)
        return {"unfinished": f"{done} steps in its history; the same settings with resume='auto' go on"}
    found = {"steps": f"{metrics['steps']:,}", "training loss, last step": f"{metrics['loss']:.4f}"}
    if metrics["eval_loss_before"] is not None:
        found["validation loss"] = f"{metrics['eval_loss_before']:.4f} -> {metrics['eval_loss_after']:.4f}"
    if rewards := metrics.get("rewards"):
        found["rewards"] = f"chosen higher in {rewards['accuracy']:.0%}, by {rewards['margin']:.3f} on average"
    if metrics.get("stopped_early"):
        found["ended"] = str(metrics["stopped_early"])
    if kept := kept_weights(metrics):
        found["kept"] = kept
    elif metrics.get("best_step") not in (None, metrics["steps"]):
        found["lowest validation loss"] = f"{metrics['eval_loss_best']:.4f}, after step {metrics['best_step']:,}"
    found["tokens"] = f"{metrics['computed_tokens']:,} computed, {metrics['supervised_tokens']:,} with a loss"
    found["training took"] = f"{metrics['train_seconds']:,.0f} s"
    return found


def kept_weights(metrics: Metrics) -> str:
    """Whose weights a run's result has, in words; "" if they are those of its last step."""
    if metrics.get("kept") != "best":
        return ""
    return f"the weights after step {metrics['kept_step']:,} of {metrics['steps']:,}, the best evaluation"


def _against_base(changed: Regressions) -> dict[str, str]:
    parts = {"general texts": changed.general, "validation records": changed.validation}
    found = {
        name: f"KL {one.kl.shown()}, loss {one.loss_change.shown('+')} nats per token"
        for name, one in parts.items()
        if one
    }
    return found | ({"warning": changed.warning} if changed.warning else {})


def _benchmarks(measured: Benchmarks) -> dict[str, str]:
    return {f"{task}, {name}": value for task, _, _, _, name, value in measured.rows()}


def _settings(config: dict[str, Any]) -> dict[str, str]:
    """What was chosen: everything that is no default, and a few that always matter."""
    defaults = FinetuneConfig(base_model="-", data="-", output_dir="-").to_dict()
    shown = {name: value for name, value in config.items() if name in _SHOWN_ALWAYS or value != defaults.get(name)}
    return {name: _plain(value) for name, value in shown.items() if name not in _SHOWN_ELSEWHERE}


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _data(data: TrainingData) -> dict[str, str]:
    dropped = {reason: count for reason, count in data.dropped.items() if count}
    found = {
        "source": data.source,
        "records": f"{data.train_records:,} to train on, {data.validation_records:,} to validate",
    }
    if dropped:
        found["dropped"] = ", ".join(f"{count:,} ({reason})" for reason, count in dropped.items())
    if data.truncated:
        found["truncated"] = f"{data.truncated:,}"
    return found


def _table(title: str, rows: dict[str, Any]) -> str:
    lines = [
        f'<tr><th style="{_CELL}; font-weight: normal; opacity: 0.7">{escape(name)}</th>'
        f'<td style="{_CELL}">{escape(str(value))}</td></tr>'
        for name, value in rows.items()
    ]
    return f'<table style="margin: 0 0 0.8em"><caption style="{_CELL}"><b>{title}</b></caption>{"".join(lines)}</table>'
