"""A model that answers here."""
