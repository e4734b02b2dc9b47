"""Patterns of personal data: e-mail addresses, phone numbers, card numbers (by Luhn's sum) and IBANs (by their own).

Names that are kept for examples (example.com, 555 numbers, the cards of payment providers' test systems) are no one's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..record import FIELDS, Record
from .findings import Found, excerpt

_EMAIL = re.compile(r"(?<![\w.+-])[A-Za-z0-9][\w.+-]*@((?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,})\b")
_EXAMPLE_DOMAIN = re.compile(
    r"(?:.*\.)?(?:e?xample(?:-?domain)?|e?mail|test|domain|abc|xyz|sample|website|acme"
    r"|(?:your|my|our)?-?(?:company|domain|website|site|email|business|store|organization)(?:name)?)\.[a-z.]+"
    r"|.*\.(?:example|test|invalid|localhost|local)",
    re.IGNORECASE,
)
_PHONE = re.compile(
    r"(?<![\w.+/-])(?:\+\d{1,3}[ .-]?(?:\(0?\d{1,4}\)|\d{1,4})(?:[ .-]?\d{2,4}){2,4}"
    r"|(?:1[ .-])?(?:\(\d{3}\) ?|\d{3}[-.])\d{3}[-.]\d{4})(?![\w/-]|[.,]\d)"
)
# Set aside for films by the British regulator: London, other cities, mobile, no area.
_FILM_NUMBER = re.compile(r"440?(?:207946|11[3-8]496|1[2-6]1496|7700900|1632960)\d{3,4}")
_CARD = re.compile(
    r"(?<![\w.+-])(?:[3-6]\d{3}(?:[ -]?\d{4}){2}[ -]?\d{1,7}|3[47]\d{2}[ -]\d{6}[ -]\d{5})(?![\w-]|\.\d)"
)
_TEST_CARDS = {
    "4111111111111111",
    "4242424242424242",
    "4012888888881881",
    "5555555555554444",
    "6011111111111117",
    "378282246310005",
}
_IBAN = re.compile(r"(?<!\w)[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?!\w)")


def check_personal(record: Record) -> Iterator[Found]:
    """At most one finding per text."""
    for field, text in zip(FIELDS, record, strict=True):
        span = _find(text)
        if span:
            yield Found("personal-data", field, excerpt(text, *span))


def _find(text: str) -> tuple[int, int] | None:
    if "@" in text:
        for match in _EMAIL.finditer(text):
            if not _EXAMPLE_DOMAIN.fullmatch(match[1]):
                return match.span()
    if not re.search(r"\d{3}|\+\d", text):
        return None
    for pattern, holds in ((_CARD, _is_card), (_IBAN, _is_iban), (_PHONE, _is_phone)):
        for match in pattern.finditer(text):
            if holds(match[0]):
                return match.span()
    return None


def _is_card(text: str) -> bool:
    digits = re.sub(r"\D", "", text)
    if not 13 <= len(digits) <= 19 or digits in _TEST_CARDS or len(set(digits)) < 4:
        return False
    doubled = [int(digit) * 2 if place % 2 else int(digit) for place, digit in enumerate(reversed(digits))]
    return sum(value - 9 if value > 9 else value for value in doubled) % 10 == 0


def _is_iban(text: str) -> bool:
    code = text.replace(" ", "")
    return 15 <= len(code) <= 34 and int("".join(str(int(char, 36)) for char in code[4:] + code[:4])) % 97 == 1


def _is_phone(text: str) -> bool:
    """No 555 number, and no row of digits such as 123-456-7890."""
    digits = re.sub(r"\D", "", text)
    if not 9 <= len(digits) <= 15 or len(set(digits)) < 4 or "1234567" in digits or "0123" in digits:
        return False
    return "555" not in (digits[-10:-7], digits[-7:-4]) and not _FILM_NUMBER.fullmatch(digits)
