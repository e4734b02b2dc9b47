"""NEFTune's noise: scaled by each example's own length, the same in every layout in expectation, and reproducible."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from alpaca_lora import finetune
from alpaca_lora.data.packs import by_prefix, shared_prefixes
from alpaca_lora.data.plan import Planner
from alpaca_lora.data.step_dataset import StepDataset, collate
from alpaca_lora.data.tokens import Examples
from alpaca_lora.errors import ConfigError
from alpaca_lora.models.attention import IMPLEMENTATION
from alpaca_lora.models.load import checkpoint_activations
from alpaca_lora.models.predictions import plain_head
from alpaca_lora.training import neftune
from alpaca_lora.training.loss import pack_loss
from alpaca_lora.training.neftune import EmbeddingNoise
from alpaca_lora.training.out_of_memory import MicroBatch

EOS, ALPHA, SEED = 2, 5.0, 7
CPU = torch.device("cpu")
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def examples() -> Examples:
    """Prompts with common beginnings, of lengths from 6 to 40; the last two are equal but for EOS' place."""
    random = np.random.default_rng(1)
    begin, rows, prompt_lens = random.integers(3, 60, 12).tolist(), [], []
    for k in range(10):
        prompt = begin[: 3 + 3 * (k % 4)] + random.integers(3, 60, 2).tolist()
        rows.append([*prompt, *random.integers(3, 60, 1 + 3 * k).tolist(), EOS])
        prompt_lens.append(len(prompt))
    return Examples.from_lists([*rows, [*rows[-1][:-1], 9, EOS]], [*prompt_lens, prompt_lens[-1]])


@pytest.fixture
def model(tiny_llama):
    return tiny_llama(vocab_size=64)


def noise_of(examples: Examples, layout: str, model: Any, members: np.ndarray, step: int = 0, seed: int = SEED) -> Any:
    """The noise of one pack, shape (R, T, d), and the pack."""
    pack = Planner(examples, layout, 10_000).build(members)
    noise = EmbeddingNoise(model, ALPHA, seed, examples, layout)
    return noise.of(members, (*pack.input_ids.shape, 64), step, CPU), pack


def by_token(noise: torch.Tensor, examples: Examples, layout: str, members: np.ndarray) -> list[torch.Tensor]:
    """Each example's noise, shape (tokens fed, d): what stands at the places of its own path."""
    flat, fed, found, start = noise.flatten(0, 1), examples.lengths[members] - 1, [], 0
    shared = shared_prefixes(examples, members) if layout == "tree" else np.zeros_like(fed)
    path: list[int] = []
    for row, (length, kept) in enumerate(zip(fed.tolist(), shared.tolist(), strict=True)):
        start = row * noise.shape[1] if layout == "padded" else start
        path = [*path[:kept], *range(start, start + length - kept)]
        start += length - kept
        found.append(flat[path])
    return found


@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_the_scale_is_the_example_s_own_whatever_stands_beside_it(examples, model, layout):
    members = np.arange(len(examples))
    noise, _ = noise_of(examples, layout, model, members)
    for own, length, member in zip(
        by_token(noise, examples, layout, members), examples.lengths.tolist(), members, strict=True
    ):
        bound = ALPHA / math.sqrt(length * 64)
        assert own.abs().max() <= bound
        assert own.abs().max() > 0.95 * bound  # of some hundred uniform numbers
        alone, _ = noise_of(examples, layout, model, np.asarray([member]))
        assert torch.equal(alone[0], own)  # bit for bit, so that no way to split a step changes it


def test_padded_and_packed_draw_the_same_and_tree_where_nothing_is_shared(examples, model):
    members = by_prefix(examples, np.arange(len(examples)))
    padded, packed, tree = (
        by_token(noise_of(examples, layout, model, members)[0], examples, layout, members)
        for layout in ("padded", "packed", "tree")
    )
    kept = shared_prefixes(examples, members)
    following = [*kept[1:], 0]
    for a, b, c, before, after in zip(padded, packed, tree, kept, following, strict=True):
        assert torch.equal(a, b)
        own = slice(max(int(before), int(after)), None)
        assert torch.allclose(b[own], c[own], rtol=1e-6)
    assert max(kept) > 10


def test_padding_and_what_fills_a_row_up_have_none(examples, model):
    members = np.asarray([0, 9])
    noise, pack = noise_of(examples, "padded", model, members)
    assert not noise[torch.from_numpy(pack.attention_mask) == 0].any()
    filled = EmbeddingNoise(model, ALPHA, SEED, examples, "tree").of(members, (1, 128, 64), 0, CPU)
    assert not filled[0, int((examples.lengths[members] - 1).sum()) :].any()


def test_expected_squares_are_the_same_in_every_layout(examples, model):
    """Mean squares of all examples' tokens, over 400 steps, within 4 standard errors of alpha^2 / (3 L d).

    In `tree` that holds for the sum over the examples, and for each token that several share with the mean of 1 / L.
    """
    members = by_prefix(examples, np.arange(len(examples)))
    lengths, fed = examples.lengths[members], examples.lengths[members] - 1
    expected = float((fed * ALPHA**2 / (3 * lengths)).sum())
    for layout in ("padded", "packed", "tree"):
        totals = []
        for step in range(400):
            noise, _ = noise_of(examples, layout, model, members, step)
            totals.append(sum(float((own**2).sum()) for own in by_token(noise, examples, layout, members)))
        error = np.std(totals) / math.sqrt(len(totals))
        assert abs(np.mean(totals) - expected) < 4 * error, layout
        assert error < 0.01 * expected  # so that a row's length in place of the example's would be found


def test_a_shared_token_has_the_root_mean_square_of_its_examples_scales(model):
    two = Examples.from_lists([[5, 6, 7, EOS], [5, 6, 8, 9, 10, 11, 12, EOS]], [2, 2])
    members, squares = np.asarray([0, 1]), torch.zeros(8, 64)
    for step in range(600):
        squares += noise_of(two, "tree", model, members, step)[0][0] ** 2
    means = (squares / 600).mean(1) * 3 * 64 / ALPHA**2  # of each of 8 tokens: its 1 / L
    assert means[:2].tolist() == pytest.approx([(1 / 4 + 1 / 8) / 2] * 2, rel=0.03)
    assert means[2].item() == pytest.approx(1 / 4, rel=0.03)
    assert means[3:].tolist() == pytest.approx([1 / 8] * 5, rel=0.03)


def test_draws_depend_on_seed_step_and_example_and_touch_no_random_state(examples, model):
    members = np.arange(len(examples))
    state = torch.random.get_rng_state()
    first, again = (noise_of(examples, "packed", model, members)[0] for _ in range(2))
    assert torch.equal(first, again) and torch.equal(torch.random.get_rng_state(), state)
    others = [noise_of(examples, "packed", model, members, **{which: 8}) for which in ("step", "seed")]
    flat = torch.stack([first.flatten(), *(other.flatten() for other, _ in others)])
    assert (torch.corrcoef(flat) - torch.eye(3)).abs().max() < 0.05
    tokens = by_token(first, examples, "packed", members)
    pair = torch.stack([own[:5].flatten() for own in tokens[:4]])
    assert (torch.corrcoef(pair) - torch.eye(4)).abs().max() < 0.2


@pytest.mark.parametrize("max_tokens", [60, 10_000])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_losses_and_gradients_of_padded_and_packed_agree(examples, tiny_llama, max_tokens, checkpointing):
    """Under noise, too, however the step is split, and when activations are computed again."""
    found = []
    for layout in ("padded", "packed"):
        model = tiny_llama(vocab_size=64).requires_grad_(True)
        model.set_attn_implementation("sdpa" if layout == "padded" else IMPLEMENTATION)
        if checkpointing:
            checkpoint_activations(model)
        planner = Planner(examples, layout, max_tokens)
        steps = StepDataset(planner, len(examples), 0, 1)
        noise, head, total = EmbeddingNoise(model, ALPHA, SEED, examples, layout), plain_head(model), 0.0
        model.train()
        for k, members in enumerate(steps.plans[0].packs):
            batch = MicroBatch(collate([steps[k]]), members)
            with noise.on(batch, step=3):
                loss = pack_loss(model, batch.inputs, head)[0]
                loss.backward()
            total += loss.item()
        found.append((total, {name: p.grad.clone() for name, p in model.named_parameters()}))
        plain = sum(pack_loss(model, collate([steps[k]]), head)[0].item() for k in range(len(steps)))
        assert abs(plain - total) > 1e-3  # the noise was there, and is gone
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    for name, gradient in found[0][1].items():
        assert (gradient - found[1][1][name]).norm() <= 1e-4 * gradient.norm() + 1e-7, name


# In a run


@pytest.fixture(scope="module")
def settings(short_base, records):
    return {
        "base_model": short_base,
        "data": [record._asdict() for record in records],
        "dtype": "float32",
        "cutoff_len": 128,
        "val_set_size": 2,
        "batch_size": 4,
        "max_steps": 4,
        "save_steps": 2,
        "eval_steps": 2,
        "learning_rate": 1e-2,
        "neftune_noise_alpha": 20.0,
    }


@pytest.fixture(scope="module")
def run(settings, tmp_path_factory):
    return finetune(output_dir=tmp_path_factory.mktemp("runs") / "noisy", **settings)


def lines(run):
    return [(line["step"], line.get("loss"), line.get("eval_loss")) for line in run.history]


def test_a_run_with_noise_repeats_resumes_and_differs_from_one_without(run, settings, tmp_path, monkeypatch):
    plain = finetune(output_dir=tmp_path / "plain", **{**settings, "neftune_noise_alpha": None})
    assert lines(plain)[0] == lines(run)[0]  # the evaluation before the first step: no noise in it
    assert lines(plain)[1] != lines(run)[1]
    assert (plain.output_dir / WEIGHTS).read_bytes() != (run.output_dir / WEIGHTS).read_bytes()

    of = EmbeddingNoise.of

    def stops(self, members, shape, step, device):
        if step == 3:
            raise KeyboardInterrupt
        return of(self, members, shape, step, device)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(neftune.EmbeddingNoise, "of", stops)
        finetune(output_dir=tmp_path / "again", **settings)
    resumed = finetune(output_dir=tmp_path / "again", **settings, resume="auto")
    assert lines(resumed) == lines(run)
    assert (resumed.output_dir / WEIGHTS).read_bytes() == (run.output_dir / WEIGHTS).read_bytes()
    assert resumed.regressions == run.regressions


def test_off_in_evaluations_and_in_what_is_measured_after(run, settings, monkeypatch, tmp_path):
    """Noise is drawn in the steps' micro-batches only."""
    asked = []
    of = EmbeddingNoise.of
    monkeypatch.setattr(EmbeddingNoise, "of", lambda self, *given: asked.append(given[2]) or of(self, *given))
    again = finetune(output_dir=tmp_path / "run", **settings)
    assert asked == [0, 1, 2, 3]
    assert lines(again) == lines(run)


@pytest.mark.parametrize("base", ["short_base", "short_base_bpe"])
def test_rows_of_new_tokens_have_noise_like_all_others(base, request, settings, tmp_path):
    data = [{"instruction": "Name a tool.", "output": f"a <tool> {k}"} for k in range(10)]
    given = {"base_model": request.getfixturevalue(base), "data": data, "new_tokens": ["<tool>"], "max_steps": 1}
    noisy, plain = (
        finetune(output_dir=tmp_path / str(alpha), **{**settings, **given, "neftune_noise_alpha": alpha})
        for alpha in (20.0, None)
    )
    assert abs(lines(noisy)[1][1] - lines(plain)[1][1]) > 1e-5
    assert lines(noisy)[0] == lines(plain)[0]


def test_off_by_default_and_refused_where_it_is_no_number_above_0(settings, tmp_path):
    from alpaca_lora import FinetuneConfig

    given = {"base_model": "x", "data": "x", "output_dir": "x"}
    assert FinetuneConfig(**given).neftune_noise_alpha is None
    for wrong in (0, -1, float("nan"), "5", True):
        with pytest.raises(ConfigError, match="neftune_noise_alpha: .* must be a number above 0, or left out"):
            FinetuneConfig(**given, neftune_noise_alpha=wrong)


def test_a_run_begun_before_there_was_the_setting_is_the_same_run(settings):
    from alpaca_lora import FinetuneConfig
    from alpaca_lora.runs.identity import settings_of

    config = FinetuneConfig(base_model="x", data="x", output_dir="x")
    assert "neftune_noise_alpha" not in settings_of(config)
    assert settings_of(replace(config, neftune_noise_alpha=5))["neftune_noise_alpha"] == 5
