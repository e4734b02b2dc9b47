"""The promise: the layouts, however a step is split, have the plain padded Trainer's loss and gradients."""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from transformers import Trainer, TrainingArguments

from alpaca_lora.data.mixture import Mixture
from alpaca_lora.data.plan import Planner
from alpaca_lora.data.record import Conversation
from alpaca_lora.data.records import RecordSet
from alpaca_lora.data.step_dataset import StepDataset, collate
from alpaca_lora.data.tokens import Encoder, Examples, encoder_for
from alpaca_lora.errors import ConfigError
from alpaca_lora.models import predictions
from alpaca_lora.models.attention import IMPLEMENTATION, PackMask
from alpaca_lora.models.load import checkpoint_activations
from alpaca_lora.models.lora import add_lora
from alpaca_lora.models.predictions import plain_head
from alpaca_lora.training.fast_path import uncast_inputs
from alpaca_lora.training.loss import pack_loss
from alpaca_lora.training.trainer import AlpacaTrainer
from chats import CHATS, chat_tokenizer, random_conversations, random_trees

EOS = 2


@st.composite
def example_sets(draw: st.DrawFn) -> Examples:
    """Examples whose prompts share prefixes: few first words, few second words, then anything."""
    token = st.integers(3, 60)
    words = st.lists(token, min_size=1, max_size=6)
    firsts = draw(st.lists(words, min_size=1, max_size=2))
    seconds = draw(st.lists(words, min_size=1, max_size=3))
    rows, prompt_lens = [], []
    for _ in range(draw(st.integers(4, 12))):
        prompt = draw(st.sampled_from(firsts)) + draw(st.sampled_from(seconds)) + draw(st.lists(token, max_size=3))
        rows.append([*prompt, *draw(st.lists(token, min_size=1, max_size=8)), EOS])
        prompt_lens.append(len(prompt))
    return Examples.from_lists(rows, prompt_lens)


@st.composite
def conversations(draw: st.DrawFn) -> Examples:
    """Records of one to three turns; a turn begins with what came before, or rewrites its end."""
    token = st.integers(3, 60)
    rows: list[list[int]] = []
    prompt_lens: list[int] = []
    numbers: list[int] = []
    system = draw(st.lists(token, min_size=1, max_size=4))
    for number in range(1, draw(st.integers(2, 6)) + 1):
        before = system
        for _ in range(draw(st.integers(1, 3))):
            if draw(st.booleans()):
                before = before[:-1]
            prompt = before + draw(st.lists(token, min_size=1, max_size=5))
            before = [*prompt, *draw(st.lists(token, min_size=1, max_size=6)), EOS]
            rows.append(before)
            prompt_lens.append(len(prompt))
            numbers.append(number)
    trained = draw(st.booleans())
    return Examples.from_lists(rows, prompt_lens, record_numbers=np.asarray(numbers), train_on_inputs=trained)


def alpaca_like(count: int, seed: int = 0, vocabulary: int = 60) -> Examples:
    """Two preambles, instructions of a few tokens, responses of any length."""
    random = np.random.default_rng(seed)
    preambles = [random.integers(3, vocabulary, 12).tolist(), random.integers(3, vocabulary, 17).tolist()]
    rows, prompt_lens = [], []
    for k in range(count):
        prompt = preambles[k % 2] + random.integers(3, vocabulary, random.integers(1, 9)).tolist()
        rows.append([*prompt, *random.integers(3, vocabulary, random.integers(1, 25)).tolist(), EOS])
        prompt_lens.append(len(prompt))
    return Examples.from_lists(rows, prompt_lens)


def model_for(tiny_llama: Any, kv_heads: int = 4, method: str = "lora") -> Any:
    torch.manual_seed(0)
    model = tiny_llama(kv_heads=kv_heads)
    if method == "lora":
        model = add_lora(model, r=4, alpha=8, dropout=0.0, targets="all-linear")
        for name, tensor in model.named_parameters():
            if "lora_B" in name:  # zero at the start: A would get no gradient
                torch.nn.init.normal_(tensor, std=0.05)
    return model


def step_of(model: Any, dataset: StepDataset, fused: bool = True) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients of the first step; `fused`: by our own loss, or by torch's over the model's logits."""
    model.set_attn_implementation("sdpa" if dataset.planner.layout == "padded" else IMPLEMENTATION)
    model.train()
    model.zero_grad()
    head, supervised, total = plain_head(model) if fused else None, dataset.plans[0].supervised_tokens, 0.0
    for k in range(dataset.packs_per_step):
        loss = pack_loss(model, collate([dataset[k]]), head)[0] / supervised
        loss.backward()
        total += loss.item()
    return total, {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}


def assert_same_step(found: tuple, expected: tuple) -> None:
    assert found[0] == pytest.approx(expected[0], rel=1e-6)
    # A gradient that is zero but for rounding (all keys alike, say) is compared with the size of the others.
    rounding = 1e-7 * max(gradient.norm() for gradient in expected[1].values())
    for name, gradient in expected[1].items():
        difference, size = (found[1][name] - gradient).norm(), gradient.norm()
        assert difference <= 1e-4 * size + rounding, f"{name}: gradients differ by {difference:.1e} of {size:.1e}"


@given(examples=example_sets(), max_tokens=st.sampled_from([30, 80, 1000]), multiple=st.sampled_from([1, 128]))
@settings(deadline=None, max_examples=25)
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_layouts_agree_on_random_trees(tiny_llama, kv_heads, examples, max_tokens, multiple):
    model = model_for(tiny_llama, kv_heads)
    steps = {
        layout: step_of(model, StepDataset(Planner(examples, layout, max_tokens, 1, fill), len(examples), 0, 1))
        for layout, fill in (("padded", 1), ("packed", multiple), ("tree", multiple))
    }
    assert_same_step(steps["packed"], steps["padded"])
    assert_same_step(steps["tree"], steps["padded"])


@pytest.mark.parametrize("tie", [False, True])
def test_layouts_agree_with_new_tokens(tiny_llama, tie):
    """Rows of two tokens train beside the matrices: in our own loss, and in torch's over the model's logits."""
    torch.manual_seed(0)
    tokens = {62: [5, 6], 63: [7]}
    model = add_lora(tiny_llama(62, tie=tie), r=4, alpha=8, dropout=0.0, targets="all-linear", new_tokens=tokens)
    for name, tensor in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(tensor, std=0.05)
    examples = alpaca_like(24, vocabulary=64)
    assert {62, 63} <= {*examples.ids.tolist()}
    steps = {
        (layout, fused): step_of(model, StepDataset(Planner(examples, layout, 160), len(examples), 0, 1), fused)
        for layout in ("padded", "packed", "tree")
        for fused in (True, False)
    }
    assert plain_head(model) is not None
    for found in steps.values():
        assert_same_step(found, steps["padded", False])
    rows = [gradient for name, gradient in steps["tree", True][1].items() if "trainable_tokens" in name]
    assert len(rows) == (1 if tie else 2) and all(gradient.any() for gradient in rows)


@given(examples=conversations(), max_tokens=st.sampled_from([60, 200, 1000]), fused=st.booleans())
@settings(deadline=None, max_examples=25)
def test_layouts_agree_on_conversations(tiny_llama, examples, max_tokens, fused):
    """`padded` has each turn in a row of its own: the definition."""
    model = model_for(tiny_llama, 2)
    whole = StepDataset(Planner(examples, "padded", 10_000), examples.records, 0, 1)
    try:
        steps = {
            layout: step_of(model, StepDataset(Planner(examples, layout, max_tokens), examples.records, 0, 1), fused)
            for layout in ("packed", "tree")
        }
    except ConfigError:  # more micro-batches than records
        reject()
    steps["padded"] = step_of(model, whole, fused)
    assert_same_step(steps["packed"], steps["padded"])
    assert_same_step(steps["tree"], steps["padded"])


WORDS = st.lists(
    st.sampled_from(["Hello", " world", "\n", "7", "<think>\nx\n</think>\n\n", "</s>"]), min_size=1, max_size=5
)
TEXTS = WORDS.map("".join).filter(str.strip)


@pytest.fixture(scope="module")
def chat_encoders(short_tokenizers) -> dict[str, Encoder]:
    return {name: encoder_for(chat_tokenizer(name, short_tokenizers), "chat") for name in CHATS}


def assert_layouts_agree(model: Any, examples: Examples, max_tokens: int) -> None:
    """`padded`, each turn a row of its own and all in one micro-batch, against the others in as many as they need."""
    whole = StepDataset(Planner(examples, "padded", 100_000), examples.records, 0, 1)
    try:
        steps = [
            step_of(model, StepDataset(Planner(examples, layout, max_tokens), examples.records, 0, 1))
            for layout in ("padded", "packed", "tree")
        ]
    except ConfigError:  # more micro-batches than records
        reject()
    expected = step_of(model, whole)
    for found in steps:
        assert_same_step(found, expected)


@pytest.mark.parametrize("name", CHATS)
def test_layouts_agree_on_conversations_of_every_template(tiny_llama, chat_encoders, name):
    encoder = chat_encoders[name]
    model = model_for(lambda kv_heads: tiny_llama(len(encoder.tokenizer), kv_heads=kv_heads), 2)

    @given(
        records=st.lists(random_conversations(name, TEXTS), min_size=2, max_size=5),
        max_tokens=st.sampled_from([150, 400, 10_000]),
        train_on_inputs=st.booleans(),
    )
    @settings(deadline=None, max_examples=8)
    def agree(records: list[Any], max_tokens: int, train_on_inputs: bool) -> None:
        source = RecordSet(records, list(range(1, len(records) + 1)), "<test>")
        examples = encoder.encode(source, 10_000, train_on_inputs=train_on_inputs)
        assert len(examples) == sum(len(record.trained) for record in records)
        assert_layouts_agree(model, examples, max_tokens)

    agree()


@pytest.mark.parametrize("checkpointing", [False, True])
def test_layouts_agree_on_trees_of_replies(tiny_llama, chat_encoders, checkpointing):
    encoder = chat_encoders["chatml"]
    model = model_for(lambda kv_heads: tiny_llama(len(encoder.tokenizer), kv_heads=kv_heads), 2)
    if checkpointing:
        checkpoint_activations(model)

    @given(records=st.lists(random_trees(TEXTS), min_size=2, max_size=4), max_tokens=st.sampled_from([150, 10_000]))
    @settings(deadline=None, max_examples=10)
    def agree(records: list[Any], max_tokens: int) -> None:
        source = RecordSet(records, list(range(1, len(records) + 1)), "<test>")
        assert_layouts_agree(model, encoder.encode(source, 10_000), max_tokens)

    agree()


def test_a_turn_never_sees_a_siblings_branch(tiny_llama, chat_encoders):
    """Two answers to one question, and an answer below the first: what the second says changes no other logits."""
    encoder = chat_encoders["chatml"]
    model = tiny_llama(len(encoder.tokenizer))
    model.set_attn_implementation(IMPLEMENTATION)
    logits, owners = [], []
    for other in ("Red.", "Max!"):
        roles = ("user", "assistant", "user", "assistant", "assistant")
        texts = ("Hi", "Hello", "Bye", "Bye", other)
        messages = tuple({"role": role, "content": text} for role, text in zip(roles, texts, strict=True))
        tree = Conversation(messages, (1, 3, 4), parents=(-1, 0, 1, 2, 0))
        examples = encoder.encode(RecordSet([tree], [1], "<test>"), 1000)
        dataset = StepDataset(Planner(examples, "tree", 10_000), 1, 0, 1)
        batch = collate([dataset[0]])
        with torch.no_grad():
            logits.append(pack_loss(model, batch, None)[1].logits.flatten(0, 1)[batch["predict_at"]])
        owners.append(np.concatenate([[member] * examples.supervised[member] for member in dataset.plans[0].packs[0]]))
    (sibling,) = {*owners[0]} - {0, 1}
    first, second = (found[torch.from_numpy(owner != sibling)] for found, owner in zip(logits, owners, strict=True))
    assert len(first) == len(second) > 0 and (first - second).abs().max() < 1e-5


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_layouts_agree_with_checkpointing_and_full_fine_tuning(tiny_llama, method, checkpointing):
    model, examples = model_for(tiny_llama, 2, method), alpaca_like(16)
    if checkpointing:
        checkpoint_activations(model)
    padded, packed, tree = (
        step_of(model, StepDataset(Planner(examples, layout, 150), 16, 0, 1)) for layout in ("padded", "packed", "tree")
    )
    assert_same_step(packed, padded)
    assert_same_step(tree, padded)


def test_flex_attention_has_the_dense_masks_gradients(tiny_llama, monkeypatch):
    """What CUDA runs, uncompiled: FlexAttention refuses to learn on a CPU, though that form of it can."""
    from torch.nn.attention import flex_attention

    monkeypatch.setattr(flex_attention, "_validate_device", lambda *tensors: None)
    model, dataset = model_for(tiny_llama, 2), StepDataset(Planner(alpaca_like(16), "tree", 300, 1, 128), 16, 0, 1)
    found = {}
    for implementation in ("dense", "blocks"):
        monkeypatch.setattr(predictions, "PackMask", partial(PackMask, implementation=implementation))
        found[implementation] = step_of(model, dataset)
    assert_same_step(found["blocks"], found["dense"])


def test_last_hidden_states_need_no_hooks_in_the_layers(tiny_llama):
    model, dataset = model_for(tiny_llama), StepDataset(Planner(alpaca_like(8), "tree", 300), 8, 0, 1)
    step_of(model, dataset)
    assert not any(module._forward_hooks for module in model.modules())
    assert "hidden_states" not in pack_loss(model, collate([dataset[0]]), plain_head(model))[1]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_inputs_that_are_not_cast_change_no_bit(tiny_llama, checkpointing):
    """bfloat16 under autocast, as on a GPU: LoRA's float32 copies of each module's input are the same numbers."""
    model, dataset = model_for(tiny_llama), StepDataset(Planner(alpaca_like(16), "tree", 10_000), 16, 0, 1)
    for tensor in model.parameters():
        if not tensor.requires_grad:
            tensor.data = tensor.data.bfloat16()
    if checkpointing:
        checkpoint_activations(model)
    found, saved = [], []

    def count(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        saved[-1][storage.data_ptr()] = storage.nbytes()
        return tensor

    for context in (nullcontext(), uncast_inputs(model)):
        saved.append({})
        keep = torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor)
        with context, keep, torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            found.append(step_of(model, dataset))
    (loss, gradients), (same, alike) = found
    assert loss == same and gradients.keys() == alike.keys()
    assert all(torch.equal(gradients[name], alike[name]) for name in gradients)
    assert checkpointing or sum(saved[1].values()) < 0.95 * sum(saved[0].values())


def test_checkpointing_changes_nothing(tiny_llama):
    model, dataset = model_for(tiny_llama), StepDataset(Planner(alpaca_like(16), "tree", 150), 16, 0, 1)
    expected = step_of(model, dataset)
    checkpoint_activations(model)
    assert_same_step(step_of(model, dataset), expected)


@pytest.mark.parametrize("layout", ["padded", "packed", "tree"])
def test_the_split_into_micro_batches_changes_nothing(tiny_llama, layout):
    model, examples = model_for(tiny_llama), alpaca_like(16)
    dataset = StepDataset(Planner(examples, layout, 10_000), 16, 0, 1)
    assert dataset.packs_per_step == 1
    expected = step_of(model, dataset)
    for packs in (2, 4):
        dataset.packs_per_step, dataset.plans = packs, [dataset.planner.plan(np.arange(16), packs)]
        assert_same_step(step_of(model, dataset), expected)


def test_train_on_inputs_supervises_every_token_in_every_layout(tiny_llama):
    base = alpaca_like(8)
    examples = dataclasses.replace(base, train_on_inputs=True)
    padded, tree = (
        step_of(model_for(tiny_llama), StepDataset(Planner(examples, layout, 200), 8, 0, 1))
        for layout in ("padded", "tree")
    )
    assert examples.supervised.sum() == len(base.ids) - 8
    assert_same_step(tree, padded)


def test_one_examples_response_does_not_reach_the_others(tiny_llama):
    """Through a whole model: bit-identical in the reference is tested with attention; here within 1e-5."""
    model = tiny_llama()
    model.set_attn_implementation(IMPLEMENTATION)
    examples = alpaca_like(4)
    planner = Planner(examples, "tree", 10_000)
    logits = []
    for change in (0, 1):
        ids = examples.ids.copy()
        last = examples.ends[0] - 2  # a response token of example 0
        ids[last] = 3 + (ids[last] - 3 + change) % 50
        changed = dataclasses.replace(examples, ids=ids)
        batch = collate([StepDataset(Planner(changed, "tree", 10_000), 4, 0, 1)[0]])
        with torch.no_grad():
            _, out = pack_loss(model, batch, None)
        logits.append(out.logits.flatten(0, 1)[batch["predict_at"]])
    plan = planner.plan(StepDataset(planner, 4, 0, 1).planner.step_members(4, 0, 0)[0], 1)
    owner = np.concatenate([[m] * examples.supervised[m] for m in plan.packs[0]])
    others = torch.from_numpy(owner != 0)
    assert (logits[0] - logits[1])[~others].abs().max() > 1e-3
    assert (logits[0] - logits[1])[others].abs().max() < 1e-5


def arguments(folder: Any, **more: Any) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=5,
        learning_rate=1e-2,
        lr_scheduler_type="linear",
        warmup_steps=2,
        weight_decay=0.0,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        seed=7,
        remove_unused_columns=False,
        disable_tqdm=True,
        use_cpu=True,
        **more,
    )


def losses_of(trainer: Trainer) -> list[float]:
    trainer.train()
    return [line["loss"] for line in trainer.state.log_history if "loss" in line]


@pytest.mark.parametrize("layout", ["padded", "packed", "tree"])
def test_five_steps_equal_those_of_a_plain_trainer(tiny_llama, tmp_path, layout):
    """The plain Trainer gets the same examples a step as rows of `input_ids` and `labels`, padded, 4 a micro-batch."""
    examples = alpaca_like(40)
    dataset = StepDataset(Planner(examples, layout, 150), 8, seed=3, epochs=1)
    rows = []
    for member in np.concatenate(dataset.planner.step_members(8, 3, 0)):
        ids, prompt_len = examples[member]
        rows.append({"input_ids": ids.tolist(), "labels": [-100] * prompt_len + ids[prompt_len:].tolist()})

    def pad(batch: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        width = max(len(row["input_ids"]) for row in batch)
        fill = {"input_ids": 0, "labels": -100}
        padded = {key: [row[key] + [fill[key]] * (width - len(row[key])) for row in batch] for key in fill}
        mask = [[1] * len(row["input_ids"]) + [0] * (width - len(row["input_ids"])) for row in batch]
        return {key: torch.tensor(value) for key, value in {**padded, "attention_mask": mask}.items()}

    class InOrder(Trainer):
        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            return torch.utils.data.SequentialSampler(self.train_dataset)

    plain = InOrder(
        model=model_for(tiny_llama),
        args=arguments(tmp_path, per_device_train_batch_size=4, gradient_accumulation_steps=2),
        train_dataset=rows,
        data_collator=pad,
    )
    model = model_for(tiny_llama)
    if layout != "padded":
        model.set_attn_implementation(IMPLEMENTATION)
    accumulation = dataset.packs_per_step
    ours = AlpacaTrainer(
        model=model,
        args=arguments(tmp_path, per_device_train_batch_size=1, gradient_accumulation_steps=accumulation),
        train_dataset=dataset,
    )
    expected, found = losses_of(plain), losses_of(ours)
    assert len(expected) == 5 and expected[0] - expected[-1] > 0.01
    assert found == pytest.approx(expected, rel=1e-6)


@given(examples=st.one_of(example_sets(), conversations()), share=st.sampled_from([0.3, 5, 20]), fused=st.booleans())
@settings(deadline=None, max_examples=25)
def test_layouts_agree_where_a_mixture_repeats_records_in_a_step(tiny_llama, examples, share, fused):
    """A record that a step has twice counts twice, and is computed once in `tree`."""
    model = model_for(tiny_llama, 2)
    places = np.array_split(np.arange(examples.records), 2)
    batch = examples.records + 2

    def planned(layout: Any, max_tokens: int) -> StepDataset:
        mixture = Mixture(["a", "b"], places, [1, share], batch)
        return StepDataset(Planner(examples, layout, max_tokens, mixture=mixture), batch, 0, 1)

    whole = planned("padded", 10_000)
    assert len(set(whole.planner.step_records(batch, 0, 0)[0].tolist())) < batch
    expected = step_of(model, whole, fused)
    assert_same_step(step_of(model, planned("packed", 200), fused), expected)
    tree = planned("tree", 10_000)
    assert_same_step(step_of(model, tree, fused), expected)
    assert tree.plan_of(0).computed_tokens <= len(examples.ids)
