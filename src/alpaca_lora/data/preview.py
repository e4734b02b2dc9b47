"""What training would see: counts, lengths, truncation, supervised tokens, and a few records in colour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import counted
from .mixture import Mixture
from .packs import Layout
from .plan import Planner
from .record import Conversation, Preference, as_record
from .records import RecordSet
from .sources.rows import name_numbers
from .tokens import Encoder, Examples

if TYPE_CHECKING:
    from rich.text import Text

_QUANTILES = (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1)
_SHOWN_NUMBERS = 8
_LAYOUTS: tuple[Layout, ...] = ("padded", "packed", "tree")


@dataclass(frozen=True)
class DataReport:
    """Facts about encoded records. `print(report)` shows them; `examples_shown` adds the coloured examples."""

    records: RecordSet
    examples: Examples
    encoder: Encoder
    mixture: Mixture | None = None

    @property
    def rows(self) -> dict[str, str]:
        """Name and value of every fact."""
        examples, total = self.examples, int(self.examples.lengths.sum())
        supervised = int(examples.supervised.sum())
        ends = examples.ids[examples.ends - 1]
        dropped = {**self.records.dropped, "prompt reaches cutoff_len": examples.dropped}
        dropped["both answers have the same tokens"] = examples.same
        later = examples.shortened
        once = ""
        if self.compared:
            once = f", {total - int(examples.prompt_lens[::2].sum()):,} with each prompt once"
        elif len(examples) > examples.records:
            once = f", {len(examples.ids):,} if each is laid out once"
        stops = self.encoder.stop_ids
        named = "EOS" if stops == [self.encoder.eos_id] else " or ".join(self._tokens(stops))
        return {
            "records": f"{len(self.records):,} from {self.records.source}",
            **{f"of {name}": counted(count, "row") for name, count in self.records.parts},
            **({f"from {name}": said for name, said in self.mixture.describe().items()} if self.mixture else {}),
            **({"votes": " ".join(self.records.notes)} if self.records.notes else {}),
            **self._conversations,
            "with input": f"{np.mean([bool(as_record(record).input) for record in self.records.records]):.1%}",
            **{f"dropped, {reason}": self._numbers(numbers) for reason, numbers in dropped.items() if numbers},
            **({"later turns dropped, prompt reaches cutoff_len": self._numbers(later)} if later else {}),
            **({"keys not read": ", ".join(self.records.unread)} if self.records.unread else {}),
            "examples": f"{len(examples):,}",
            "tokens": f"{total:,} ({total / len(examples):.1f} per example{once})",
            "supervised tokens": f"{supervised:,} ({supervised / total:.1%})",
            "response cut": self._numbers(examples.truncated) if examples.truncated else "none",
            "special tokens in text": self._numbers(examples.special_text) if examples.special_text else "none",
            "text changed by the tokenizer": self._changed(),
            "begins with": self._shown_ids(examples[0].ids[:6].tolist()),
            f"ending in {named}": f"{np.mean(np.isin(ends, stops)):.0%}",
            "example length": _quantiles(examples.lengths),
            "prompt length": _quantiles(examples.prompt_lens),
            "response length": _quantiles(examples.lengths - examples.prompt_lens),
            **self._preferences,
            **self.computed,
        }

    def _shown_ids(self, ids: list[int]) -> str:
        """Ids and their tokens; BOS comes first, if there is one."""
        tokens = self._tokens(ids)
        bos = "BOS" if ids[0] == self.encoder.tokenizer.bos_token_id else "no BOS"
        return f"{bos}: " + " ".join(f"{id} {token!r}" for id, token in zip(ids, tokens, strict=True)) + " ..."

    def _tokens(self, ids: list[int]) -> list[str]:
        return [str(token) for token in self.encoder.tokenizer.convert_ids_to_tokens(ids)]

    @property
    def compared(self) -> bool:
        """Whether the records are preferences: two examples each, the better answer first."""
        return isinstance(self.records.records[0], Preference)

    @property
    def _preferences(self) -> dict[str, str]:
        """How long the better answers are against the others: what a model may learn in place of what is better."""
        if not self.compared:
            return {}
        answers = (self.examples.lengths - self.examples.prompt_lens).reshape(-1, 2)
        longer = answers[:, 0] - answers[:, 1]
        return {
            "chosen length": _quantiles(answers[:, 0]),
            "rejected length": _quantiles(answers[:, 1]),
            "chosen is longer": f"in {np.mean(longer > 0):.1%} of the pairs, shorter in {np.mean(longer < 0):.1%}; "
            f"median difference {round(float(np.median(longer))) or 0:+d} tokens",
        }

    @property
    def _conversations(self) -> dict[str, str]:
        """How many records are conversations, and what of them is context only."""
        each = (one.chosen if isinstance(one, Preference) else one for one in self.records.records)
        talks = [one for one in each if isinstance(one, Conversation)]
        if not talks:
            return {}
        learned = sum(len(one.trained) for one in talks)
        context = sum(message["role"] == "assistant" for one in talks for message in one.messages) - learned
        system = sum(one.messages[0]["role"] == "system" for one in talks)
        trees = sum(bool(one.parents) for one in talks)
        unlearned = ", ".join(f"{count:,} {reason}" for reason, count in self.records.unlearned.items())
        return {
            "conversations": f"{len(talks):,} with {counted(learned, 'answer')} to learn",
            **({"answers that are context only": f"{context:,}"} if context else {}),
            **({"with a system text": f"{system:,}"} if system else {}),
            **({"trees of replies": f"{trees:,}"} if trees else {}),
            **({"answers of trees not learned": unlearned} if unlearned else {}),
        }

    def _changed(self) -> str:
        changed = self.examples.changed_text
        if not changed:
            return "none"
        first = self.records.records[self.records.numbers.index(changed[0])]
        return f"{self._numbers(changed)}: {self.encoder.comes_back_as(first)}"

    @property
    def computed(self) -> dict[str, str]:
        """Tokens a model would compute in an epoch, by layout, against rows of 8 padded to the longest.

        Steps of 128 examples (all, if there are fewer), packs of 2,048 tokens.
        """
        examples = self.examples
        steps = Planner(examples, "padded", 2048).step_members(min(128, examples.records), 0, 0)
        sizes = [examples.lengths[step] - 1 for step in steps]
        rows_of_8 = sum(8 * int(step[k : k + 8].max()) for step in sizes for k in range(0, step.size // 8 * 8, 8))
        rows_of_8 += sum(step.size % 8 * int(step[step.size // 8 * 8 :].max(initial=0)) for step in sizes)
        facts = {"computed, rows of 8": f"{rows_of_8:,} tokens per epoch"}
        for layout in _LAYOUTS:
            planner = Planner(examples, layout, 2048, whole_records=self.compared)
            tokens = sum(planner.plan(step, planner.packs_needed(step)).computed_tokens for step in steps)
            fewer = f" ({rows_of_8 / tokens:.2f}x fewer)" if tokens < rows_of_8 else ""
            facts[f"computed, {layout}"] = f"{tokens:,}{fewer}"
        return facts

    def __str__(self) -> str:
        width = max(map(len, self.rows))
        return "\n".join(f"{name:<{width}}  {value}" for name, value in self.rows.items())

    def examples_shown(self, count: int = 3) -> list[Text]:
        """The first records as rich Texts: context dim, supervised tokens in alternating green, ends reversed.

        Turns that begin one another are one text; a turn that begins otherwise, as a template that rewrites history
        makes it, is one of its own. Of a preference the rejected answer is a text of its own, in red and without the
        prompt.
        """
        examples, shown = self.examples, []
        for members in np.split(np.arange(len(examples)), examples.record_starts[1:-1])[:count]:
            if self.compared:
                shown += [self._shown([members[0]], ", chosen"), self._shown([members[1]], ", rejected", "red", True)]
                continue
            again = np.flatnonzero(np.diff(examples.starts[members])) + 1
            shown += [self._shown(together.tolist()) for together in np.split(members, again)]
        return shown

    def _numbers(self, numbers: list[int]) -> str:
        return f"{len(numbers):,} (record {name_numbers(numbers, self.records.parts, _SHOWN_NUMBERS, ', ...')})"

    def _shown(self, members: list[int], which: str = "", colour: str = "green", answer_only: bool = False) -> Text:
        """Sequences of a record, each of which begins the next; or a last one's answer alone."""
        from rich.text import Text

        examples, tokenizer = self.examples, self.encoder.tokenizer
        ids = examples[members[-1]].ids.tolist()
        place = name_numbers([int(examples.record_numbers[members[0]])], self.records.parts)
        text = Text().append(f"record {place}{which}: ", style="bold")
        at = int(examples.prompt_lens[members[-1]]) if answer_only else 0
        done = tokenizer.decode(ids[:at], clean_up_tokenization_spaces=False) if at else ""

        def append(end: int, style: str) -> None:
            """What the tokens up to one add to those before them, once it is whole characters."""
            nonlocal done, at
            grown = tokenizer.decode(ids[:end], clean_up_tokenization_spaces=False)
            if not grown.endswith("\N{REPLACEMENT CHARACTER}") or end == len(ids):
                text.append(grown[len(done) :], style=style)
                done = grown
            at = end

        for member in members:
            first, last = max(int(examples.supervised_from[member]), at), int(examples.lengths[member]) - 1
            append(first, "dim")
            for k in range(first, last):
                append(k + 1, colour if k % 2 else f"bright_{colour}")
            append(last + 1, f"reverse {colour}")
        return text


def _quantiles(values: np.ndarray) -> str:
    found = np.quantile(values, _QUANTILES)
    named = zip(("min", "5%", "25%", "median", "75%", "95%", "max"), found, strict=True)
    return "  ".join(f"{name} {value:.0f}" for name, value in named)
