"""What training breaks, by learning rate: KL divergence from the base and rise of the loss on the general texts.

    PYTHONPATH=src python benchmarks/regressions.py [--base_model demo] [--steps 8] [--json out.json]

Eight runs of the same records and seed at learning rates from 1e-5 to 3e-2. Printed: each run's figures and whether it
is warned of; the rank correlation (Spearman) of KL and rise over the runs, with the 95% interval that it has over other
texts of this kind (texts are drawn anew, 2,000 times) and over other runs (Bonett and Wright 2000, Psychometrika 65,
23-28: Fisher's z with standard error sqrt((1 + r^2 / 2) / (n - 3))), and how likely so high a correlation is by chance
(all orders of the runs). On 2 cores the demo model takes about 13 minutes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from alpaca_lora import finetune
from alpaca_lora.against_base.divergence import Sums
from alpaca_lora.against_base.loading import layout_of, loaded_pair
from alpaca_lora.against_base.texts import general_texts
from alpaca_lora.runs.regressions import LIMIT

RATES = (1e-5, 1e-4, 3e-4, 1e-3, 2e-3, 5e-3, 1e-2, 3e-2)


def sums_of(folder: Path) -> Sums:
    """Sums of each general text for a run."""
    pair, encoder = loaded_pair(folder, None, None)
    general = general_texts(encoder, pair.positions)
    with layout_of(pair) as planned:
        found = [pair.compare(planned(part), np.arange(len(part))) for part in (general.texts, general.questions)]
    return Sums(*(np.concatenate(part) for part in zip(*found, strict=True)))


def correlation(kl: np.ndarray, rise: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation of the last axes, shape (..., runs)."""
    ranks = [each.argsort(-1).argsort(-1) - (each.shape[-1] - 1) / 2 for each in (kl, rise)]
    return (ranks[0] * ranks[1]).sum(-1) / (ranks[0] ** 2).sum(-1)


def over_texts(sums: list[Sums], draws: int = 2000) -> tuple[float, float]:
    """95% interval of the correlation over other texts."""
    drawn = np.random.default_rng(0).integers(len(sums[0].tokens), size=(draws, len(sums[0].tokens)))
    tokens = sums[0].tokens[drawn].sum(-1)
    kl = np.stack([one.kl[drawn].sum(-1) / tokens for one in sums], -1)
    rise = np.stack([(one.loss_after - one.loss_before)[drawn].sum(-1) / tokens for one in sums], -1)
    low, high = np.quantile(correlation(kl, rise), [0.025, 0.975])
    return float(low), float(high)


def over_runs(found: float, runs: int) -> tuple[float, float]:
    """95% interval of the correlation over other runs; an end is 1 where the order is perfect."""
    if abs(found) == 1:
        found = math.copysign(1 - 1 / runs**2, found)  # z is infinite at 1: half a rank's step short of it
    z, error = math.atanh(found), math.sqrt((1 + found**2 / 2) / (runs - 3))
    return math.tanh(z - 1.96 * error), math.tanh(z + 1.96 * error)


def by_chance(found: float, runs: int) -> float:
    """Share of all orders with at least this correlation."""
    orders = np.asarray(list(itertools.permutations(range(runs))), float)
    return float((correlation(np.arange(runs, dtype=float), orders) >= found - 1e-9).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base_model", default="demo")
    parser.add_argument("--data", default="seeds")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--rates", type=float, nargs="+", default=RATES)
    parser.add_argument("--folder", help="where the runs go and stay; else they are removed")
    parser.add_argument("--json", help="file for the figures")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        rows, sums = [], []
        for rate in given.rates:
            started = time.perf_counter()
            settings: dict[str, Any] = {"batch_size": given.batch_size, "max_steps": given.steps, "learning_rate": rate}
            settings |= {"cutoff_len": 256, "val_set_size": 12, "warmup_steps": 0, "lr_scheduler": "constant"}
            out = Path(given.folder or made) / f"rate-{rate:g}"
            run = finetune(
                base_model=given.base_model, data=given.data, output_dir=str(out), **settings,
                lora_target_modules="all-linear", resume="auto",
            )  # fmt: skip
            assert run.regressions
            sums.append(sums_of(out))
            general, valid = run.regressions.general, run.regressions.validation
            assert valid
            warned = bool(run.regressions.warning)
            rows.append({"rate": rate, "kl": general.kl, "rise": general.loss_change, "same": general.same_choice})
            rows[-1] |= {"validation": valid.loss_change, "validation_kl": valid.kl, "warned": warned}
            rows[-1] |= {"probe": run.regressions.probe.same_choice, "seconds": time.perf_counter() - started}
            print(
                f"{rate:8.0e}  KL {general.kl.shown():24}  loss {general.loss_change.shown('+'):28}  "
                f"validation {valid.loss_change.mean:+.3f} (KL {valid.kl.mean:.3f})  "
                f"probe {run.regressions.probe.same_choice} of 50  {'warned' if warned else ''}",
                flush=True,
            )
    kl, rise = (np.asarray([row[name].mean for row in rows]) for name in ("kl", "rise"))
    found, runs = float(correlation(kl, rise)), len(rows)
    texts, others = over_texts(sums), over_runs(found, runs) if runs > 3 else (-1.0, 1.0)
    chance = by_chance(found, runs)
    print(
        f"rank correlation of KL and rise of the loss: {found:.3f}, {texts[0]:.3f} to {texts[1]:.3f} over texts, "
        f"{others[0]:.3f} to {others[1]:.3f} over runs; by chance {chance:.2g}. Limit of KL: {LIMIT:g}."
    )
    if given.json:
        figures = {"runs": rows, "correlation": found, "over_texts": texts, "over_runs": others, "chance": chance}
        Path(given.json).write_text(json.dumps(figures, indent=2, default=vars) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
