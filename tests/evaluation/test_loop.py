"""examples/loop.sh as a user calls it, with a tiny model: its verdict is the one that the last votes support."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from alpaca_lora import compare
from alpaca_lora.evaluation.judge_prompt import question
from alpaca_lora.evaluation.pairs import Pair

ROOT = Path(__file__).parents[2]


def _module(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


scripted_judge = _module(ROOT / "examples" / "scripted_judge.py")
scripted_server = _module(ROOT / "tests" / "selfinstruct" / "scripted_server.py")

HELD_OUT = [f"Name {number} rivers." for number in range(12)]


class Knowing(scripted_server.ScriptedServer):
    """Prefers the shorter answer; on `HELD_OUT`, the new one (after.json) to some questions, the old one to others."""

    def __init__(self, folder: Path, prefers_new: set[int]) -> None:
        super().__init__(["judged"] * 1000)
        self.folder, self.prefers_new = folder, prefers_new

    def _text(self, kind: str, prompt: str, chat: bool) -> tuple[str, str]:
        request, first = re.search(
            r"---- request \w+\n(.*)\n---- answer 1 \w+\n(.*)\n---- answer 2 ", prompt, re.DOTALL
        ).groups()
        if request not in HELD_OUT:
            return scripted_judge.verdict(prompt), "stop"
        number = HELD_OUT.index(request)
        new = json.loads((self.folder / "after.json").read_text(encoding="utf-8"))[number]["output"].strip()
        return f"Verdict: {1 if (first == new) == (number in self.prefers_new) else 2}", "stop"


def loop(folder: Path, *options: str, **variables: str) -> str:
    """What the script prints."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", ROOT / "examples" / "loop.sh", folder, *options],
        env={**os.environ, "PATH": path, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1500,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.slow
def test_the_verdict_is_what_the_votes_say(short_base, tiny_llama, short_tokenizers, tmp_path):
    """Of a judge who likes half of the new answers better, and on the same answers of one who likes all of them."""
    held_out, questions = tmp_path / "held_out.jsonl", tmp_path / "questions.jsonl"
    held_out.write_text("".join(json.dumps({"instruction": text}) + "\n" for text in HELD_OUT), encoding="utf-8")
    birds = [json.dumps({"instruction": f"Which bird sings at {hour}?"}) + "\n" for hour in range(24)]
    questions.write_text("".join(birds), encoding="utf-8")
    folder, other = tmp_path / "loop", tmp_path / "other"
    tokenizer = short_tokenizers["sentencepiece"]
    tokenizer.save_pretrained(other)
    tiny_llama(len(tokenizer), hidden=32, seed=1).save_pretrained(other)
    given = {"BASE": short_base, "QUESTIONS": str(questions), "HELD_OUT": str(held_out), "MAX_NEW_TOKENS": "12"}
    given |= {"START_STEPS": "2", "OTHER": str(other), "JUDGE": "m"}
    options = ["--learning_rate", "0.03", "--max_steps", "4"]
    with Knowing(folder, {*range(0, 12, 2)}) as server:
        out = loop(folder, *options, JUDGE_URL=server.url, **given)
    votes = [
        json.loads(line).get("vote") for line in (folder / "verdicts" / "votes.jsonl").read_text("utf-8").splitlines()
    ]
    data = json.loads((folder / "better" / "alpaca_lora.json").read_text(encoding="utf-8"))["data"]
    assert out.count("\n== ") == 6 and data["source"] == str(folder / "verdicts")
    assert data["train_records"] + data["validation_records"] == votes.count("a") + votes.count("b") > 12
    assert "no difference detected: 6 to 6, 95% CI" in out
    with Knowing(folder, {*range(12)}) as server:
        answers = folder / "after.json", folder / "before.json"
        told = compare(*answers, tmp_path / "again", judge="m", base_url=server.url)
        assert server.kinds["judged"] == 24
    assert "better was preferred: 12 to 0, win rate 100% (95% CI 76-100%, sign test p < 0.001)" in str(told)


def test_the_scripted_judge_in_a_process_of_its_own():
    """As the script starts it, asked over HTTP; what is no comparison gets no verdict."""
    judge = subprocess.Popen(
        [sys.executable, ROOT / "examples" / "scripted_judge.py"], stdout=subprocess.PIPE, text=True
    )
    try:
        url = judge.stdout.readline().strip()
        pair = Pair("q1", "Name a heron.", "", "The grey heron, a wading bird.", "The grey heron.")
        for a_first, said in ((True, "Verdict: 2"), (False, "Verdict: 1")):
            assert asked(url, question(pair, a_first=a_first)).endswith(said)
        same = replace(pair, output_b="The great white heron of marshes.")
        assert asked(url, question(same, a_first=True)) == "6 words and 6 words.\nVerdict: tie"
        assert "Verdict" not in asked(url, "Hello?")
    finally:
        judge.kill()
        judge.communicate()


def asked(url: str, text: str) -> str:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": text}]}).encode()
    headers = {"Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(f"{url}/chat/completions", body, headers)) as reply:
        return json.load(reply)["choices"][0]["message"]["content"]
