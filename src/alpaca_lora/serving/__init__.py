"""A model that answers over HTTP: OpenAI's protocol, and a page."""
