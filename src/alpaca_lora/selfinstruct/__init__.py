"""Self-instruct: new records written by a language model, from a few written by people."""
