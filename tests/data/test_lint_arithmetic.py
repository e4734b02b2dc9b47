"""Arithmetic: wrong sums are found, and whatever is no plain sum is passed over."""

from __future__ import annotations

from fractions import Fraction

import pytest

from alpaca_lora.data.lint.arithmetic import asked_result, check_arithmetic, wrong_equations
from alpaca_lora.data.lint.expressions import value_of
from alpaca_lora.data.records import Record

RIGHT_OR_NO_SUM = """
2 + 2 = 4, 1 + 2 = 3, 10 / 4 = 2.5 and 6×7=42
17 / 3 = 5.67; 17/3 = 5.666...; 10 ÷ 3 = 3; 2 * 3.14159 * 4 = 25.13
$50 * 1.10 = $55, (12 + 14 + 27 + 23) / 4 = $19, 1,000 * 3 = 3,000
180 - (9 + 48) = 123 degrees; (210 - 32) * 5/9 = 98.9°C; 5/9 (98.6 - 32) = 37
3/4 + 2/3 = 9/12 + 8/12 = 17/12 = 1 5/12
2x + 3 = 7, a + 3 = 5, y^2 = 9 = 3^2, x^2 - 5x + 6 = 0, 3 + 4 = 7x, f(2) = 2 + 3 = 5
1-3 = low, 1-3 = 5 points, 9/10 = 90%, log 10 + 5 = 6, √16 + 2 = 6, sqrt(16) + 2 = 6
7 / 2 = 3 remainder 1
7 / 2 = 3 R1
1 + 2 + ... + 10 = 55, [1, 2] + [3] = [1, 2, 3], (4, 5) + (1, 2) = (5, 7), 8:30 + 2 = 10:30
Perimeter = Side 1 + Side 2 + Side 3 = 4 + 6 + 8 = 18
- 3 + 4 = 7
1. 3 + 4 = 7
In binary, 101 + 10 = 111 and 1 + 1 = 10.
It is wrong that 2 + 2 = 5.
10% of 50 is 5, 33% of 10 = 3.3, 100 - 10% = 90, 1,000 x 5% = $50, 20% of 80 = 16 million
3-(-2) = 5, 5 - 8 = -3, 2^3^2 = 512, 5 * 10^3 = 5000, 1920 x 1080 = 2073600
"""


@pytest.mark.parametrize("line", RIGHT_OR_NO_SUM.strip().splitlines())
def test_right_sums_and_other_uses_of_numbers_are_passed_over(line: str) -> None:
    assert list(wrong_equations(line)) == []


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2 + 2 = 5", 4),
        ("The total is 12 + 30 = 44.", 42),
        ("17 / 3 = 5.76", Fraction(17, 3)),
        ("(2 + 3) * 4 = 24", 20),
        ("$50 * 1.10 = $56", 55),
        ("180 - (9 + 48) = 133 degrees", 123),
        ("- 3 + 4 = 8", 7),
        ("5 + 5 = 10 = 2 * 6", 10),
        ("3/4 + 2/3 = 5/7", Fraction(17, 12)),
        ("15% of 500 is 85", 75),
        ("1,000 * 3 = 30,000", 3000),
    ],
)
def test_wrong_sums_are_found_with_the_right_value(text: str, value: Fraction) -> None:
    assert [found for _, _, found in wrong_equations(text)] == [value]


@pytest.mark.parametrize(
    ("instruction", "given", "value"),
    [
        ("Calculate 5 x 3.", "", 15),
        ("Calculate the following: (2 * 3 + 4) / 5", "", 2),
        ("Solve the equation.", "12 - 5", 7),
        ("What is the average of 2, 4 and 9?", "", 5),
        ("Given a list of numbers, compute their sum.", "1, 5, 10, 15", 31),
        ("Multiply the following two numbers.", "3 and 4", 12),
        ("Find the sum of 1 - 5", "", None),
        ("What is the sum of the first 10 numbers?", "", None),
        ("Calculate the sum of the integers 3, 4, 5 squared", "", None),
        ("Solve 2x + 3 = 7", "", None),
        ("Calculate 1 / 0", "", None),
    ],
)
def test_results_of_plain_questions(instruction: str, given: str, value: int | None) -> None:
    assert asked_result(instruction, given) == value


@pytest.mark.parametrize(
    ("record", "wrong"),
    [
        (Record("Calculate 5 x 3.", "", "Sure! 5 multiplied by 3 is 15."), False),
        (Record("Calculate 5 x 3.", "", "16"), True),
        (Record("What is 2 + 2?", "", "four"), False),
        (Record("Add the following fractions: 3/4 + 2/3", "", "17/12"), False),
        (Record("Compute the mean of 2, 3, 5", "", "3.33"), False),
        (Record("Write code.", "", "```\nx = 1\nassert 2 + 2 = 5\n```"), False),
        (Record("What is 2 + 2 in base 3?", "", "11"), False),
    ],
)
def test_answers(record: Record, wrong: bool) -> None:
    assert bool(list(check_arithmetic(record))) == wrong


def test_what_is_no_expression_has_no_value() -> None:
    assert value_of("2 + 2") == 4
    assert [value_of(text) for text in ("", "1 / 0", "2 +", "(1 + 2", "1 2", "9^999", "a")] == [None] * 7
