"""A language model asked by a program, here or behind an endpoint: client, budget, journal, job."""
