"""One run of each tracker for one of ours, also over kills and resumes, with our settings in it.

    wandb         the id that stands in the run file; offline, the folders of all starts carry it
    trackio       the name, which ends in that id: its runs are told apart by their names
    tensorboard   output_dir/tensorboard; steps that are done again after a kill take the place of those before it
    others        the name only: the output_dir's

What was reported after the checkpoint that a run goes on from is reported again, with the same values.
"""

from __future__ import annotations

import importlib
import json
import secrets
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from ..config import FinetuneConfig
from ..models.distributed import processes
from .trackers import tracker_names

PROJECT = "alpaca_lora"
_PLAIN = ("wandb", "trackio")  # which have a `config` of their own


def tracker_id_of(config: FinetuneConfig, before: str) -> str:
    """A run's id for trackers: the one it has, or a new one of 8 letters and digits; "" without trackers."""
    return before or (secrets.token_hex(4) if tracker_names(config.report_to) else "")


def reported_as(config: FinetuneConfig, id: str) -> dict[str, Any]:
    """What transformers is told of trackers: which, but for those that are set up here, project and name."""
    names = tracker_names(config.report_to)
    name = Path(config.output_dir).resolve().name
    return {
        "report_to": [one for one in names if one != "tensorboard"],
        "run_name": f"{name}-{id}" if "trackio" in names else name,
        "project": PROJECT,
    }


class TrackerRuns(TrainerCallback):
    """Entered around training: trackers' runs are begun under their names, told our settings, and ended.

    A run of wandb that is going on already, begun by the caller, is reported into and left open.

    Args:
        config: Our settings.
        id: The run's, from the run file.
        done: Optimizer steps done by the checkpoint that the run goes on from.
    """

    def __init__(self, config: FinetuneConfig, id: str, done: int) -> None:
        self.names = tracker_names(config.report_to) if processes().is_main_process else []
        self.config, self.id, self.done = config, id, done
        self.own_wandb: Any = None

    def callbacks(self) -> list[TrainerCallback]:
        """Callbacks of trackers that are set up here; this one comes last, when all runs have begun."""
        return [*([self._tensorboard()] if "tensorboard" in self.names else []), self]

    def __enter__(self) -> TrackerRuns:
        if "wandb" in self.names:
            wandb = importlib.import_module("wandb")
            if wandb.run is None:
                project = wandb.setup().settings.project or PROJECT
                name = Path(self.config.output_dir).resolve().name
                self.own_wandb = wandb.init(project=project, name=name, id=self.id, resume="allow")
        return self

    def __exit__(self, kind: Any, *error: Any) -> None:
        if self.own_wandb is not None:
            self.own_wandb.finish(exit_code=0 if kind is None else 1)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write our settings beside what transformers writes of its own."""
        for name in self.names:
            if name in _PLAIN:
                importlib.import_module(name).config.update({"alpaca_lora": self._settings()}, allow_val_change=True)

    def _tensorboard(self) -> TrainerCallback:
        from torch.utils.tensorboard import SummaryWriter
        from transformers.integrations import TensorBoardCallback

        callback = TensorBoardCallback()
        own = callback.logging_dir  # the user's, from the environment
        folder = own or str(Path(self.config.output_dir) / "tensorboard")
        callback.tb_writer = SummaryWriter(folder, purge_step=self.done + 1 if self.done else None)
        callback.tb_writer.add_text("alpaca_lora", f"```json\n{json.dumps(self._settings(), indent=2)}\n```")
        return callback

    def _settings(self) -> dict[str, Any]:
        return json.loads(json.dumps(self.config.to_dict()))
