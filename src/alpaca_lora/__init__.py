"""alpaca_lora: Stanford Alpaca as one library; every speed-up is exact.

Public names load on first use, so importing the package costs milliseconds and loads no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .adapters import diff_apply as diff_apply
    from .adapters import diff_make as diff_make
    from .adapters import diff_verify as diff_verify
    from .adapters import export as export
    from .adapters import extract_lora as extract_lora
    from .adapters import merge as merge
    from .adapters import push as push
    from .adapters.extract import Extraction as Extraction
    from .adapters.results import Exported as Exported
    from .adapters.results import Merged as Merged
    from .adapters.results import Pushed as Pushed
    from .adapters.results import Verified as Verified
    from .against_base import regressions as regressions
    from .config import FinetuneConfig as FinetuneConfig
    from .data.lint import lint as lint
    from .data.records import Record as Record
    from .data.records import load_records as load_records
    from .errors import AdapterError as AdapterError
    from .errors import AlpacaLoraError as AlpacaLoraError
    from .errors import ConfigError as ConfigError
    from .errors import DataError as DataError
    from .errors import HubError as HubError
    from .errors import MissingDependencyError as MissingDependencyError
    from .errors import ModelError as ModelError
    from .errors import RunInterrupted as RunInterrupted
    from .errors import TemplateError as TemplateError
    from .errors import TrainingError as TrainingError
    from .evaluation.answers import Answered as Answered
    from .evaluation.answers import answer as answer
    from .evaluation.benchmarks import benchmark as benchmark
    from .evaluation.compare_models import Compared as Compared
    from .evaluation.compare_models import compare as compare
    from .evaluation.compare_models import compare_preferences as compare_preferences
    from .evaluation.compare_models import compare_report as compare_report
    from .evaluation.people.rating_page import rate as rate
    from .experiments.compare_runs import RunComparison as RunComparison
    from .experiments.compare_runs import compare_runs as compare_runs
    from .experiments.sweep import Sweep as Sweep
    from .experiments.sweep import sweep as sweep
    from .generation import chat as chat
    from .generation import compare_answers as compare_answers
    from .generation import generate as generate
    from .generation import load as load
    from .generation import stream as stream
    from .generation.model import LocalModel as LocalModel
    from .generation.sampling import Sampling as Sampling
    from .llm.endpoint_errors import EndpointError as EndpointError
    from .planning import inspect as inspect
    from .planning import plan as plan
    from .prompts import Template as Template
    from .runs import plot_runs as plot_runs
    from .runs.benchmarks import Benchmarks as Benchmarks
    from .runs.regressions import Regressions as Regressions
    from .selfinstruct import refilter as refilter
    from .selfinstruct import self_instruct as self_instruct
    from .selfinstruct import self_instruct_report as self_instruct_report
    from .serving import serve as serve
    from .training import finetune as finetune
    from .training.run import Run as Run

_HOMES = {
    "adapters": ("diff_apply", "diff_make", "diff_verify", "export", "extract_lora", "merge", "push"),
    "adapters.extract": ("Extraction",),
    "adapters.results": ("Exported", "Merged", "Pushed", "Verified"),
    "against_base": ("regressions",),
    "config": ("FinetuneConfig",),
    "data.lint": ("lint",),
    "data.records": ("Record", "load_records"),
    "errors": (
        *("AdapterError", "AlpacaLoraError", "ConfigError", "DataError", "HubError", "MissingDependencyError"),
        *("ModelError", "RunInterrupted", "TemplateError", "TrainingError"),
    ),
    "evaluation.answers": ("Answered", "answer"),
    "evaluation.benchmarks": ("benchmark",),
    "evaluation.compare_models": ("Compared", "compare", "compare_preferences", "compare_report"),
    "evaluation.people.rating_page": ("rate",),
    "experiments.compare_runs": ("RunComparison", "compare_runs"),
    "experiments.sweep": ("Sweep", "sweep"),
    "generation": ("chat", "compare_answers", "generate", "load", "stream"),
    "generation.model": ("LocalModel",),
    "generation.sampling": ("Sampling",),
    "llm.endpoint_errors": ("EndpointError",),
    "planning": ("inspect", "plan"),
    "prompts": ("Template",),
    "runs": ("plot_runs",),
    "runs.benchmarks": ("Benchmarks",),
    "runs.regressions": ("Regressions",),
    "selfinstruct": ("refilter", "self_instruct", "self_instruct_report"),
    "serving": ("serve",),
    "training": ("finetune",),
    "training.run": ("Run",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)  # type: ignore[assignment]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOME_OF[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME_OF])
