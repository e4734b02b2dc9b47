"""A base's fingerprint: the same for the same weights however they are stored, another for others."""

from __future__ import annotations

import pytest
import torch

from alpaca_lora.models import fingerprint as module
from alpaca_lora.models.fingerprint import fingerprint, same_base


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


def test_it_covers_every_value(tiny_llama, tmp_path):
    model = tiny_llama(200)
    model.save_pretrained(tmp_path / "model")
    before = fingerprint(str(tmp_path / "model"))
    weight = model.model.layers[1].mlp.up_proj.weight
    with torch.no_grad():
        weight[17, 23] += 0.5  # one value that is not among the samples
    model.save_pretrained(tmp_path / "model")
    one = fingerprint(str(tmp_path / "model"))
    with torch.no_grad():
        weight[17, 23] -= 0.5
        model.model.embed_tokens.weight[101] = model.model.embed_tokens.weight[100]
    model.save_pretrained(tmp_path / "model")
    doubled = fingerprint(str(tmp_path / "model"))
    assert len({before, one, doubled}) == 3
    assert len({found.partition("-")[0] for found in (before, one)}) == 1
    assert not same_base(before, one)
    assert same_base(before, before)
    assert same_base(before.partition("-")[0], one)  # all that earlier versions recorded


def test_it_is_taken_once(tiny_llama, tmp_path, monkeypatch):
    tiny_llama(200).save_pretrained(tmp_path / "model")
    before = fingerprint(str(tmp_path / "model"))
    with monkeypatch.context() as patch:
        patch.setattr(module, "_taken", lambda paths: pytest.fail("read again"))
        assert fingerprint(str(tmp_path / "model")) == before
    for kept in (module.cache_dir() / "fingerprints").iterdir():
        kept.write_text("cut", encoding="utf-8")
    assert fingerprint(str(tmp_path / "model")) == before
