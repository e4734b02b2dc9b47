"""What training would see: counts, lengths, truncation, supervised tokens, and a few examples in colour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import counted
from .packs import Layout
from .plan import Planner
from .records import RecordSet
from .rows import name_numbers
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

    @property
    def rows(self) -> dict[str, str]:
        """Name and value of every fact."""
        examples, total = self.examples, int(self.examples.lengths.sum())
        supervised = int(examples.supervised.sum())
        ends = examples.ids[examples.offsets[1:] - 1]
        dropped = {**self.records.dropped, "prompt reaches cutoff_len": examples.too_long}
        return {
            "records": f"{len(self.records):,} from {self.records.source}",
            **{f"of {name}": counted(count, "row") for name, count in self.records.parts},
            "with input": f"{np.mean([bool(record.input) for record in self.records.records]):.1%}",
            **{f"dropped, {reason}": self._numbers(numbers) for reason, numbers in dropped.items() if numbers},
            **({"keys not read": ", ".join(self.records.unread)} if self.records.unread else {}),
            "examples": f"{len(examples):,}",
            "tokens": f"{total:,} ({total / len(examples):.1f} an example)",
            "supervised tokens": f"{supervised:,} ({supervised / total:.1%})",
            "response cut": self._numbers(examples.truncated) if examples.truncated else "none",
            "special tokens in text": self._numbers(examples.special_text) if examples.special_text else "none",
            "text changed by the tokenizer": self._changed(),
            "begins with": self._shown_ids(examples[0].ids[:6].tolist()),
            "ending in EOS": f"{np.mean(ends == self.encoder.eos_id):.0%}",
            "example length": _quantiles(examples.lengths),
            "prompt length": _quantiles(examples.prompt_lens),
            "response length": _quantiles(examples.lengths - examples.prompt_lens),
            **self.computed,
        }

    def _shown_ids(self, ids: list[int]) -> str:
        """Ids and their tokens; BOS, where there is one, comes first."""
        tokens = self.encoder.tokenizer.convert_ids_to_tokens(ids)
        bos = "BOS" if self.encoder.prefix_ids else "no BOS"
        return f"{bos}: " + " ".join(f"{id} {token!r}" for id, token in zip(ids, tokens, strict=True)) + " ..."

    def _changed(self) -> str:
        changed = self.examples.changed_text
        if not changed:
            return "none"
        first = self.records.records[self.records.numbers.index(changed[0])]
        return f"{self._numbers(changed)}: {self.encoder.comes_back_as(first)}"

    @property
    def computed(self) -> dict[str, str]:
        """Tokens a model would compute in an epoch, by layout, against rows of 8 padded to the longest.

        Steps of 128 examples (all, where there are fewer), packs of 2,048 tokens.
        """
        examples = self.examples
        steps = Planner(examples, "padded", 2048).step_members(min(128, len(examples)), 0, 0)
        sizes = examples.lengths[steps] - 1
        rows_of_8 = sum(8 * int(step[k : k + 8].max()) for step in sizes for k in range(0, step.size // 8 * 8, 8))
        rows_of_8 += sum(step.size % 8 * int(step[step.size // 8 * 8 :].max(initial=0)) for step in sizes)
        facts = {"computed, rows of 8": f"{rows_of_8:,} tokens per epoch"}
        for layout in _LAYOUTS:
            planner = Planner(examples, layout, 2048)
            tokens = sum(planner.plan(step, planner.packs_needed(step)).computed_tokens for step in steps)
            facts[f"computed, {layout}"] = f"{tokens:,} ({rows_of_8 / tokens:.2f}x fewer)"
        return facts

    def __str__(self) -> str:
        width = max(map(len, self.rows))
        return "\n".join(f"{name:<{width}}  {value}" for name, value in self.rows.items())

    def examples_shown(self, count: int = 3) -> list[Text]:
        """The first examples as rich Texts: prompt dim, supervised tokens in alternating green, EOS reversed."""
        return [self._shown(index) for index in range(min(count, len(self.examples)))]

    def _numbers(self, numbers: list[int]) -> str:
        return f"{len(numbers):,} (record {name_numbers(numbers, self.records.parts, _SHOWN_NUMBERS, ', ...')})"

    def _shown(self, index: int) -> Text:
        from rich.text import Text

        ids = self.examples[index].ids.tolist()
        first = int(self.examples.supervised_from[index])
        tokenizer: Any = self.encoder.tokenizer
        place = name_numbers([int(self.examples.record_numbers[index])], self.records.parts, 1, "")
        text = Text().append(f"record {place}: ", style="bold")
        text.append(tokenizer.decode(ids[:first], clean_up_tokenization_spaces=False), style="dim")
        done = ""
        for k in range(first, len(ids) - 1):
            grown = self.encoder.decode(ids[first : k + 1])
            if not grown.endswith("\N{REPLACEMENT CHARACTER}"):
                text.append(grown[len(done) :], style="green" if k % 2 else "bright_green")
                done = grown
        text.append(tokenizer.convert_ids_to_tokens(ids[-1]), style="reverse green")
        return text


def _quantiles(values: np.ndarray) -> str:
    found = np.quantile(values, _QUANTILES)
    named = zip(("min", "5%", "25%", "median", "75%", "95%", "max"), found, strict=True)
    return "  ".join(f"{name} {value:.0f}" for name, value in named)
