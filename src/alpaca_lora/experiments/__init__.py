"""Choosing between runs: compare those that are there, or sweep over settings and compare the best."""
