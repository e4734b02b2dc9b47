"""Reads a judge's verdict from its reply: an unambiguous one, however it is dressed, and never a guess between two.

Asked for is a last line "Verdict: 1", "Verdict: 2" or "Verdict: tie". Models dress it:

    **Verdict: 1**     ### Verdict           verdict: tie.     Verdict: [[2]]     Answer: A     $\\boxed{1}$
                       2                     {"verdict": 1}    `Verdict: 1`       Verdict: 1</s>

Dress is taken off first. Then the last line must give a verdict, and every other verdict in the reply be the same.
"""

from __future__ import annotations

import re

_EXACT = {"Verdict: 1": 1.0, "Verdict: 2": 0.0, "Verdict: tie": 0.5}
_EXACT_LINE = re.compile(r"^[ \t]*verdict[ \t]*:.*$", re.IGNORECASE | re.MULTILINE)

_CLOSING_TOKEN = re.compile(r"(?:</s>|<[|｜][^<>\n]{1,40}[|｜]>|<(?:end_of_turn|eos)>|\[/INST\])\s*\Z", re.IGNORECASE)
_TAG = re.compile(r"<(/?)(?:verdict|answer|result)>", re.IGNORECASE)
_LATEX = re.compile(r"\\(?:boxed|fbox|text(?:bf|it|rm)?|math(?:bf|rm|it))\s*\{")
_DRESS = re.compile(r"[*_`#>$\\\"'“”‘’«»()\[\]{}]")
_BOXED = re.compile(r"[\s$*_]*(?:\\\(|\\\[)?[\s$]*\\boxed|[\s*_]*\[\[[^\[\]\n]*\]\]")

# "A" and "B" as capitals only: a lower-case "a" may be the article of what was cut off.
_VALUE = (
    r"(?:the )?(?:(?:answer|assistant|response|option|number) )?"
    r"(?P<value>[12]|(?-i:[AB])|first|second|(?:a )?(?:tie|draw))(?: answer| one)?(?: is better| wins)?[\s.,;!]*"
)
_LABEL = r"\b(?:verdict|winner)\s*[:：=]\s*"
_MY = r"(?:(?:my|the|final|overall) )*"
_LABELLED = re.compile(rf"{_LABEL}(?:{_VALUE}$)?", re.IGNORECASE | re.MULTILINE)
_LAST = re.compile(
    rf"(?:.*{_LABEL}|{_MY}(?:verdict|winner) is:?\s*|{_MY}(?:answer|decision|judge?ment|choice|result)\s*[:：=]\s*)"
    rf"{_VALUE}",
    re.IGNORECASE,
)
_BARE = re.compile(_VALUE, re.IGNORECASE)
_OPEN_LABEL = re.compile(rf"{_MY}(?:verdict|winner)\s*[:：]?", re.IGNORECASE)
_PREFERENCES = {"1": 1.0, "A": 1.0, "first": 1.0, "2": 0.0, "B": 0.0, "second": 0.0, "tie": 0.5, "draw": 0.5}


def read_exactly(text: str) -> float | None:
    """The preference of a reply in exactly the form asked for: 1 for the first answer, 0, or 0.5 for a tie."""
    text = text.rstrip()
    if len(_EXACT_LINE.findall(text)) != 1:
        return None
    return _EXACT.get(text.rpartition("\n")[2])


def read_dressed(text: str) -> float | None:
    """The preference of a reply whose one verdict is dressed up; None if there is none, or another one.

    Example:
        >>> read_dressed("Good.\\n\\n**Verdict: 1.**"), read_dressed("Verdict: 1\\nNo:\\n**Verdict: 2**")
        (1.0, None)
    """
    while token := _CLOSING_TOKEN.search(text):
        text = text[: token.start()]
    last_as_written = text.rstrip().rpartition("\n")[2]
    plain = _TAG.sub(lambda tag: "" if tag[1] else "Verdict: ", text)
    plain = _DRESS.sub("", _LATEX.sub("", plain))
    lines = [" ".join(line.split()) for line in plain.split("\n")]
    lines = [line for line in lines if any(map(str.isalnum, line))]
    if not lines:
        return None
    if len(lines) > 1 and _OPEN_LABEL.fullmatch(lines[-2]) and _BARE.fullmatch(lines[-1]):
        lines[-2:] = [f"Verdict: {lines[-1]}"]
    *before, last = lines
    found = _LAST.fullmatch(last)
    if found is None and (not before or _BOXED.match(last_as_written)):
        found = _BARE.fullmatch(last)
    if found is None:
        return None
    all_found = [found["value"], *(match["value"] for match in _LABELLED.finditer("\n".join(lines)))]
    preferences = {_preference(value) for value in all_found}
    return preferences.pop() if len(preferences) == 1 else None


def _preference(value: str | None) -> float | None:
    return None if value is None else _PREFERENCES[value if value in "AB" else value.lower().removeprefix("a ")]
