"""Export: a model's folder in the forms other programs read, with the template and the stops it was trained with.

    chat-template       the folder again, with chat_template.jinja and the stops in generation_config.json
    ollama              a Modelfile that names the folder
    gguf-...            one GGUF file, read back and compared, and a Modelfile that names it

In: a merged or fully fine-tuned folder with a contract. Out: a new folder; for GGUF, export.json says what was
measured. Memory: a tensor while writing; 8 bytes per parameter while comparing.
What a template cannot say (a system message, earlier turns) is refused where the other program lets it be.
"""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

import torch

from ..data.tokens import Encoder, encoder_for
from ..errors import AdapterError, ConfigError, ModelError
from ..files import sha256_of_file
from ..models.load import load_config, load_model, load_tokenizer, resolve_base
from ..models.shards import INDEX, Shards, check_new, new_folder
from ..models.tokenizer import pad_within
from ..runs.adapter_files import is_adapter
from ..runs.contract import Contract
from ..runs.result import CARD, EXPORT
from ..runs.run_file import RUN_FILE, read_contract
from ..runs.whole_model import CERTIFICATE, check_weights
from ..textfiles import read_json_file, read_text_file
from . import ExportFormat
from .certificate import PROBES, Answers, answers_of, check_memory, cpu_float32, differences
from .chat_template import chat_template
from .gguf_file import gguf_config, gguf_package, write_gguf
from .gguf_types import quantizer
from .ollama import modelfile

# Of the largest logit, about three times what the demo model's 30 layers make of it (0.0008 and 0.021). Half precision
# keeps 11 bits: a weight moves by at most 2^-11 = 0.0005 of itself. q8_0 moves it by at most 1/254 = 0.004 of the
# largest of its 32 neighbours, 0.5% of a usual one.
LIMITS = {"f16": 2.5e-3, "q8_0": 6e-2}
# Mean KL divergence, nats a token. With 4 and 5 bits single logits move far; the demo model has 0.07 and 0.08 (0.002
# with 8 bits). A file that is wrong (rows of q in another order) has more than 1.
KL_LIMITS = {"q5_k_m": 0.4, "q4_k_m": 0.4}


def export_model(folder: str | Path, out: str | Path, format: ExportFormat) -> dict[str, Any]:
    """Write a model for another program.

    Args:
        folder: A merged or fully fine-tuned model with its contract.
        out: New or empty folder.
        format: "gguf-f16" and other types of gguf_types.py, "ollama" or "chat-template".

    Returns:
        What was written: `format`, `files`; for GGUF also the logits as in export.json.

    Raises:
        ConfigError: another format.
        AdapterError: an adapter, no contract, `out` is not empty, or the GGUF file answers otherwise than the folder.
        ModelError: a model or tokenizer that the format cannot hold.
        MissingDependencyError: GGUF without the gguf package.
    """
    if format not in get_args(ExportFormat):
        raise ConfigError(f"format: {format!r} must be one of {', '.join(get_args(ExportFormat))}.")
    check_new(out)
    folder = Path(folder)
    contract = _contract_of(folder)
    if format.startswith("gguf"):
        gguf_package()
        if "_k_" in format:
            quantizer()
        gguf_config(folder)
        count = sum(torch.Size(entry.shape).numel() for entry in Shards(folder).entries.values())
        check_memory(count, bytes_each=8, what="export", advice="Export on a larger machine.")
    encoder = encoder_for(load_tokenizer(str(folder)), contract.load_template())
    contract.check(encoder, None, folder, model_config=load_config(str(folder)))
    stops = [str(text) for text in encoder.tokenizer.convert_ids_to_tokens(contract.stop_ids)]
    report: dict[str, Any] = {"format": format}
    with new_folder(out) as part:
        if format == "chat-template":
            _write_chat_template(folder, part, contract, encoder)
        elif format == "ollama":
            text = modelfile(str(folder.resolve()), encoder, stops)
            (part / "Modelfile").write_text(text, encoding="utf-8")
        else:
            kind = format.removeprefix("gguf-")
            file = f"model-{kind}.gguf"
            chat = chat_template(encoder, glue="")  # llama.cpp itself puts a space behind BOS where there is one
            tokens = write_gguf(folder, part / file, kind, encoder, contract.stop_ids, chat)
            report |= _verified(folder, part, file, kind, tokens, encoder, out)
            report["sha256"] = {file: sha256_of_file(part / file)}
            (part / EXPORT).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
            _write_card(folder, part)
            with suppress(ModelError):  # a template that Ollama cannot say: the file itself is for llama.cpp
                (part / "Modelfile").write_text(modelfile(f"./{file}", encoder, stops), encoding="utf-8")
        report["files"] = sorted(path.name for path in part.iterdir())
    return report


def _contract_of(folder: Path) -> Contract:
    """The contract of a folder that can be exported."""
    if is_adapter(folder):
        raise AdapterError(
            f"{folder}: is an adapter, not a whole model. Merge it first (alpaca-lora merge {folder} OUT), then "
            "export OUT."
        )
    if not os.path.isdir(folder):
        raise AdapterError(f"{folder}: no such folder. Give the folder merge or a full fine-tuning wrote.")
    resolve_base(str(folder))
    check_weights(folder)
    contract = read_contract(folder)
    if contract is None:
        raise AdapterError(
            f"{folder}: has no {RUN_FILE}, so it does not say which prompt and stops it was trained with. Give the "
            "folder merge or a full fine-tuning wrote."
        )
    return contract


def _write_chat_template(folder: Path, part: Path, contract: Contract, encoder: Encoder) -> None:
    """Copy a model's files, and give its tokenizer the template and its generation the stops."""
    chat = chat_template(encoder)
    files = {"config.json", "generation_config.json", RUN_FILE, "README.md", CERTIFICATE, INDEX}
    for file in sorted({*files, *Shards(folder).by_file()}):
        if (folder / file).exists():
            shutil.copyfile(folder / file, part / file)
    encoder.tokenizer.chat_template = chat
    path = part / "generation_config.json"
    generation = read_json_file(path, ModelError) if path.exists() else {}
    generation |= {"eos_token_id": contract.stop_ids, "bos_token_id": encoder.tokenizer.bos_token_id}
    pad_within(encoder.tokenizer, load_config(str(folder)).vocab_size)
    encoder.tokenizer.save_pretrained(part)
    if encoder.tokenizer.pad_token_id is not None:
        generation["pad_token_id"] = encoder.tokenizer.pad_token_id
    path.write_text(json.dumps(generation, indent=2) + "\n", encoding="utf-8")


def _write_card(folder: Path, part: Path) -> None:
    """The folder's card, where it has one; the hub offers GGUF files by the name of their library."""
    if (folder / CARD).is_file():
        card = read_text_file(folder / CARD, ModelError).replace("library_name: transformers", "library_name: gguf", 1)
        (part / CARD).write_text(card, encoding="utf-8")


def _verified(
    folder: Path, part: Path, file: str, kind: str, tokens: str, encoder: Encoder, out: str | Path
) -> dict[str, Any]:
    """Read a GGUF file back with transformers' loader, and compare it with the folder it was made of."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if tokens != "smollm":  # transformers 5.23 does not know this way of splitting
        read = encoder_for(AutoTokenizer.from_pretrained(part, gguf_file=file), encoder.template)
        for probe in PROBES:
            ours, theirs = (some.prompt_ids(*probe)[len(some.prefix_ids) :] for some in (encoder, read))
            if ours != theirs:
                raise ModelError(f"{out}: the GGUF file's tokenizer encodes {probe[0]!r} otherwise; not kept.")
    before: Answers = answers_of(load_model(str(folder), cpu_float32()), encoder)
    # transformers reads no rotary scaling from GGUF: it is the folder's, and tests have llama.cpp's logits beside it.
    config = load_config(str(folder))
    model = AutoModelForCausalLM.from_pretrained(part, gguf_file=file, config=config, dtype=torch.float32).eval()
    logits = differences(model, before)
    figure, what = ("mean_kl", "mean KL divergence") if kind in KL_LIMITS else ("max_difference", "logits")
    logits["judged_by"] = figure
    logits["limit"] = KL_LIMITS[kind] if kind in KL_LIMITS else LIMITS[kind] * logits["largest_logit"]
    if not logits[figure] <= logits["limit"]:
        raise AdapterError(
            f"{out}: {what} of the GGUF file and the folder differ by {logits[figure]:.2g}, more than the "
            f"{logits['limit']:.2g} that {kind} explains; not kept."
            + (" Does the folder answer well? Export chat-template." if kind == "f16" else " Export gguf-f16.")
        )
    return {"tokenizer": tokens, "logits": logits}
