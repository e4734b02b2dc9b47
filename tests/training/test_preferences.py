"""Preference training: the losses, and a step of pairs in every layout, against TRL's trainers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy
from transformers import TrainingArguments

from alpaca_lora.data.plan import Planner
from alpaca_lora.data.step_dataset import StepDataset
from alpaca_lora.data.tokens import Examples
from alpaca_lora.models.attention import IMPLEMENTATION
from alpaca_lora.models.lora import add_lora
from alpaca_lora.training.loss import token_losses
from alpaca_lora.training.preference_loss import AnswerPairs, PreferenceLoss, log_1_minus_exp
from alpaca_lora.training.preference_trainer import PreferenceTrainer, _means, _sums

EOS = 2
FIGURES = ("rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies")
DPO, ORPO = PreferenceLoss("dpo", 0.3, 0.1), PreferenceLoss("orpo", 0.3)


def pairs_of_answers(count: int, seed: int = 0, vocabulary: int = 60) -> Examples:
    """Two preambles, a few instructions; answers of any length, some of which begin alike."""
    random = np.random.default_rng(seed)
    preambles = [random.integers(3, vocabulary, size).tolist() for size in (12, 17)]
    rows: list[list[int]] = []
    prompt_lens: list[int] = []
    for k in range(count):
        prompt = preambles[k % 2] + random.integers(3, vocabulary, random.integers(1, 9)).tolist()
        alike = random.integers(3, vocabulary, random.integers(0, 4)).tolist()
        for _ in range(2):
            rows.append([*prompt, *alike, *random.integers(3, vocabulary, random.integers(1, 25)).tolist(), EOS])
            prompt_lens.append(len(prompt))
    return Examples.from_lists(rows, prompt_lens, record_numbers=np.arange(2, 2 * count + 2, dtype=np.int32) // 2)


def model_for(tiny_llama: Any, seed: int = 0, **shape: Any) -> Any:
    """LoRA matrices that are somewhere: at their start, policy and reference would be one."""
    torch.manual_seed(seed)
    model = add_lora(tiny_llama(**shape), r=4, alpha=8, dropout=0.0, targets="all-linear")
    for name, tensor in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(tensor, std=0.05)
    return model


def trainer_for(model: Any, steps: StepDataset, preference: PreferenceLoss, folder: Path) -> PreferenceTrainer:
    layout = steps.planner.layout
    model.set_attn_implementation("sdpa" if layout == "padded" else IMPLEMENTATION)
    folder.mkdir(exist_ok=True)
    args = TrainingArguments(
        output_dir=str(folder / "checkpoints"),
        per_device_train_batch_size=1,
        gradient_accumulation_steps=steps.packs_per_step,
        use_cpu=True,
        report_to="none",
        remove_unused_columns=False,
        label_names=["targets"],
    )
    return PreferenceTrainer(model=model, args=args, train_dataset=steps, preference=preference, run_dir=folder)


def step_of(trainer: PreferenceTrainer, reference: np.ndarray) -> tuple[float, dict[str, torch.Tensor], Any]:
    """Loss, gradients and rewards of the first step."""
    trainer.reference = {"train": reference}
    model: Any = trainer.model
    model.train()
    model.zero_grad()
    loader = iter(trainer.get_train_dataloader())
    packs, count = trainer.get_batch_samples(loader, trainer.train_dataset.packs_per_step, torch.device("cpu"))
    trainer.current_gradient_accumulation_steps = 1
    loss = sum(float(trainer.training_step(model, pack, count)) for pack in packs)
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}
    return loss, gradients, trainer.rewards_P2.clone()


def reference_of(tiny_llama: Any, examples: Examples, tmp_path: Path) -> np.ndarray:
    """Log-probabilities by another model."""
    steps = StepDataset(Planner(examples, "padded", 10**6, whole_records=True), examples.records, 0, 1)
    return trainer_for(model_for(tiny_llama, seed=1), steps, DPO, tmp_path)._log_probs(steps.planner, True)


def assert_same_step(found: tuple, expected: tuple) -> None:
    assert found[0] == pytest.approx(expected[0], rel=1e-6)
    torch.testing.assert_close(found[2], expected[2], rtol=1e-5, atol=1e-5)  # of log-probabilities around -60
    rounding = 1e-7 * max(gradient.norm() for gradient in expected[1].values())
    for name, gradient in expected[1].items():
        difference, size = (found[1][name] - gradient).norm(), gradient.norm()
        assert difference <= 1e-4 * size + rounding, f"{name}: gradients differ by {difference:.1e} of {size:.1e}"


def test_dpo_by_hand():
    """Rewards 0.5 (-3 + 4) = 0.5 and 0.5 (-7 + 5) = -1: a margin of 1.5, taken to be wrong in one of ten."""
    pairs = AnswerPairs(torch.tensor([[-3.0, -7.0]]), torch.tensor([[2.0, 2.0]]), torch.tensor([[-4.0, -5.0]]))
    scored = PreferenceLoss("dpo", 0.5, 0.1).score(pairs, 2.0)
    assert scored.rewards_P2.tolist() == [[0.5, -1.0]]
    expected = 0.9 * math.log(1 + math.exp(-1.5)) + 0.1 * math.log(1 + math.exp(1.5))
    assert scored.loss_P.tolist() == pytest.approx([expected], rel=1e-6)


def test_orpo_by_hand():
    """Two tokens of probability 1/2 on average against four of 1/4: odds of 1 and of 1/3."""
    log_probs = torch.tensor([[2 * math.log(0.5), 4 * math.log(0.25)]])
    pairs = AnswerPairs(log_probs, torch.tensor([[2.0, 4.0]]), torch.zeros(1, 2))
    scored = PreferenceLoss("orpo", 0.2).score(pairs, 2.0)
    assert scored.loss_P.tolist() == pytest.approx([2 * math.log(2) + 0.2 * 2 * math.log(1 + 1 / 3)], rel=1e-6)
    assert scored.rewards_P2.tolist() == [pytest.approx([0.2 * math.log(0.5), 0.2 * math.log(0.25)])]


@pytest.mark.parametrize("x", [-1e-30, -1e-8, -1e-3, -0.6931, -0.6932, -1.0, -20.0, -80.0])
def test_log_1_minus_exp(x):
    value = torch.tensor(x, requires_grad=True)
    found = log_1_minus_exp(value)
    found.backward()
    assert found.item() == pytest.approx(math.log(-math.expm1(x)) if x > -1 else math.log1p(-math.exp(x)), rel=1e-5)
    assert value.grad.item() == pytest.approx(-math.exp(x) / -math.expm1(x), rel=1e-5)


def test_a_certain_answer_has_a_finite_loss():
    log_probs = torch.zeros(1, 2, requires_grad=True)
    scored = ORPO.score(AnswerPairs(log_probs, torch.ones(1, 2), torch.zeros(1, 2)), 1.0)
    scored.loss_P.sum().backward()
    assert torch.isfinite(scored.loss_P).all() and torch.isfinite(log_probs.grad).all()


@given(seed=st.integers(0, 9), rows=st.integers(1, 700), trained=st.booleans())
@settings(deadline=None, max_examples=10)
def test_token_losses_are_those_of_torch(seed, rows, trained):
    """Weighted afterwards, each row by its own number; of more rows than a chunk holds, too."""
    random = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, 16, generator=random).requires_grad_()
    weight = torch.randn(50, 16, generator=random).requires_grad_(trained)
    targets = torch.randint(0, 50, (rows,), generator=random)
    weights = torch.randn(rows, generator=random)
    ours, torchs = (
        function(hidden, weight, targets)
        for function in (token_losses, lambda h, w, t: cross_entropy(h @ w.T, t, reduction="none"))
    )
    torch.testing.assert_close(ours, torchs)
    wanted = [hidden, weight] if trained else [hidden]
    found, expected = (torch.autograd.grad(losses @ weights, wanted) for losses in (ours, torchs))
    for ours_grad, torchs_grad in zip(found, expected, strict=True):
        torch.testing.assert_close(ours_grad, torchs_grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("preference", [DPO, ORPO], ids=["dpo", "orpo"])
@pytest.mark.parametrize(("max_tokens", "multiple"), [(10, 1), (120, 1), (120, 128), (10_000, 1)])
def test_layouts_agree(tiny_llama, tmp_path, preference, max_tokens, multiple):
    examples = pairs_of_answers(12)
    reference = reference_of(tiny_llama, examples, tmp_path / "reference")
    found = {}
    for layout, fill in (("padded", 1), ("packed", multiple), ("tree", multiple)):
        planner = Planner(examples, layout, max_tokens, 1, fill, whole_records=True)
        steps = StepDataset(planner, examples.records, 0, 1)
        found[layout] = step_of(trainer_for(model_for(tiny_llama), steps, preference, tmp_path / layout), reference)
    assert_same_step(found["packed"], found["padded"])
    assert_same_step(found["tree"], found["padded"])


def test_a_model_whose_logits_are_not_plain(tiny_llama, tmp_path):
    """The slower way over the model's own logits gives the same."""
    examples = pairs_of_answers(8)
    reference = reference_of(tiny_llama, examples, tmp_path / "reference")
    steps = StepDataset(Planner(examples, "tree", 100, whole_records=True), examples.records, 0, 1)
    fused, plain = (trainer_for(model_for(tiny_llama), steps, DPO, tmp_path / str(k)) for k in range(2))
    plain.head = None
    assert_same_step(step_of(plain, reference), step_of(fused, reference))


@pytest.mark.parametrize("layout", ["padded", "packed", "tree"])
@pytest.mark.parametrize("max_tokens", [8, 60, 200])
def test_a_pair_stays_in_one_pack(layout, max_tokens):
    examples = pairs_of_answers(16)
    planner = Planner(examples, layout, max_tokens, 2, whole_records=True)
    (members,) = planner.step_members(16, 0, 0)
    plan = planner.plan(members, planner.packs_needed(members))
    assert sorted(np.concatenate(plan.packs).tolist()) == list(range(32))
    for pack in plan.packs:
        assert np.array_equal(np.sort(pack)[::2] + 1, np.sort(pack)[1::2])
        cost = planner.build(pack).input_ids.size
        assert cost <= max_tokens or not planner.divisible(pack)
    assert plan.computed_tokens == sum(planner.build(pack).input_ids.size for pack in plan.packs)


def test_a_pair_that_is_drawn_twice_counts_twice(tiny_llama, tmp_path):
    """A step of mixed sources may hold a record twice."""
    once, twice = pairs_of_answers(4), pairs_of_answers(4)
    doubled = Examples.from_lists(
        [once[k].ids.tolist() for k in [0, 1, 0, 1, 2, 3]],
        [once[k].prompt_len for k in [0, 1, 0, 1, 2, 3]],
        record_numbers=np.asarray([1, 1, 2, 2, 3, 3], np.int32),
    )
    plain = StepDataset(Planner(doubled, "tree", 100, whole_records=True), 3, 0, 1)
    planner = Planner(twice, "tree", 100, whole_records=True)
    again = StepDataset(planner, 3, 0, 1)
    again.plans = [planner.plan(np.asarray([0, 1, 0, 1, 2, 3]), again.packs_per_step)]
    reference = np.linspace(-9, -30, 8, dtype=np.float32)
    found = step_of(trainer_for(model_for(tiny_llama), again, DPO, tmp_path / "a"), reference)
    expected = step_of(trainer_for(model_for(tiny_llama), plain, DPO, tmp_path / "b"), reference[[0, 1, 0, 1, 2, 3]])
    assert_same_step((*found[:2], found[2][:2]), (*expected[:2], expected[2][[0, 2]]))


@pytest.mark.parametrize("objective", ["dpo", "orpo"])
def test_loss_rewards_and_gradients_are_those_of_trl(tiny_llama, tmp_path, objective):
    trl = pytest.importorskip("trl", reason="TRL is not installed")
    preference = PreferenceLoss(objective, 0.3)  # TRL's "sigmoid" has no label smoothing
    examples = pairs_of_answers(8)
    reference = reference_of(tiny_llama, examples, tmp_path / "reference")
    steps = StepDataset(Planner(examples, "tree", 10_000, whole_records=True), examples.records, 0, 1)
    found = step_of(trainer_for(model_for(tiny_llama), steps, preference, tmp_path / "ours"), reference)
    trl_step = _trl_dpo if objective == "dpo" else _trl_orpo
    theirs = trl_step(trl, model_for(tiny_llama), examples, reference, preference, tmp_path / "theirs")
    assert found[0] == pytest.approx(theirs[0], rel=1e-5)
    figures = _means(_sums(found[2].double().numpy()), 8)
    assert figures == pytest.approx(theirs[2], rel=1e-5, abs=1e-6)
    for name, gradient in theirs[1].items():
        assert (found[1][name] - gradient).norm() <= 1e-5 * gradient.norm() + 1e-8, name


def _gradients(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}


def _trl_dpo(
    trl: Any, model: Any, examples: Examples, reference: np.ndarray, preference: PreferenceLoss, folder: Path
) -> Any:
    """TRL's DPOTrainer on the same ids; the reference is given to it as if it had computed it before training."""
    from datasets import Dataset

    rows = [
        {
            "prompt_ids": examples[k].ids[: examples[k].prompt_len].tolist(),
            "chosen_ids": examples[k].ids[examples[k].prompt_len :].tolist(),
            "rejected_ids": examples[k + 1].ids[examples[k].prompt_len :].tolist(),
            "ref_chosen_logps": float(reference[k]),
            "ref_rejected_logps": float(reference[k + 1]),
        }
        for k in range(0, len(examples), 2)
    ]
    args = trl.DPOConfig(
        output_dir=str(folder),
        beta=preference.beta,
        use_cpu=True,
        report_to="none",
        bf16=False,
        max_length=None,
    )
    texts = Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}])
    trainer = trl.DPOTrainer(model=model, args=args, train_dataset=texts, processing_class=_any_tokenizer())
    trainer.precompute_ref_logps = True
    model.train()
    loss = trainer.compute_loss(model, trainer.data_collator(rows))
    loss.backward()
    figures = trainer._metrics["train"]
    return loss.item(), _gradients(model), {name: figures[name][0] for name in FIGURES}


def _trl_orpo(
    trl: Any, model: Any, examples: Examples, reference: Any, preference: PreferenceLoss, folder: Path
) -> Any:
    """TRL's ORPOTrainer on the same ids.

    Its first term is the loss of prompt and answer; the paper's, and ours, is that of the answer.
    """
    from datasets import Dataset
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    class OfAnswers(ORPOTrainer):
        def concatenated_forward(self, model: Any, batch: Any) -> Any:
            *rest, _ = super().concatenated_forward(model, batch)
            logits, labels = rest[2], batch["chosen_labels"][:, 1:]
            chosen = logits[:, : labels.shape[1]].flatten(0, 1)
            return (*rest, cross_entropy(chosen, labels.flatten(), ignore_index=-100))

    args = ORPOConfig(
        output_dir=str(folder),
        beta=preference.beta,
        use_cpu=True,
        report_to="none",
        bf16=False,
        max_length=1000,
    )
    texts = Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}])
    trainer = OfAnswers(model=model, args=args, train_dataset=texts, processing_class=_any_tokenizer())
    rows = []
    for k in range(0, len(examples), 2):
        row: dict[str, Any] = {}
        for side, member in (("chosen", k), ("rejected", k + 1)):
            ids, prompt_len = examples[member].ids.tolist(), examples[member].prompt_len
            row |= {f"{side}_input_ids": ids, f"{side}_attention_mask": [1] * len(ids)}
            row[f"{side}_labels"] = [-100] * prompt_len + ids[prompt_len:]
        rows.append(row | {"prompt_input_ids": ids[:prompt_len], "prompt_attention_mask": [1] * prompt_len})
    model.train()
    loss, figures = trainer.get_batch_loss_metrics(model, trainer.data_collator(rows))
    loss.backward()
    return loss.item(), _gradients(model), {name: figures[name] for name in FIGURES}


def _any_tokenizer() -> Any:
    """What TRL asks for, though all it gets are ids."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<pad>": 0, "<s>": 1, "</s>": 2, "a": 3, "b": 4, "c": 5}, unk_token="a"))
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="a"
    )
