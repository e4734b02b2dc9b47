"""Rows that are no records: counted by what is wrong, with one of each, in one message.

The first line says what the source is, the last what to do:

    mine.json: 15 of 20 rows are no records.
      12 rows: the key 'output' is missing, first record 4 (line 9). Keys of this record: ...
      3 rows: 'input' is an int, not a string, first record 7 (line 13): 'input' is 5 (int), not a string; ...
    Mend or remove these rows; if a key has another name, pass columns={our field: your key}.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ..columns import suggest
from ..record import FIELDS
from ..sources import Rows
from .key_rules import UnreadKey
from .preference_kinds import no_preference
from .row_kinds import CONVERSATIONS, QUESTIONS, RowKind, row_kind
from .row_problem import RowProblem

_SHOWN_KINDS = 10
_ADVICE = "Mend or remove these rows; if a key has another name, pass columns={our field: your key}."

_NO_HEADER = (
    "If the first line of the file is a record, the line that names the columns is missing: put "
    "instruction,input,output above it, with a name for each column."
)


class BadRows:
    """Collects what is wrong with rows; truthy once there is something.

    Args:
        rows: The rows.
        compared: They should be preferences.
    """

    def __init__(self, rows: Rows, compared: bool = False) -> None:
        self._rows = rows
        self._kind = no_preference if compared else row_kind
        self._first: dict[str, tuple[int, RowProblem]] = {}
        self._counts: Counter[str] = Counter()
        self._row_kinds: Counter[RowKind] = Counter()
        self._kind_of: dict[int, RowKind | None] = {}

    def __len__(self) -> int:
        return sum(self._counts.values())

    def add(self, index: int, problem: RowProblem) -> None:
        """Notes what is wrong with row `index` (from 0)."""
        if problem.kind not in self._first and self._is_nameless(index):
            problem = RowProblem(f"{problem} {_NO_HEADER}", problem.kind)
        self._first.setdefault(problem.kind, (index, problem))
        self._counts[problem.kind] += 1
        kind = self._kind_of[index] = self._kind(self._rows.values[index])
        if kind and (kind is not QUESTIONS or len(self._rows.values) > 1):  # a single row may lack its answer
            self._row_kinds[kind] += 1

    def _is_nameless(self, index: int) -> bool:
        """Whether a row is of a CSV file whose header has no name that a field has anywhere."""
        row, source = self._rows.values[index], self._rows.where(index).rpartition(", record ")[0]
        return source.lower().endswith((".csv", ".tsv")) and not {*FIELDS} & {*row} and not suggest(row)

    def kinds(self, brief: bool = False) -> list[str]:
        """A line for each kind, most frequent first, with its count and its first row; `brief` leaves out details."""
        lines = []
        for kind, count in self._counts.most_common(_SHOWN_KINDS):
            index, problem = self._first[kind]
            place = self._rows.where(index).removeprefix(f"{self._rows.source}, ")
            text = str(problem)
            rest = "." if brief else text[len(kind) :] if text.startswith(kind) else f": {text}"
            lines.append(f"{count:,} row{'' if count == 1 else 's'}: {kind}, first {place}{rest}")
        if len(self._counts) > _SHOWN_KINDS:
            lines.append(f"... and {len(self._counts) - _SHOWN_KINDS:,} other kinds")
        return lines

    def lost_kind(self, unread: Sequence[UnreadKey]) -> RowKind | None:
        """What all rows are that could be read as records and are something else, as their unread keys say."""
        if self._counts or not unread or 2 * len(unread[0].records) <= len(self._rows.values):
            return None
        kind = self._kind(self._rows.values[unread[0].records[0] - 1])
        return kind if kind and unread[0].key in kind.keys else None

    def _alike(self, kind: RowKind | None) -> int:
        """How many of the rows are of a kind or one of those that it is wider than; good ones too, unless it is that of
        conversations, of which most can be read."""
        seen: dict[int, RowKind | None] = self._kind_of if kind else {}
        if kind and CONVERSATIONS not in (kind, kind.wider):
            seen = {at: seen[at] if at in seen else self._kind(row) for at, row in enumerate(self._rows.values)}
        return sum(one is not None and kind in (one, one.wider) for one in seen.values())

    def message(self, unread: Sequence[UnreadKey] = (), others: Sequence[str] = ()) -> str:
        """All that is wrong, also with keys that are not read; `others` are sentences with their own remedies."""
        source, total, count = self._rows.source, len(self._rows.values), len(self)
        kind, having = self._row_kinds.most_common(1)[0] if self._row_kinds else (None, 0)
        if named := self.lost_kind(unread):
            kind, having = named, len(unread[0].records)
            unread = [one for one in unread if one.key not in named.keys]
        said = [*(one.sentences(total, self._rows.parts) for one in unread), *others]
        alike = self._alike(kind)
        if kind and kind.wider and having < count and 10 * alike < 9 * total:
            having = sum(one for other, one in self._row_kinds.items() if kind.wider in (other, other.wider))
            kind = kind.wider
            alike = self._alike(kind)
        if kind and (10 * alike >= 9 * total or having == count):
            share = "these are" if 10 * alike >= 9 * total else f"{having:,} of {total:,} rows are"
            how = kind.how(self._rows.values, source, self._kind)
            return "\n".join([f"{source}: {share} {kind.what}.", *_indented(self.kinds(brief=True), said), how])
        if count == 1 and not said:
            (index, problem) = next(iter(self._first.values()))
            return f"{self._rows.where(index)}: {problem}"
        if len(said) == 1 and not count:
            return f"{source}: {said[0]}"
        if not count:
            return "\n".join([f"{source}: {len(said)} problems with its keys and outputs.", *_indented(said)])
        head = f"{source}: {count:,} of {total:,} rows {'is no record' if count == 1 else 'are no records'}."
        return "\n".join([head, *_indented(self.kinds(), said), *([_ADVICE] if len(self._counts) > 1 or said else [])])


def _indented(*lists: Sequence[str]) -> list[str]:
    return [f"  {line}" for lines in lists for line in lines]
