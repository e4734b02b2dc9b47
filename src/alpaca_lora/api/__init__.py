"""The library's functions: what notebooks call and the command line wraps.

from alpaca_lora import finetune
run = finetune(base_model="demo", data="seeds", output_dir="out", batch_size=10, max_steps=3)
run.generate("Name three fruits.")
run.merge("merged")
"""

from ..adapters import diff_apply, diff_make, diff_verify, export, extract_lora, merge
from .judging import answer, compare, compare_preferences, compare_report, rate
from .models import chat, generate, load, serve, stream
from .plans import plan
from .records import inspect, lint, refilter, self_instruct, self_instruct_report
from .side_by_side import compare_answers, plot_runs

__all__ = [
    "answer",
    "chat",
    "compare",
    "compare_answers",
    "compare_preferences",
    "compare_report",
    "diff_apply",
    "diff_make",
    "diff_verify",
    "export",
    "extract_lora",
    "generate",
    "inspect",
    "lint",
    "load",
    "merge",
    "plan",
    "plot_runs",
    "rate",
    "refilter",
    "self_instruct",
    "self_instruct_report",
    "serve",
    "stream",
]
