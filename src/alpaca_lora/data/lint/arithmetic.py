"""Sums that are wrong: equations between plain numbers, and answers to a plain sum.

    2 + 3 * 4 = 14        17 / 3 = 5.67 (rounded as shown)        15% of 500 is 75        the sum of 3, 2 and 5

Only what is certain is said: variables, units inside an expression, ranges (1-3 = low), other bases and code are passed
over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from math import prod

from ..rows import Record
from .expressions import EXPRESSION, NUMBER, OPERATOR, SIGNED, value_of
from .findings import Found, excerpt

_DIGIT = re.compile(r"\d")
_ONE_NUMBER = re.compile(SIGNED)
_ONE_EXPRESSION = re.compile(EXPRESSION)
_CHAIN = re.compile(rf"{EXPRESSION}(?:\s*=\s*{EXPRESSION})+")
_PERCENT = re.compile(
    rf"(?<![\d.,])({NUMBER})\s?% of [$€£]?({NUMBER}) (?:is|=|equals|is equal to) [$€£]?({NUMBER})"
    r"(?![\d%])(?!\s*(?:%|percent|[-+*/x×]|million|billion|thousand))"
)
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)

# Where numbers are said to be wrong, rounded, or not to be decimal ones.
_NO_CLAIM = re.compile(
    r"incorrect|wrong|false|mistake|error|not (?:true|equal|correct)|joke|trick|riddle|puzzle|binary|hexadecimal|octal|"
    r"modulo|\bmod\b|\bbase[- ]?\d|boolean|vector|matri|approximat|about|roughly|≈|estimat|remainder|nearest|"
    r"score|rating|scale",
    re.IGNORECASE,
)
_FACTOR_WORD = re.compile(
    r"\b(?:of|log|ln|lg|sin|cos|tan|sqrt|root|mod|minus|plus|times|by|over|squared|cubed|power|[a-z])\Z", re.IGNORECASE
)
_GOES_ON = re.compile(
    r"[\w^²³%!°/:=(]|[.,]\d|\s*[-+*/^×÷·−–=<>≈](?!\s*\n)|\s+\d|"
    r"\s+(?:x|r|rem|million|billion|thousand|trillion|hundred|dozen|percent|mod|k|m)\b",
    re.IGNORECASE,
)

# Prompts that are nothing but a sum.
_ASK = (
    r"(?:(?:please|can you)\s+)?"
    r"(?:what is|what's|calculate|compute|evaluate|solve|find|determine|work out|resolve|give)"
)
_ASKED = re.compile(
    rf"\W*(?:{_ASK}\s+)?(?:the (?:answer|result|value|following)(?: to| of)?\s*)?(?:the |this |following |a )*"
    r"(?:arithmetic |math(?:ematical)? )?(?:problem|expression|equation|calculation|operation|sum)?\s*:?\s*",
    re.IGNORECASE,
)
_ASKED_PERCENT = re.compile(rf"{_ASK}\s+({NUMBER})\s?% of [$€£]?({NUMBER})\s*[.?]?", re.IGNORECASE)
_KIND = r"(?P<kind>sum|total|add|product|multiply|average|mean)"
_FILL = r"(?: (?:the|these|those|this|their|all|of|given|following|two|three|four|five|numbers?|values?|set|list))*"
_NUMBERS = r"-?\d+(?:\.\d+)?(?:(?:\s*,\s*(?:and\s+)?|\s+and\s+)-?\d+(?:\.\d+)?)+"
_ASKED_OVER = re.compile(
    rf"(?:{_ASK}\s+)?(?:the )?{_KIND}(?: up)?(?: of| together)?{_FILL}\s*:?\s*"
    rf"[\[({{]?(?P<list>{_NUMBERS})[\])}}]?\s*[.?!]?",
    re.IGNORECASE,
)
_ASKED_OVER_INPUT = re.compile(
    rf"\W*(?:given a (?:list|set) of numbers,?\s*)?(?:(?:{_ASK}|output|return)\s+)?(?:the |their )?{_KIND}"
    rf"(?: up| together)?(?: of)?{_FILL}\W*",
    re.IGNORECASE,
)
_LIST = re.compile(rf"[\[({{]?\s*(?P<list>{_NUMBERS})\s*[\])}}]?\s*[.?!]?")

_MOST_WORDS = 40  # of an answer that can be told from an explanation


def check_arithmetic(record: Record) -> Iterator[Found]:
    """At most one finding: the first wrong equation of the output, or a wrong answer to a plain sum."""
    output = record.output
    if not _DIGIT.search(output) or _NO_CLAIM.search(f"{record.instruction}\n{record.input}"):
        return
    for start, end, _ in wrong_equations(_CODE.sub(lambda code: re.sub(r"[^\n]", "`", code[0]), output)):
        yield Found("arithmetic", "output", excerpt(output, start, end))
        return
    expected = asked_result(record.instruction.strip(), record.input.strip())
    if expected is None or len(output.split()) > _MOST_WORDS or _NO_CLAIM.search(output):
        return
    answers = re.findall(rf"(?<![\w.]){SIGNED}(?![\w^])", output)
    fractions = [Fraction(*map(int, pair)) for pair in re.findall(r"(\d+)\s*/\s*([1-9]\d*)", output)]
    if answers and expected not in fractions and not any(_shows(expected, number) for number in answers):
        shown = float(expected) if expected.denominator > 1 else int(expected)
        yield Found("arithmetic", "output", f"{excerpt(output)} (exactly: {shown:,})")


def wrong_equations(text: str) -> Iterator[tuple[int, int, Fraction]]:
    """Equations between plain numbers that do not hold: (start, end, what the left side comes to).

    Example:
        >>> text = "2 + 2 = 4, then 10 / 4 = 2.5 and 17 / 3 = 5.67, but 6 x 7 = 41."
        >>> [(text[start:end], int(value)) for start, end, value in wrong_equations(text)]
        [('6 x 7 = 41', 42)]
    """
    for match in _CHAIN.finditer(text):
        line_start = text.rfind("\n", 0, match.start()) + 1
        line_end = text.find("\n", match.end())
        before = text[line_start : match.start()]
        if not _starts_clean(before) or _GOES_ON.match(text, match.end()):
            continue
        if _NO_CLAIM.search(text, line_start, line_end if line_end > 0 else len(text)):
            continue
        sides = match[0].split("=")
        if _ONE_NUMBER.fullmatch(sides[0].strip()) and before.rstrip()[-1:].isalpha():
            sides = sides[1:]  # the number of a name: "Side 3 = 4 + 6"
        for left, right in pairwise(sides):
            a, b = value_of(left), value_of(right)
            if a is None or b is None or not _is_sum(f"{left} {right}"):
                continue
            if not (a == b or _shows(a, right) or _shows(b, left) or (_rounded(left) and _rounded(right))):
                yield match.start(), match.end(), a
                break
    for match in _PERCENT.finditer(text):
        percent, whole = value_of(match[1]), value_of(match[2])
        if percent is not None and whole is not None and not _shows(percent * whole / 100, match[3]):
            yield match.start(), match.end(), percent * whole / 100


def asked_result(instruction: str, given: str) -> Fraction | None:
    """What a prompt that is nothing but a plain sum comes to, else None.

    Example:
        >>> asked_result("Find the product of 9, 5 and 28.", ""), asked_result("Sum up the numbers.", "3, 2, 5")
        (Fraction(1260, 1), Fraction(10, 1))
        >>> asked_result("What is 15% of 60?", "")
        Fraction(9, 1)
    """
    if given:
        asked, listed = _ASKED_OVER_INPUT.fullmatch(instruction), _LIST.fullmatch(given)
        if asked and listed:
            return _over(asked["kind"], listed["list"])
        return _expression(given) if _ASKED.fullmatch(instruction.rstrip(".: ") + " ") else None
    if match := _ASKED_PERCENT.fullmatch(instruction):
        return _expression(f"{match[1]} * {match[2]} / 100")
    if match := _ASKED_OVER.fullmatch(instruction):
        return _over(match["kind"], match["list"])
    head = _ASKED.match(instruction)
    return _expression(instruction[head.end() :] if head else instruction)


def _expression(text: str) -> Fraction | None:
    text = text.strip().rstrip("=?. ")
    return value_of(text) if _ONE_EXPRESSION.fullmatch(text) and _is_sum(text) else None


def _over(kind: str, listed: str) -> Fraction:
    numbers = [Fraction(number) for number in re.findall(r"-?\d+(?:\.\d+)?", listed)]
    kind = kind.lower()
    if kind in ("product", "multiply"):
        return prod(numbers, start=Fraction(1))
    return sum(numbers, start=Fraction(0)) / (len(numbers) if kind in ("average", "mean") else 1)


def _is_sum(text: str) -> bool:
    """Whether it has an operator that is no mark of a range (1-3) or a score (9/10)."""
    operators = re.findall(rf"(?<=[\d)])\s*{OPERATOR}\s*(?=[\d($€£])", text)
    return any(operator not in ("-", "–", "/") for operator in operators)


def _starts_clean(before: str) -> bool:
    """Whether an expression can begin here: no operator, factor, function or list goes before it on its line."""
    near = before.rstrip()
    if not near or re.fullmatch(r"\s*(?:[-*•]|\d+[.)])\s+", before):  # a bullet or a number of a list
        return True
    if near[-1].isalpha():
        return near != before and not _FACTOR_WORD.search(near)
    return near[-1] in "=:;?!.(\"“’'|$" or (near[-1] == "," and near != before)


def _rounded(side: str) -> bool:
    """Whether a side holds decimals and is no single number: it may have been rounded on the way."""
    return "." in side and not _ONE_NUMBER.fullmatch(side.strip())


def _shows(value: Fraction, number: str) -> bool:
    """Whether a single number is `value` as it stands, rounded or cut to its places, be they none."""
    number = number.strip().strip("()")
    said = value_of(number) if _ONE_NUMBER.fullmatch(number) else None
    if said is None:
        return False
    places = len(number.partition(".")[2])
    if not places and value.denominator == 1:
        return said == value
    return abs(said - value) < Fraction(1, 10**places)
