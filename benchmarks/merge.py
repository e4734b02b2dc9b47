"""Peak memory of merging: a random LLaMA of 2 GB in files of 200 MB, merged a tensor at a time.

    PYTHONPATH=src python benchmarks/merge.py                      # needs about 5 GB of disk, in the temporary folder
    PYTHONPATH=src python benchmarks/merge.py --layers 2 --folder /scratch

Prints the peak of resident memory above an interpreter that has loaded torch, the imports of transformers and peft
included, and pages of files that are mapped, which the kernel takes back when it needs them. Linux only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

SHARD_BYTES = 200_000_000
CHILD = """
import json, sys, time, warnings
from pathlib import Path
import torch

def kilobytes():  # the peak of this process alone: getrusage's would begin with its parent's
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])

before, start = kilobytes(), time.perf_counter()
import peft, transformers
imports = kilobytes()
warnings.simplefilter("ignore")
from alpaca_lora import merge
merge(sys.argv[2], sys.argv[3], base_model=sys.argv[1], certify=False)
print(json.dumps([before, imports - before, kilobytes() - before, time.perf_counter() - start]))
"""


def make_base(folder: Path, layers: int) -> dict[str, tuple[int, ...]]:
    """Write a random bfloat16 LLaMA in shards, without holding it; returns the shapes of its tensors."""
    import torch
    from accelerate import init_empty_weights
    from huggingface_hub import split_torch_state_dict_into_shards
    from transformers import LlamaConfig, LlamaForCausalLM

    from alpaca_lora.models.shards import Entry, write_file, write_index

    folder.mkdir()
    shape = {"hidden_size": 2048, "intermediate_size": 5632, "num_attention_heads": 32, "num_key_value_heads": 32}
    config = LlamaConfig(vocab_size=32_000, num_hidden_layers=layers, dtype="bfloat16", **shape)
    with init_empty_weights():
        state = LlamaForCausalLM(config).bfloat16().state_dict()
    plan = split_torch_state_dict_into_shards(
        state, max_shard_size=SHARD_BYTES, filename_pattern="model{suffix}.safetensors"
    )
    entries = {
        name: Entry(file, torch.bfloat16, tuple(state[name].shape)) for name, file in plan.tensor_to_filename.items()
    }

    def random(name: str) -> torch.Tensor:
        return torch.empty(entries[name].shape, dtype=torch.bfloat16).normal_(std=0.02)

    for file, names in plan.filename_to_tensors.items():
        write_file(folder / file, {name: (entries[name].dtype, entries[name].shape) for name in names}, random)
    write_index(folder, entries)
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(folder)
    return {name: entry.shape for name, entry in entries.items()}


def make_adapter(folder: Path, base: Path, shapes: dict[str, tuple[int, ...]], r: int = 16) -> None:
    """Write a random LoRA on all linear modules."""
    import torch
    from peft import LoraConfig
    from safetensors.torch import save_file

    tensors, modules = {}, set()
    for name, shape in shapes.items():
        if "_proj" in name:
            path = name.removesuffix(".weight")
            modules.add(path.rsplit(".", 1)[-1])
            tensors[f"base_model.model.{path}.lora_A.weight"] = 0.02 * torch.randn(r, shape[1])
            tensors[f"base_model.model.{path}.lora_B.weight"] = 0.02 * torch.randn(shape[0], r)
    config = LoraConfig(task_type="CAUSAL_LM", r=r, target_modules=sorted(modules), base_model_name_or_path=str(base))
    config.save_pretrained(str(folder))
    save_file(tensors, folder / "adapter_model.safetensors")


def measure(base: Path, adapter: Path, out: Path) -> list[float]:
    """Kilobytes with torch loaded; above that after imports, and at the peak; seconds."""
    command = [sys.executable, "-c", CHILD, str(base), str(adapter), str(out)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def report(layers: int, parent: str | None) -> str:
    """Make, merge, and say what it took."""
    with tempfile.TemporaryDirectory(dir=parent) as scratch:
        base, adapter, out = (Path(scratch) / name for name in ("base", "adapter", "merged"))
        make_adapter(adapter, base, make_base(base, layers))
        files = [path.stat().st_size for path in base.glob("*.safetensors")]
        size = (adapter / "adapter_model.safetensors").stat().st_size
        torch, imports, peak, seconds = measure(base, adapter, out)
        written = sum(path.stat().st_size for path in out.glob("*.safetensors"))
        assert abs(written - sum(files)) < 1000 * len(files)
    return (
        f"base {sum(files) / 1e9:.2f} GB in {len(files)} files of at most {max(files) / 1e6:.0f} MB, adapter "
        f"{size / 1e6:.0f} MB: peak {peak / 1024:.0f} MiB above an interpreter with torch ({torch / 1024:.0f} MiB), of "
        f"which {imports / 1024:.0f} MiB are imports; {seconds:.0f} s"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=17, help="17 make 2 GB, default %(default)s")
    parser.add_argument("--folder", help="where to, default: the system's temporary folder")
    arguments = parser.parse_args()
    print(report(arguments.layers, arguments.folder))
