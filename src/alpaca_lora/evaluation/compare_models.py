"""A comparison from its folder to its report: the votes that are there, of people and of judges, and what they support.

folder/comparison.json, ratings.sqlite, judge-NAME/  ->  folder/report.html, report.md,
                                                         votes.jsonl, annotations-people.json, annotations-judge.json
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..data.sources.votes import state_of
from ..errors import ConfigError, counted
from ..llm.budget import Budget
from ..llm.model_ref import ModelRef
from .annotations import write_annotations
from .comparison import NAME as COMPARISON
from .comparison import Comparison, check_holds_only
from .contamination import contamination_of
from .judge import judge_pairs
from .leaderboard import read_leaderboard
from .people.people_votes import read_ratings
from .preferences import read_preferences
from .verdicts import Verdicts, read_verdicts
from .vote_file import write_votes

if TYPE_CHECKING:
    from .report.document import Report


@dataclass(frozen=True)
class Compared:
    """The outcome of a comparison; `print` shows it.

    Attributes:
        folder: Where it is kept.
        pairs: Instructions that both models answered; 0 if only votes are known.
        report: The statistics; None if there are no votes. Its page is report.html in `folder`.
        verdicts: The judges' verdicts; None without any.
    """

    folder: Path
    pairs: int
    report: Report | None
    verdicts: Verdicts | None = None

    @property
    def verdict(self) -> str:
        """What the votes support: a sentence for people, and one for judges, or for each pair of models."""
        sections = self.report.sections if self.report else []
        return "\n".join(f"{section.title}: {section.verdict}" for section in sections)

    def __str__(self) -> str:
        lines = [str(self.verdicts)] if self.verdicts and self.verdicts.judges else []
        if self.report is None:
            none = f"{self.folder}: {counted(self.pairs, 'pair')} of answers, and no votes yet. Rate or judge them."
            return "\n".join([*lines, none])
        if not self.pairs:  # judged elsewhere: the two figures that AlpacaEval prints
            lines += [
                f"{section.title}: win rate of {found.a} {100 * found.rate:.2f}%, standard error "
                f"{100 * found.standard_error:.2f}"
                for section in self.report.sections
                if (found := section.summary.overall).standard_error is not None
            ]
        lines += [f"{note.name} {note.found}" for note in self.report.notes if note.key == "ends"]
        return "\n".join([*lines, *filter(None, [self.verdict]), f"Report: {self.folder / 'report.html'}"])


def compare(
    a: str | Path,
    b: str | Path,
    out: str | Path,
    *,
    judge: str | Path | None = None,
    base_url: str | None = None,
    kind: Literal["chat", "completions"] = "chat",
    base_model: str | None = None,
    prompt_template: str | None = None,
    temperature: float = 0.0,
    concurrency: int = 8,
    max_cost: float | None = None,
    token_budget: int | None = None,
    price_in: float | None = None,
    price_out: float | None = None,
    force: bool = False,
    key: str | None = None,
) -> Compared:
    """Compare two models by their answers: pair them, have a model judge them, and report what the votes support.

    Args:
        a: A file of answers: AlpacaEval's `model_outputs`, as `answer` writes them, or Self-Instruct's predictions.
        b: Another model's answers.
        out: Folder of the comparison; an existing one is resumed.
        judge: A model that judges each pair in both orders: what `answer` takes as `model`. Without a judge, the pairs
            are made, and votes that are already there are reported.
        base_url: Address of an OpenAI-compatible API; the judge is then its name for a model.
        kind: "chat", or "completions" for text-completion models.
        base_model: Path or hub id of the base of a judge that is an adapter, if it is not where the adapter says.
        prompt_template: For judges without a contract; `alpaca` if left out.
        temperature: The judge's sampling temperature; 0 is greedy.
        concurrency: Maximum number of requests in flight at a server.
        max_cost: Maximum cost of this judge, in the currency of the prices; requires price_in and price_out.
        token_budget: Maximum number of tokens of this judge, prompts and replies together.
        price_in: Price of a million prompt tokens.
        price_out: Price of a million new tokens.
        force: Continue even if the judge's tokenizer, template or base differ from those it was trained with.
        key: The server's key; it is written nowhere.

    Returns:
        The outcome; `print` shows it, and `out` holds report.html, report.md, and the votes in AlpacaEval's format:
        annotations-people.json, annotations-judge.json.

    Raises:
        DataError: files that cannot be used, or that have no instruction in common.
        ConfigError: wrong settings, or `out` holds another comparison, other files, or this judge with other settings.
        AdapterError, ModelError, EndpointError, RunInterrupted: as `answer`.
    """
    budget = Budget(max_cost, token_budget, price_in, price_out)
    comparison = Comparison.open(out, a, b)
    if judge is not None:
        model = ModelRef(str(judge), base_url, key, kind, prompt_template, concurrency, budget, force, base_model)
        judge_pairs(comparison, model, temperature=temperature)
    return compare_report(out)


def compare_report(folder: str | Path) -> Compared:
    """Write the report of a comparison's folder again, from all votes in it, of people and of judges.

    votes.jsonl, written beside it, is what `finetune` reads preferences from.

    Raises:
        DataError: the folder holds no comparison, or something in it is damaged.
    """
    comparison = Comparison.read(folder)
    read = state_of(Path(folder))
    people, verdicts = read_ratings(folder), read_verdicts(folder)
    write_votes(comparison, read, people, verdicts)
    report = None
    if people.votes or (verdicts and verdicts.votes):
        from .report.build import build_report

        report = build_report(
            comparison,
            people.votes,
            verdicts,
            reasons=people.reasons,
            skipped=people.skipped,
            contamination=contamination_of(comparison),
        )
        report.write(folder)
        for kind, votes in (("people", people.votes), ("judge", verdicts.votes if verdicts else [])):
            if votes:
                write_annotations(Path(folder) / f"annotations-{kind}.json", comparison, votes)
    return Compared(Path(folder), len(comparison.pairs), report, verdicts)


def compare_preferences(path: str | Path, out: str | Path) -> Compared:
    """Report on judgements made elsewhere.

    Args:
        path: AlpacaEval's annotations.json or leaderboard.csv, FastChat's model_judgment (JUDGE_pair.jsonl,
            JUDGE_single.jsonl), or a table (CSV, JSON, Parquet) of item, model_a, model_b and preference.
        out: Folder for report.html and report.md.

    Raises:
        DataError: the file cannot be read, or a row cannot be used.
        ConfigError: `out` holds a comparison, or other files.
    """
    from .report.build import report_of_leaderboard, report_of_preferences

    if (Path(out) / COMPARISON).exists():
        raise ConfigError(f"{out}: holds a comparison, whose report this would replace. Name another folder.")
    check_holds_only(Path(out), "report.html", "report.md")
    standings = read_leaderboard(path)
    report = report_of_leaderboard(standings, path) if standings else report_of_preferences(read_preferences(path))
    report.write(out)
    return Compared(Path(out), 0, report)
