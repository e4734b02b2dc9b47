"""Commands that are ended at random moments by kills.py, and what holds after each end."""

from __future__ import annotations

import hashlib
import http.client
import importlib.util
import json
import random
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from harness import Ended, Zygote, arguments

from alpaca_lora.evaluation.outputs import ModelOutput, write_outputs
from alpaca_lora.evaluation.people.people_votes import read_ratings
from alpaca_lora.llm.journal import read_journal

_PATH = Path(__file__).parents[1] / "selfinstruct" / "scripted_server.py"
_SPEC = importlib.util.spec_from_file_location("scripted_server", _PATH)
assert _SPEC and _SPEC.loader
_scripted = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_scripted)

ITEMS = 40  # to answer, and to rate


class SteadyServer(_scripted.ScriptedServer):
    """Answers the same to the same prompt, whoever asked what before."""

    def __init__(self) -> None:
        super().__init__(["good"] * 100_000, seconds=0.02)

    @property
    def tokens(self) -> int:
        """Of all that it answered, whether or not the client was still there."""
        return int(self.prompt_tokens + self.completion_tokens)

    def _text(self, kind: Any, prompt: str, chat: bool) -> tuple[str, str]:
        self.generator = random.Random(hashlib.sha256(prompt.encode()).hexdigest())
        text: tuple[str, str] = super()._text(kind, prompt, chat)
        return text


@dataclass
class Job:
    """A command and what holds after each of its ends.

    Attributes:
        argv: The command, writing into a folder.
        out: What it makes there.
        at_once: Nothing of it is there until all of it is.
        server: Who is paid.
    """

    argv: Callable[[Path], list[str]]
    out: str
    at_once: bool = True
    server: SteadyServer | None = None
    paid: dict[Path, int] = field(default_factory=dict)
    """By folder, what the server had counted before the first start there."""

    def begin(self, place: Path) -> None:
        """Before the first start in a new folder."""
        place.mkdir()
        self.paid[place] = self.server.tokens if self.server else 0

    def paid_since(self, place: Path) -> int:
        """Tokens the server counted since the first start in a folder."""
        return self.server.tokens - self.paid[place] if self.server else 0

    def run(self, run: Zygote, place: Path, after: float | Callable[[], bool] | None, number: int) -> Ended:
        """Start it, and send it a signal at that moment; see `Zygote.run`."""
        return run.run(self.argv(place), after, number)

    def check(self, place: Path, left: bool) -> None:
        """After an end; `left` tells whether something half made may be there."""
        names = {path.name for path in place.iterdir()}
        if self.at_once:
            assert names <= {self.out, *([f".{self.out}.unfinished"] if left else [])}, names
        for path in place.rglob("*.part"):
            assert left, path
        if self.server and (journals := list(place.rglob("journal.jsonl"))):
            state = read_journal(journals[0].parent)
            paid = self.paid_since(place)
            assert paid <= state.spent.tokens + state.unanswered.tokens, "paid, and not in the journal"
            assert len({answer["request"] for answer in state.answers}) == len(state.answers), "paid twice"

    def made(self, place: Path) -> dict[str, str]:
        """What is there when it is done: hashes of all files but journals, which hold the time."""
        return {
            str(path.relative_to(place)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(place.rglob("*"))
            if path.is_file() and path.name not in ("journal.jsonl", "report.json")
        }


class Rating(Job):
    """The page for raters; somebody rates as long as it is there."""

    def begin(self, place: Path) -> None:
        super().begin(place)
        self.confirmed: dict[int, str] = {}

    def run(self, run: Zygote, place: Path, after: float | Callable[[], bool] | None, number: int) -> Ended:
        over = threading.Event()
        run.log.write_text("", encoding="utf-8")  # the address in it is that of the page before
        rater = threading.Thread(target=self._rate, args=(run.log, over))
        rater.start()
        try:  # left alone, it is told to end once all is rated
            return run.run(self.argv(place), after or (lambda: not rater.is_alive()), number)
        finally:
            over.set()
            rater.join()

    def check(self, place: Path, left: bool) -> None:
        super().check(place, left)
        if (place / self.out / "comparison.json").exists():
            reasons = read_ratings(place / self.out).reasons.values()
            lost = {f"{number} {choice}" for number, choice in self.confirmed.items()} - set(reasons)
            assert not lost, f"votes that were confirmed: {lost}"

    def made(self, place: Path) -> dict[str, str]:
        """Orders are drawn from a secret: which votes there are, and which files."""
        reasons = sorted(read_ratings(place / self.out).reasons.values())
        assert (place / self.out / "report.html").exists()
        return {str(path.relative_to(place)): "" for path in sorted(place.rglob("*"))} | {"votes": ", ".join(reasons)}

    def _rate(self, log: Path, over: threading.Event) -> None:
        found = None
        while not (found := re.search(r"(http://\S+)\?token=(\S+)", log.read_text(encoding="utf-8"))):
            if over.wait(0.01):
                return
        address, token = urlsplit(found[1]).netloc, found[2]

        def post(path: str, **content: Any) -> Any:
            connection = http.client.HTTPConnection(address, timeout=300)
            headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
            connection.request("POST", path, json.dumps({"rater": "ann", **content}), headers)
            return json.loads(connection.getresponse().read())

        try:
            number = post("/join")["number"]
            while number is not None:
                choice = ("left", "right", "tie")[number % 3]
                number, rated = (
                    post("/rate", number=number, choice=choice, reason=f"{number} {choice}")["number"],
                    number,
                )
                self.confirmed[rated] = choice
        except (OSError, http.client.HTTPException, ValueError):
            pass  # it was ended


def jobs(run: Zygote, scratch: Path, base: str, server: SteadyServer) -> dict[str, Job]:
    """The commands, and what they need, made in `scratch`."""
    adapter, merged, diff, asked = (scratch / name for name in ("adapter", "merged", "diff", "asked.json"))
    made = (
        arguments(base, adapter, val_set_size=0, max_steps=2),
        ["merge", str(adapter), str(merged)],
        ["diff", "make", base, str(merged), str(diff)],
    )
    for argv in made:
        ended = run.run(argv)
        assert ended.code == 0, ended.printed
    questions = [f"Name {number} things that are {'very ' * (number % 5)}small." for number in range(1, ITEMS + 1)]
    asked.write_text(json.dumps([{"instruction": question} for question in questions]), encoding="utf-8")
    for name in ("one", "two"):
        write_outputs(scratch / f"{name}.json", [ModelOutput(each, "", f"{name}: {each}", name) for each in questions])
    api = ["--base_url", server.url]

    def folder(*words: object, out: str = "out") -> Job:
        return Job(lambda place: [*map(str, words), str(place / out)], out)

    def export(form: str) -> Job:
        return Job(lambda place: ["export", str(merged), str(place / "out"), "--format", form], "out")

    def answer(model: str, *options: str) -> Job:
        return Job(
            lambda place: ["answer", model, str(asked), str(place / "out.json"), "--max_new_tokens=6", *options],
            "out.json",
            at_once=False,
            server=server if options else None,
        )

    records = ["--model=m", "--num_records=300", "--concurrency=1", *api]
    pair = [str(scratch / "one.json"), str(scratch / "two.json")]
    return {
        "merge": folder("merge", adapter),
        "diff make": folder("diff", "make", base, merged),
        "diff apply": folder("diff", "apply", diff, base),
        "export gguf-f16": export("gguf-f16"),
        "export gguf-q8_0": export("gguf-q8_0"),
        "export chat-template": export("chat-template"),
        "self-instruct": Job(
            lambda place: ["self-instruct", "run", str(place / "out"), *records], "out", at_once=False, server=server
        ),
        "answer, a model here": answer(str(adapter)),
        "answer, a server's": answer("m", *api),
        "compare --rate": Rating(
            lambda place: ["compare", *pair, "--out", str(place / "out"), "--rate"], "out", at_once=False
        ),
    }
