"""Models: base models, and what is put on them."""
