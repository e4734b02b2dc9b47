"""Adapters: stored, bound to a contract, merged."""
