"""Compressed files, `data.jsonl.gz` and the like, as the bytes that are inside; pyarrow does it."""

from __future__ import annotations

from pathlib import Path

from ...errors import DataError

_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2"}
_SUFFIXES = (".gz", ".zst", ".bz2")
_CHUNK_BYTES = 1 << 24
_MOST_TIMES = 200
"""A text is some 3 to 20 times longer than its compressed file; repeated rows may reach 100 times."""
_ALWAYS_BYTES = 1 << 28


def inner_suffix(path: Path) -> str:
    """The suffix of what is inside, in small letters: `.jsonl` for `data.jsonl.gz`, and for `data.jsonl` too."""
    return Path(path.stem if is_compressed(path) else path.name).suffix.lower()


def is_compressed(path: Path) -> bool:
    """Whether a file's name says so."""
    return path.suffix.lower() in _SUFFIXES


def compression_of(head: bytes) -> str:
    """How a file is compressed, by its first bytes: "gzip", "zstd" or "bz2"; "" if it is not."""
    return next((name for magic, name in _MAGIC.items() if head.startswith(magic)), "")


def decompress(path: Path, kind: str, source: str) -> bytes:
    """What is inside a compressed file.

    Raises:
        DataError: It is damaged or cut short, or is far larger inside than any text.
    """
    import pyarrow

    limit = max(path.stat().st_size * _MOST_TIMES, _ALWAYS_BYTES)
    parts: list[bytes] = []
    size = 0
    try:
        with pyarrow.input_stream(str(path), compression=kind) as stream:
            while part := stream.read(_CHUNK_BYTES):
                parts.append(part)
                size += len(part)
                if size > limit:
                    raise DataError(
                        f"{source}: the file is compressed ({kind}) and more than {_MOST_TIMES} times larger "
                        "inside; no text is. Unpack it, look at what it is, and pass that."
                    )
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(
            f"{source}: the file is compressed ({kind}) and damaged or cut short: {error}. Download or copy it again."
        ) from error
    return b"".join(parts)
