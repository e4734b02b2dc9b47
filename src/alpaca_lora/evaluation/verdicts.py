"""What judges said of a comparison, read from their journals.

A judge that prefers an answer in one order and not in the other has not preferred it: such a pair is a tie. How often
the answer shown first wins, whichever it is, is the judge's position bias (Wang et al. 2023, arXiv 2305.17926).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..errors import ConfigError, counted
from ..generation.completion import Completion
from ..llm.budget import Usage
from ..llm.journal import read_journal
from ..llm.journal_state import State
from ..llm.questions import replies_of
from ..llm.reply import read_reply, sample_of, whole_characters
from .comparison import Comparison
from .statistics.votes import Vote
from .verdict_parser import read_dressed, read_exactly

ATTEMPTS = 3
"""Maximum number of replies asked for while none can be read: of one in ten that cannot, one question in 1,000 is left.
Each is another prompt, which says what was wrong, so a judge at temperature 0 may well answer it otherwise."""
MAX_NEW_TOKENS = 512


@dataclass(frozen=True)
class Verdicts:
    """What one judge, or several, said of a comparison.

    Attributes:
        judges: Their names.
        votes: One for each pair and judge, if both orders have a verdict: that verdict, or a tie if the two differ.
        single: Each order by itself, with the model shown first; for position bias.
        disagreed: Pairs whose two verdicts are not the same.
        unparsed: Questions whose replies, all `ATTEMPTS` of them, could not be read.
        failed: Questions that the judge, or its server, refused.
        unasked: Questions not settled yet.
        malformed: Replies that could not be read, those asked for again included.
        thoughts: Replies before which the judge thought aloud; what it thought is no verdict.
        samples: One that could not be read, of each judge that gave one.
        left_out: Settings that a judge refused, and was asked without.
        spent: Tokens counted.
        unanswered: Upper bound on the tokens billed for requests without an answer.
        cost: Money, as counted when it was spent; None if prices were not given.
        reasons: (pair, judge, model shown first) -> what the judge wrote.
    """

    judges: list[str] = field(default_factory=list)
    votes: list[Vote] = field(default_factory=list)
    single: list[Vote] = field(default_factory=list)
    disagreed: int = 0
    unparsed: int = 0
    failed: int = 0
    unasked: int = 0
    malformed: int = 0
    thoughts: int = 0
    samples: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    spent: Usage = field(default_factory=Usage)
    unanswered: Usage = field(default_factory=Usage)
    cost: float | None = None
    reasons: dict[tuple[str, str, str], str] = field(default_factory=dict)

    @property
    def exceptions(self) -> list[tuple[str, int, str, str]]:
        """What did not go as it should: a key for programs, its count, that in words, and how to read it."""
        counts = (
            ("failed", self.failed, "questions were refused", ""),
            ("unparsed", self.unparsed, f"questions have no verdict after {ATTEMPTS} replies", ""),
            ("malformed", self.malformed, "replies could not be read", f"One of them: {''.join(self.samples[:1])}"),
            ("thoughts", self.thoughts, "replies began with thoughts", "They were left out: a thought is no verdict."),
            ("unasked", self.unasked, "questions are not settled yet", "The judge has not finished."),
            (
                "unanswered",
                self.unanswered.tokens,
                "tokens more may have been billed for requests without an answer",
                "",
            ),
        )
        return [entry for entry in counts if entry[1]]

    def __str__(self) -> str:
        told = f"{counted(len(self.votes), 'verdict')} in both orders by {', '.join(self.judges)}; "
        told += f"{self.disagreed:,} of them differ between the orders and count as ties. {self.spent.tokens:,} tokens"
        told += f", cost {self.cost:.4f}." if self.cost is not None else "."
        told += "".join(f" {count:,} {what}." for _, count, what, _ in self.exceptions)
        if self.samples:
            told += f" One that could not be read: {self.samples[0]}."
        if self.left_out:
            told += f" Asked without {', '.join(dict.fromkeys(self.left_out))}, which the judge refuses."
        return told


def read_verdicts(folder: str | Path) -> Verdicts | None:
    """The verdicts of all judges in a comparison's folder, also while they are being made; None without any.

    Raises:
        DataError: the comparison or a journal is not there or damaged.
        ConfigError: verdicts were made on other pairs.
    """
    comparison = Comparison.read(folder)
    folders = sorted(found.parent for found in Path(folder).glob("judge-*/journal.jsonl"))
    if not folders:
        return None
    total = Verdicts(cost=0.0)
    for own in folders:
        state = read_journal(own)
        if not state.begun:  # for example, the judge could not be loaded
            continue
        if state.head["settings"]["comparison"] != comparison.fingerprint:
            raise ConfigError(f"{own}: was made for other pairs than {folder}/comparison.json has. Move it elsewhere.")
        total = _sum(total, verdicts_in(comparison, state))
    return total


def parse_verdict(reply: Completion) -> float | None:
    """The preference for the first answer: 1, 0, or 0.5 for a tie; None for a reply without exactly one verdict, last.

    Example:
        >>> parse_verdict(Completion("The first is right.\\nVerdict: 1\\n", "stop", 9, 9))
        1.0
    """
    if reply.finish_reason == "length":
        return None
    text = read_reply(reply, MAX_NEW_TOKENS).text
    exact = read_exactly(text)
    return read_dressed(text) if exact is None else exact


def verdicts_in(comparison: Comparison, state: State) -> Verdicts:
    """The verdicts in one journal."""
    a, b, name = comparison.a, comparison.b, state.head["settings"]["name"]
    replies = replies_of(state)
    votes, single, reasons = [], [], {}
    counts: Counter[str] = Counter()
    for place, pair in enumerate(comparison.pairs):
        both: list[float] = []
        vote = Vote(pair.id, name, a, b, 0.5, pair.category, len(pair.output_a), len(pair.output_b))
        for number, first in ((2 * place, a), (2 * place + 1, b)):
            readable = [(value, reply) for reply in replies[number] if (value := parse_verdict(reply)) is not None]
            if not readable:
                unparsed = "unparsed" if len(replies[number]) >= ATTEMPTS else "unasked"
                counts["failed" if number in state.failed else unparsed] += 1
                continue
            value, reply = readable[-1]
            both.append(value if first == a else 1 - value)
            single.append(replace(vote, preference=both[-1], shown_first=first))
            said = whole_characters(read_reply(reply, MAX_NEW_TOKENS).text)
            reasons[pair.id, name, first] = said.rstrip().rpartition("\n")[0].strip()
        if len(both) == 2:
            agreed = both[0] == both[1]
            counts["disagreed"] += not agreed
            votes.append(replace(vote, preference=both[0] if agreed else 0.5))
    everything = [reply for own in replies.values() for reply in own]
    unreadable = [reply for reply in everything if parse_verdict(reply) is None]
    costs = [line["cost"] for line in state.answers]
    cost = None if None in costs else float(sum(costs))
    return Verdicts(
        judges=[name],
        votes=votes,
        single=single,
        disagreed=counts["disagreed"],
        unparsed=counts["unparsed"],
        failed=counts["failed"],
        unasked=counts["unasked"],
        malformed=len(unreadable),
        thoughts=sum(read_reply(reply, MAX_NEW_TOKENS).thoughts for reply in everything),
        samples=[sample_of(reply.text) for reply in unreadable[:1]],
        left_out=state.left_out,
        spent=state.spent,
        unanswered=state.unanswered,
        cost=cost,
        reasons=reasons,
    )


def _sum(one: Verdicts, other: Verdicts) -> Verdicts:
    added = {name: getattr(one, name) + getattr(other, name) for name in vars(one) if name not in ("cost", "reasons")}
    cost = None if one.cost is None or other.cost is None else one.cost + other.cost
    return Verdicts(**added, cost=cost, reasons={**one.reasons, **other.reasons})
