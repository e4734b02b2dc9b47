"""Data: records in, token ids and packs out."""
