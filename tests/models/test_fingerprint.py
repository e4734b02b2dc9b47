"""A base's fingerprint: the same for the same weights however they are stored, another for others."""

from __future__ import annotations

import torch

from alpaca_lora.models.fingerprint import fingerprint


def test_it_does_not_depend_on_shards_or_dtype(tiny_llama, tmp_path):
    model = tiny_llama(200)
    model.save_pretrained(tmp_path / "one")
    model.save_pretrained(tmp_path / "many", max_shard_size="60KB")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 2
    model.bfloat16().save_pretrained(tmp_path / "half")
    assert len({fingerprint(str(tmp_path / name)) for name in ("one", "many", "half")}) == 1


def test_it_tells_bases_of_the_same_shape_apart(tiny_llama, tmp_path):
    def taken(model):
        model.save_pretrained(tmp_path / "model")
        return fingerprint(str(tmp_path / "model"))

    model = tiny_llama(200, tie=True)
    found = {taken(model), taken(tiny_llama(200, tie=True, seed=1))}
    for _, tensor in model.named_parameters():
        with torch.no_grad():
            tensor *= 1.05
            found.add(taken(model))
            tensor /= 1.05
    assert len(found) == 2 + len(list(model.parameters()))
