"""Inference: models that answer."""
