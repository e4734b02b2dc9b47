"""Damages files and replies in thousands of ways: each time one sentence comes, or the answer of before.

python tests/faults/fuzz.py --mutations 20000 --seed 1

A target is a file, or a text, and what is made of it. A mutation of it ends well in one of two ways: an error of this
library, in one sentence, or a result that is right. Right is what came before the mutation, where the file decides
about answers of a model; for settings, templates and replies, which may say many things, that nothing else breaks.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

EXTREMES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 3.5, 2**31, 2**63, -(10**30), 1e-300, 1e308, math.nan, math.inf, -math.inf),
    *("", "a", " ", "x" * 300, "\0", "\ud800", "é", "../x", "/dev/zero", "{x}", "-1", "<s>", "\N{SNOWMAN}\n"),
    *([], {}, [None], [[]], {"a": 1}, {"": {}}, [1, "a"], [["a"], {}], "@deep", "@digits"),
)
RAW = {'"@deep"': "[" * 5_000 + "]" * 5_000, '"@digits"': "9" * 5_000}


@dataclass(frozen=True)
class Target:
    """Something to damage.

    Args:
        path: The file.
        use: Makes something of it; what comes is compared with `==`.
        strict: Only what came before the mutation is right.
        lines: Every line is an object.
        header: The JSON header of a safetensors file is damaged, too.
    """

    path: Path
    use: Callable[[], Any]
    strict: bool = True
    lines: bool = False
    header: bool = False


def mutated(target: Target, content: bytes, dice: random.Random) -> bytes:
    """The file's bytes, damaged in one place.

    Of weights only the header: of a value what bfloat16 rounds away may change unseen (models/fingerprint.py).
    """
    length = int.from_bytes(content[:8], "little")
    if dice.random() < 0.3:
        end = 8 + length if target.header else len(content)
        return _bytes_changed(content[:end], dice) + content[end:]
    if target.header:
        text = _text_changed(content[8 : 8 + length].decode(), dice)
        size = length if dice.random() < 0.3 else len(text)
        return size.to_bytes(8, "little") + text + content[8 + length :]
    if target.lines:
        lines = content.split(b"\n")
        place = dice.randrange(len(lines) - 1)
        lines[place] = _text_changed(lines[place].decode(), dice)
        return b"\n".join(lines)
    return _text_changed(content.decode(), dice)


def _bytes_changed(content: bytes, dice: random.Random) -> bytes:
    place = dice.randrange(min(len(content), 1 << 16))
    kind = dice.choice(["flip", "cut", "insert", "remove", "double", "empty", "bom", "zeros"])
    if kind == "flip":
        return content[:place] + bytes([content[place] ^ (1 << dice.randrange(8))]) + content[place + 1 :]
    if kind == "insert":
        return content[:place] + bytes(dice.randrange(256) for _ in range(dice.randint(1, 4))) + content[place:]
    end = place + dice.randint(1, 40)
    return {
        "cut": content[:place],
        "remove": content[:place] + content[end:],
        "double": content[:end] + content[place:],
        "empty": b"",
        "bom": b"\xef\xbb\xbf" + content,
        "zeros": content[:place] + bytes(len(content[place:end])) + content[end:],
    }[kind]


def _text_changed(text: str, dice: random.Random) -> bytes:
    """JSON with a value, a key or a type changed; text that is none, with a value swapped."""
    try:
        content = json.loads(text)
    except ValueError:
        return _words_changed(text, dice).encode("utf-8", "surrogatepass")
    places = list(_places(content))
    holder, key = dice.choice(places[:400] if dice.random() < 0.7 else places) if places else ([content], 0)
    kind = dice.choice(["extreme"] * 4 + ["delete", "rename", "twice", "swap", "type", "wrap"])
    value = holder[key]
    twice = None
    if kind == "delete":
        del holder[key]
    elif kind == "rename" and isinstance(holder, dict):
        del holder[key]
        holder[dice.choice([f"{key}x", key[:-1], key.upper(), "", "x" * 300])] = value
    elif kind == "twice" and isinstance(holder, dict):
        twice = key
        holder["@twice"] = dice.choice(EXTREMES)
    elif kind == "swap":
        other, place = dice.choice(places)
        holder[key] = json.loads(json.dumps(other[place]))
    elif kind == "type":
        holder[key] = [value] if dice.random() < 0.5 else {"value": value} if dice.random() < 0.3 else str(value)
    elif kind == "wrap":
        content = [content] if dice.random() < 0.5 else {"content": content}
    else:
        holder[key] = dice.choice(EXTREMES)
    said = json.dumps(content, indent=None if "\n" not in text else 2)
    for mark, raw in RAW.items():
        said = said.replace(mark, raw)
    return said.replace('"@twice"', json.dumps(twice)).encode()


def _places(content: Any) -> Any:
    if isinstance(content, dict | list):
        for key in list(content) if isinstance(content, dict) else range(len(content)):
            yield content, key
            yield from _places(content[key])


def _words_changed(text: str, dice: random.Random) -> str:
    words = text.split(" ")
    place = dice.randrange(len(words))
    odd = [str(value) for value in EXTREMES]
    odd += ["[" * 500, "9" * 5_000, "&a [*a, *a]", "!!python/object:x.y {}", "<think>", "</think>", "Verdict:", "\t"]
    words[place : place + dice.randint(0, 2)] = [dice.choice(odd)]
    return " ".join(words)


def judged(target: Target, before: Any) -> str:
    """Why what is made of a damaged target is not well; "" where it is."""
    from alpaca_lora.errors import AlpacaLoraError

    try:
        after = target.use()
    except AlpacaLoraError as error:
        said = str(error)
        wrong = not said.strip() or "Traceback" in said or len(said) > 4_000
        return f"no sentence: {said[:200]!r}" if wrong else ""
    except BaseException as error:  # a library's panic, too, is none of ours
        if isinstance(error, KeyboardInterrupt):
            raise
        frame = traceback.extract_tb(error.__traceback__)[-1]
        ours = [entry for entry in traceback.extract_tb(error.__traceback__) if "alpaca_lora" in entry.filename]
        where = ours[-1] if ours else frame
        return (
            f"{type(error).__name__} in {Path(where.filename).name}:{where.lineno} ({where.name}): {str(error)[:150]}"
        )
    return "another answer" if target.strict and after != before else ""


def fuzz(
    targets: dict[str, Target],
    mutations: int,
    seed: int,
    limit_seconds: int | None = None,
    only: int | None = None,
    each: Callable[[int, str, str], None] = lambda number, name, problem: None,
) -> dict[str, list[tuple[int, str]]]:
    """Damage targets in turn.

    Args:
        targets: By name.
        mutations: How many in all.
        seed: Makes them the same ones; each has a number, by which it comes again alone.
        limit_seconds: What takes longer hangs; None sets no alarm.
        only: The one number to do.
        each: Told of every mutation.

    Returns:
        For each target the numbers and problems of mutations that did not end well.
    """

    def hangs(*_: Any) -> None:
        raise TimeoutError(f"more than {limit_seconds} s")

    if limit_seconds:
        signal.signal(signal.SIGALRM, hangs)
    names = list(targets)
    before = {name: target.use() for name, target in targets.items()}
    found: dict[str, list[tuple[int, str]]] = {name: [] for name in names}
    for number in range(mutations) if only is None else [only]:
        name = names[number % len(names)]
        target = targets[name]
        content = target.path.read_bytes()
        dice = random.Random(f"{seed}:{number}")
        damaged = mutated(target, content, dice)
        try:
            target.path.write_bytes(damaged)
            if limit_seconds:
                signal.alarm(limit_seconds)
            problem = judged(target, before[name])
        finally:
            if limit_seconds:
                signal.alarm(0)
            target.path.write_bytes(content)
        if problem:
            found[name].append((number, problem))
        each(number, name, problem)
    return found


def _model(folder: Path) -> Any:
    """A tiny random LLaMA with a byte-level tokenizer of a few hundred tokens, in two files."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=330, special_tokens=["<unk>", "<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    raw.train_from_iterator(["Below is an instruction that describes a task.", "Name three colours."], trainer)
    specials = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, **specials)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=1,
        eos_token_id=2,
    )
    LlamaForCausalLM(config).float().save_pretrained(folder, max_shard_size="30KB")
    tokenizer.save_pretrained(folder)


def _answers(folder: Path, beams: bool = False) -> Any:
    """What a folder answers with: prompt, stops, logits and greedy words."""
    import torch

    from alpaca_lora import load
    from alpaca_lora.generation.sampling import Sampling

    model = load(folder)
    words = model.generate("Name a cat.", sampling=Sampling(max_new_tokens=4, num_beams=2 if beams else 1))
    prompt = model.encoder.prompt_ids("Name a cat.", "Tom")
    with torch.no_grad():
        logits = model.model(input_ids=torch.tensor([prompt])).logits[0, -1]
    return prompt, sorted(model.stop_ids), [round(value, 4) for value in logits.tolist()], words


def world(folder: Path) -> dict[str, Target]:
    """Makes everything there is to damage, and says what is made of it."""
    from alpaca_lora import finetune, merge
    from alpaca_lora.config import FinetuneConfig
    from alpaca_lora.evaluation.leaderboard import read_leaderboard
    from alpaca_lora.evaluation.preferences import read_preferences
    from alpaca_lora.evaluation.verdict_parser import read_dressed, read_exactly
    from alpaca_lora.generation.completion import Completion
    from alpaca_lora.llm.reply import read_reply, sample_of
    from alpaca_lora.prompts import Template
    from alpaca_lora.runs.eval_records import read_eval_records
    from alpaca_lora.runs.history import read_history
    from alpaca_lora.runs.run_card import run_card, run_line
    from alpaca_lora.selfinstruct.parse import parse
    from alpaca_lora.training.checkpoint import flaw, ranks_of
    from alpaca_lora.training.output_dir import check_output_dir
    from alpaca_lora.training.run import Run

    base, adapter, merged = folder / "base", folder / "adapter", folder / "merged"
    _model(base)
    settings = {"val_set_size": 2, "batch_size": 4, "max_steps": 2, "save_steps": 1, "learning_rate": 1e-2}
    rows = [{"instruction": f"Say {word}.", "output": word} for word in "abcdefghij"]
    (folder / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    config = FinetuneConfig(
        base_model=str(base), data=str(folder / "rows.json"), output_dir=str(adapter), dtype="float32", **settings
    )
    finetune(config)
    merge(adapter, merged, certify=False)
    checkpoint = adapter / "checkpoints" / "checkpoint-2"
    run = json.loads((checkpoint / "manifest.json").read_text(encoding="utf-8"))["content"]["run"]

    def written(name: str, text: str) -> Path:
        (folder / name).write_text(text, encoding="utf-8")
        return folder / name

    def card() -> Any:
        return run_card(adapter), run_line(adapter), Run(adapter).metrics

    def resumed() -> Any:
        return check_output_dir(FinetuneConfig(**{**asdict(config), "resume": "auto"}))

    def recipe() -> Any:
        return FinetuneConfig.make(str(folder / "recipe.yaml"), output_dir="out")

    def text_of(name: str) -> str:
        return (folder / name).read_bytes().decode("utf-8", "replace")

    def reply() -> Any:
        said = read_reply(Completion(text_of("reply.txt"), "stop", 9, 9), 64)
        return said, sample_of(said.text), read_exactly(said.text), read_dressed(said.text)

    def parsed() -> Any:
        return [parse(text_of("list.txt"), mode=mode, truncated=cut) for mode in ("list", "json") for cut in (0, 1)]

    def template() -> Any:
        return Template.load(folder / "template.json").prompt("an instruction", "an input")

    votes = [{"item": str(n), "rater": "r", "model_a": "A", "model_b": "B", "preference": n % 2} for n in range(4)]
    annotations = [
        {"instruction": str(n), "generator_1": "A", "generator_2": "B", "output_1": "a", "preference": 1.0 + n % 2}
        for n in range(4)
    ]
    games = [
        {"question_id": n, "model_1": "A", "model_2": "B", "g1_winner": "tie", "g2_winner": f"model_{1 + n % 2}"}
        | {"judge": ["j", "pair-v2"], "turn": 1 + n % 2}
        for n in range(4)
    ]
    grades = [
        {"question_id": n // 2, "model": "AB"[n % 2], "judge": ["j", "single"], "score": n, "turn": 1} for n in range(6)
    ]
    board = ",win_rate,standard_error,n_total\nA,26.5,1.5,805\nB,50.0,0.0,805\n"
    shipped = Template.load("alpaca").to_dict()
    said = "<think>\nA draft.\n</think>\n\nBoth are good, the first is better.\n\n**Verdict: 1**\n"
    listed = "### Task 4\nInstruction: Add.\nInput: 2, 3\nOutput: 5\n\n### Task 5\nInstruction: Go.\nOutput: Gone.\n"
    objects = json.dumps([{"instruction": "Add.", "input": "2, 3", "output": "5"}])
    files = {
        **{f"adapter/{name}": lambda: _answers(adapter) for name in ("adapter_config.json", "alpaca_lora.json")},
        **{f"adapter/{name}": lambda: _answers(adapter) for name in ("tokenizer.json", "tokenizer_config.json")},
        **{f"base/{name}": lambda: _answers(adapter) for name in ("config.json", "model.safetensors.index.json")},
        **{f"merged/{name}": lambda: _answers(merged) for name in ("config.json", "alpaca_lora.json")},
        **{f"merged/{name}": lambda: _answers(merged) for name in ("tokenizer.json", "tokenizer_config.json")},
        **{f"merged/{name}": lambda: _answers(merged) for name in ("merge_certificate.json",)},
        **{f"merged/{name}": lambda: _answers(merged) for name in ("model.safetensors.index.json",)},
        "merged/generation_config.json": lambda: _answers(merged, beams=True),
    }
    targets = {name: Target(folder / name, use) for name, use in files.items()}
    weights = sorted(merged.glob("*.safetensors"))[0]
    return targets | {
        "adapter weights' header": Target(
            adapter / "adapter_model.safetensors", lambda: _answers(adapter), header=True
        ),
        "merged weights' header": Target(weights, lambda: _answers(merged), header=True),
        "plain base's config.json": Target(base / "config.json", lambda: _answers(base), strict=False),
        "plain base's tokenizer.json": Target(base / "tokenizer.json", lambda: _answers(base), strict=False),
        "plain base's tokenizer_config.json": Target(
            base / "tokenizer_config.json", lambda: _answers(base), strict=False
        ),
        "run card": Target(adapter / "alpaca_lora.json", card, strict=False),
        "resumed run file": Target(adapter / "alpaca_lora.json", resumed, strict=False),
        "history.jsonl": Target(adapter / "history.jsonl", lambda: (read_history(adapter), card()), False, lines=True),
        "eval_records.jsonl": Target(
            adapter / "eval_records.jsonl", lambda: read_eval_records(adapter) is None, strict=False, lines=True
        ),
        "manifest.json": Target(
            checkpoint / "manifest.json", lambda: flaw(checkpoint, run) or ranks_of(checkpoint), strict=False
        ),
        "template": Target(written("template.json", json.dumps(shipped, indent=2)), template, strict=False),
        "recipe": Target(
            written(
                "recipe.yaml", "base_model: demo\ndata: seeds\nlora_target_modules: [q_proj]\nlearning_rate: 3e-4\n"
            ),
            recipe,
            strict=False,
        ),
        "preferences": Target(
            written("votes.json", json.dumps(votes, indent=1)),
            lambda: read_preferences(folder / "votes.json"),
            strict=False,
        ),
        "annotations": Target(
            written("annotations.json", json.dumps(annotations, indent=1)),
            lambda: read_preferences(folder / "annotations.json").votes,
            strict=False,
        ),
        "judgements of pairs": Target(
            written("pair.jsonl", "\n".join(map(json.dumps, games))),
            lambda: read_preferences(folder / "pair.jsonl"),
            strict=False,
        ),
        "grades": Target(
            written("single.jsonl", "\n".join(map(json.dumps, grades))),
            lambda: read_preferences(folder / "single.jsonl"),
            strict=False,
        ),
        "leaderboard": Target(
            written("board.csv", board),
            lambda: [one.cells for one in read_leaderboard(folder / "board.csv")],
            strict=False,
        ),
        "reply": Target(written("reply.txt", said), reply, strict=False),
        "list of records": Target(written("list.txt", listed + objects), parsed, strict=False),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--mutations", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="the number of one mutation, to see it alone")
    parser.add_argument("--target", help="part of the names of the targets to damage; all if left out")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        os.environ.update(XDG_CACHE_HOME=scratch, HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (24 << 30, 24 << 30))  # what takes far too much is found, not served
        warnings.simplefilter("ignore")
        import transformers

        transformers.utils.logging.set_verbosity(50)
        transformers.utils.logging.disable_progress_bar()
        targets = world(Path(scratch) / "world")
        if asked.target:
            targets = {name: target for name, target in targets.items() if asked.target in name}
        started, done = time.monotonic(), Counter()

        def each(number: int, name: str, problem: str) -> None:
            done[name] += 1
            if problem:
                print(f"{number} {name}: {problem}", flush=True)
            if sum(done.values()) % 1_000 == 0:
                rate = sum(done.values()) / (time.monotonic() - started)
                print(f"... {sum(done.values())} mutations, {rate:.0f} a second", file=sys.stderr, flush=True)

        found = fuzz(targets, asked.mutations, asked.seed, limit_seconds=5, only=asked.only, each=each)
    print(f"{sum(done.values())} mutations, {sum(map(len, found.values()))} findings")
    for name, problems in found.items():
        print(f"{name:40} {done[name]:6} mutations {len(problems):5} findings")


if __name__ == "__main__":
    main()
