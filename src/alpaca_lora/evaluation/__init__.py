"""Evaluation: which of two models people, or a judge, prefer, and how sure that is."""
