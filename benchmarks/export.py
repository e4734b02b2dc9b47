"""The demo model as GGUF: size, and how far its logits are from those of the model that was exported.

    python benchmarks/export.py        # f16 and 8, 5 and 4 bits, about three minutes on 2 cores; 1 GB of disk

Each file is read back with transformers, as every export is. docs/adapters.md has the figures.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from alpaca_lora import export
from alpaca_lora.data.tokens import Encoder
from alpaca_lora.models.load import load_tokenizer, resolve_base
from alpaca_lora.prompts import Template
from alpaca_lora.runs.contract import Contract
from alpaca_lora.runs.run_file import RunFile


def main() -> None:
    base = resolve_base("demo")
    with tempfile.TemporaryDirectory() as name:
        model = Path(name) / "model"
        model.mkdir()
        for path in Path(base).iterdir():
            (model / path.name).symlink_to(path)
        encoder = Encoder(load_tokenizer(base), Template.load("alpaca"))
        RunFile(Contract.of(encoder, "demo", "-")).write(model)
        for kind in ("f16", "q8_0", "q5_k_m", "q4_k_m"):
            logits = export(model, Path(name) / kind, format=f"gguf-{kind}").logits
            size = (Path(name) / kind / f"model-{kind}.gguf").stat().st_size
            print(
                f"{kind}: {size / 1e6:.0f} MB, logits differ by at most {logits['max_difference']:.3g} of "
                f"{logits['largest_logit']:.3g}, mean KL {logits['mean_kl']:.2g} nats, likeliest tokens the same all "
                f"along {logits['same_greedy_answers']} of {logits['probes']} answers",
                flush=True,
            )


if __name__ == "__main__":
    main()
