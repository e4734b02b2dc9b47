"""Lint: what is wrong with instruction data, found with record numbers, and mended where that is mechanical.

findings.py    the checks and what they mean     texts.py        one text: placeholders, damage, cut-off ends
tasks.py       instruction, input and output against each other
arithmetic.py  sums that are wrong               expressions.py  the value of a sum
personal.py    addresses and numbers of people   overlap.py      against other records and an evaluation set
report.py      runs them all                     fix.py          writes the mended file
"""
