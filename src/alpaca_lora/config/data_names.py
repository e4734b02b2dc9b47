"""How settings name data: what can be written down again, and what is only in memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def plain_data(data: Any) -> Any:
    """Data as plain values where they name sources: names, or mappings with a path; else their type."""
    entries = data if isinstance(data, list | tuple) else [data]
    if data is None or not entries or not all(map(_names_source, entries)):
        return None if data is None else f"<{type(data).__name__}>"
    plain = [{**one, "path": str(one["path"])} if isinstance(one, Mapping) else str(one) for one in entries]
    return plain if isinstance(data, list | tuple) else plain[0]


def _names_source(entry: object) -> bool:
    return isinstance(entry, str | Path) or (isinstance(entry, Mapping) and isinstance(entry.get("path"), str | Path))
