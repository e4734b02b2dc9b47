"""A comparison: two models' answers to the same instructions, in a folder of its own.

folder/comparison.json   names, sources and pairs: all that people, judges and the report need; it names the
                         models, so a rater never sees it
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..data.sources import votes
from ..errors import ConfigError, DataError
from ..files import sha256_of_file, sha256_of_json, write_atomically
from ..llm.output_folder import make_folder
from ..textfiles import read_json_file
from .outputs import ModelOutput, read_outputs
from .pairs import Pair, pair_up

NAME, VERSION = votes.COMPARISON, votes.VERSION


@dataclass(frozen=True)
class Comparison:
    """Two models and their pairs.

    Attributes:
        folder: Where everything about the comparison is kept.
        a: Name of one model.
        b: Name of the other.
        pairs: In the order of `a`'s file.
        sources: For "a" and "b": `path`, `sha256`, `answers` (how many the file holds) and `settings`, which hold
            `contract` and `training_data` if an adapter of this library made the answers.
    """

    folder: Path
    a: str
    b: str
    pairs: list[Pair]
    sources: dict[str, dict[str, Any]]

    @classmethod
    def open(cls, folder: str | Path, path_a: str | Path, path_b: str | Path) -> Comparison:
        """The comparison of two files of answers: a new one, or the one that is in the folder.

        Warns of answers without a partner, which are left out, and of two models of one name, which are called as
        their files.

        Raises:
            DataError: a file cannot be used, or the two have no instruction in common.
            ConfigError: the folder holds another comparison or anything else or cannot be written, or the two models
                cannot be told apart.
        """
        folder, paths = Path(folder), (Path(path_a), Path(path_b))
        if holds_preferences(folder):
            raise ConfigError(f"{folder}: holds a report of preferences, which it would replace. Name another folder.")
        outputs_a, outputs_b = (read_outputs(path) for path in paths)
        name_a, name_b = _names(paths, outputs_a[0].generator, outputs_b[0].generator)
        pairs = pair_up(paths, outputs_a, outputs_b)
        sources = {
            side: {
                "path": str(path.resolve()),
                "sha256": sha256_of_file(path),
                "answers": len(outputs),
                "settings": _settings(path, outputs[0]),
            }
            for side, path, outputs in zip("ab", paths, (outputs_a, outputs_b), strict=True)
        }
        new = cls(folder, name_a, name_b, pairs, sources)
        if (folder / NAME).exists():
            _check_same(cls.read(folder), new)
        else:
            make_folder(folder)
            check_holds_only(folder, NAME)  # which another process may have written meanwhile
            content = {"version": VERSION, "a": name_a, "b": name_b, "sources": sources}
            content["pairs"] = [asdict(pair) for pair in pairs]
            write_atomically(folder / NAME, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        return new

    @classmethod
    def read(cls, folder: str | Path) -> Comparison:
        """The comparison in a folder.

        Raises:
            DataError: there is none, or it is damaged.
        """
        path = Path(folder) / NAME
        if holds_preferences(Path(folder)):
            raise DataError(
                f"{folder}: holds a report of preferences, and no comparison. `alpaca-lora compare --preferences FILE "
                f"--out {folder}` writes it anew."
            )
        if not path.exists():
            raise DataError(f"{folder}: holds no {NAME}. `alpaca-lora compare A.json B.json --out {folder}` writes it.")
        content = read_json_file(path, DataError, "Compare the two files in another folder.")
        try:
            version = content["version"]
            if version == VERSION:
                pairs = [Pair(**pair) for pair in content["pairs"]]
                if not all(isinstance(content["sources"][side].get("settings", {}), dict) for side in "ab"):
                    raise TypeError("settings is no object")
                return cls(Path(folder), content["a"], content["b"], pairs, content["sources"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DataError(f"{path}: damaged ({error!r}). Compare the two files in another folder.") from None
        raise DataError(f"{path}: version {version!r}; this library reads {VERSION}.")

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over names and pairs."""
        return sha256_of_json([self.a, self.b, [asdict(pair) for pair in self.pairs]])


def check_holds_only(folder: Path, *names: str) -> None:
    """Raise ConfigError if a folder holds other files than these; hidden ones do not count."""
    here = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    if holds := sorted(name for name in here if name[0] != "." and name not in names):
        raise ConfigError(f"{folder}: is not empty ({', '.join(holds[:3])}). Name a new folder.")


def holds_preferences(folder: Path) -> bool:
    """Whether a folder holds a report of judgements made elsewhere: report.md, and no comparison."""
    return (folder / "report.md").exists() and not (folder / NAME).exists()


def _names(paths: Sequence[Path], a: str, b: str) -> tuple[str, str]:
    """The models' names; those of their files if both have the same."""
    if a != b:
        return a, b
    stems = paths[0].stem, paths[1].stem
    if stems[0] == stems[1]:
        raise ConfigError(f"{paths[0]}, {paths[1]}: both are called {stems[0]!r}. Rename one of the files.")
    warnings.warn(
        f"{paths[0]}, {paths[1]}: both models are called {a!r}; here they are {stems[0]!r} and {stems[1]!r}, as their "
        "files.",
        stacklevel=4,
    )
    return stems


def _settings(path: Path, made: ModelOutput) -> dict[str, Any]:
    if not made.settings:
        return {}
    try:
        return {**json.loads(made.settings)}
    except (ValueError, TypeError, RecursionError):
        raise DataError(
            f"{path}: 'settings' is no JSON object as text: {made.settings[:60]!r}. Correct it, or take it out."
        ) from None


def _check_same(before: Comparison, now: Comparison) -> None:
    if before.fingerprint == now.fingerprint:  # the files may say more of the models by now: benchmarks, for example
        return
    problems = [
        f"{side.upper()}: {before.folder} compares {getattr(before, side)!r} ({before.sources[side]['path']}), not "
        f"{getattr(now, side)!r} ({now.sources[side]['path']}), or that file has changed. Name another folder: --out."
        for side in "ab"
        if (getattr(before, side), before.sources[side]["sha256"]) != (getattr(now, side), now.sources[side]["sha256"])
    ]
    if problems:
        raise ConfigError(problems)
