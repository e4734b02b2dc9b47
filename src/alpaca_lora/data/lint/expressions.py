"""Expressions of plain numbers, + - * / ^, x and parentheses, evaluated exactly, in fractions."""

from __future__ import annotations

import re
from fractions import Fraction

NUMBER = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?"
SIGNED = rf"[-−]?[$€£]?{NUMBER}"
OPERATOR = r"(?:\*\*|[-+*/^×÷·−–]|[xX](?=[\s(\d]))"
_TERM = rf"(?:\(\s*)*{SIGNED}(?:\s*\))*"
EXPRESSION = rf"{_TERM}(?:\s*{OPERATOR}\s*{_TERM})*"

_TOKEN = re.compile(rf"\s*({NUMBER}|\*\*|[-+*/^×÷·−–()xX$€£])")
_LARGEST_EXPONENT = 64


def value_of(text: str) -> Fraction | None:
    """What an expression comes to; None for any other text, and for a division by zero.

    Example:
        >>> value_of("(2 + 3) x 4 / 8")
        Fraction(5, 2)
    """
    tokens: list[str] = []
    place, text = 0, text.strip()
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            return None
        if match[1] not in "$€£":
            tokens.append(match[1])
        place = match.end()
    try:
        value = _sum(tokens)
    except (IndexError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return None if tokens else value


def _sum(tokens: list[str]) -> Fraction:
    value = _product(tokens)
    while tokens and tokens[0] in "+-−–":
        value = value + _product(tokens) if tokens.pop(0) == "+" else value - _product(tokens)
    return value


def _product(tokens: list[str]) -> Fraction:
    value = _power(tokens)
    while tokens and tokens[0] in "*/×÷·xX":
        value = value / _power(tokens) if tokens.pop(0) in "/÷" else value * _power(tokens)
    return value


def _power(tokens: list[str]) -> Fraction:
    if tokens[0] in "-−–":
        tokens.pop(0)
        return -_power(tokens)
    base = _atom(tokens)
    if tokens and tokens[0] in ("^", "**"):
        tokens.pop(0)
        exponent = _power(tokens)
        if exponent.denominator > 1 or abs(exponent) > _LARGEST_EXPONENT:
            raise OverflowError(exponent)
        return base**exponent.numerator
    return base


def _atom(tokens: list[str]) -> Fraction:
    token = tokens.pop(0)
    if token != "(":
        return Fraction(token.replace(",", ""))
    value = _sum(tokens)
    if tokens.pop(0) != ")":
        raise ValueError("a parenthesis is not closed")
    return value
