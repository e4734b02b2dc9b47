"""What `finetune` gives back: a run, as its folder holds it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError

if TYPE_CHECKING:
    from ..adapters.results import Merged
    from ..generation.model import LocalModel
    from ..runs.plots import Plot
    from ..runs.regressions import Regressions
    from ..runs.run_file import Metrics, RunFile


@dataclass(frozen=True)
class Run:
    """A finished run; everything it knows is in its folder, so `Run(folder)` works later too."""

    output_dir: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "output_dir", Path(self.output_dir))  # a text will do

    @property
    def adapter_dir(self) -> Path:
        """Folder of the adapter."""
        return self.output_dir

    @property
    def history(self) -> list[dict[str, Any]]:
        """One dict per optimizer step and per evaluation, as in history.jsonl."""
        from ..runs.history import read_history

        return read_history(self.output_dir)

    @property
    def samples(self) -> list[dict[str, str]]:
        """`sample_instructions` with the answers before and after training."""
        return self._file.samples

    @property
    def metrics(self) -> Metrics:
        """Losses before and after, steps, tokens and seconds.

        Raises:
            ConfigError: the run has not ended yet, or the folder holds none.
        """
        metrics = self._file.metrics
        if metrics is None:
            raise ConfigError(f"{self} Metrics are of finished runs; `history` has what is there.")
        return metrics

    @property
    def regressions(self) -> Regressions | None:
        """What training changed beside its task; None where it was not measured."""
        return self._file.regressions

    def to_pandas(self) -> Any:
        """The history as a DataFrame: one row per optimizer step and per evaluation."""
        import pandas

        return pandas.DataFrame(self.history)

    def plot(self) -> Plot:
        """A matplotlib Figure of training and validation loss."""
        from ..runs.plots import plot_history

        return plot_history(self.history, self.output_dir.name)

    def generate(self, instruction: str, input: str = "", **sampling: Any) -> str:
        """The tuned model's answer; `sampling` as for `generate`."""
        from ..generation import generate

        return generate(self.model, instruction, input, **sampling)

    def merge(self, out: str | Path, **options: Any) -> Merged:
        """Merge the adapter into its base; `options` as for `merge`."""
        from ..adapters import merge

        return merge(self.output_dir, out, **options)

    def _repr_html_(self) -> str:
        from ..runs.run_card import run_card

        return run_card(self.output_dir)

    def __str__(self) -> str:
        from ..runs.run_card import run_line

        return run_line(self.output_dir)

    @property
    def _file(self) -> RunFile:
        from ..runs.run_file import RUN_FILE, RunFile

        found = RunFile.read(self.output_dir)
        if found is None:
            raise ConfigError(f"{self.output_dir}: holds no run (no {RUN_FILE}).")
        return found

    @cached_property
    def model(self) -> LocalModel:
        """The tuned model, loaded once."""
        from ..generation import load

        return load(self.output_dir)
