"""An OpenAI-compatible server that writes as real ones do: good lists, refusals, silence, cut connections, nonsense.

In a thread of a test (`with ScriptedServer(["429", "good"]) as server`), or as a process: `scripted_server.py SEED KEY
SECONDS`, which prints its address. It counts for itself: requests at once, requests of each kind, and the tokens of
every answer it made, whether or not the client stayed to receive it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import sys
import threading
from collections import Counter

WORDS = (
    "amber bridge candle dolphin engine falcon garden harbor island jacket kettle lantern marble needle orchard pepper "
    "quartz ribbon saddle temple umbrella violin walnut yogurt zipper anchor basket copper dragon ember forest glacier "
    "hammer ivory jungle kitten ladder meadow nickel ocean pencil quiver rocket spider tunnel urchin velvet window "
    "yellow zebra acorn beacon cactus desert eagle feather guitar helmet insect jigsaw koala lemon mirror noodle olive "
    "parrot quilt river sailor tomato unicorn valley whistle yarn zone arrow blanket castle dinner elbow flower goblet "
    "hunter icicle jewel kernel lizard magnet napkin oyster planet quarry rabbit shadow turtle uncle vessel wagon yacht"
)
VERBS = "Describe Explain Compare Rewrite Summarize Classify Translate Suggest List Plan Compose Correct"

# What comes back, and how often where no script says it.
KINDS = {
    "good": 66,
    "truncated": 8,
    "garbage": 4,
    "duplicates": 6,
    "429": 5,
    "500": 5,
    "cut": 3,
    "hang": 3,
}


def task(generator: random.Random) -> tuple[str, str, str]:
    """A task that resembles no other."""
    words = generator.choices(WORDS.split(), k=generator.randint(7, 12))
    instruction = f"{generator.choice(VERBS.split())} {' '.join(words)}."
    given = "<noinput>" if generator.random() < 0.6 else f"The {' '.join(generator.choices(WORDS.split(), k=6))}."
    answer = f"It is {' '.join(generator.choices(WORDS.split(), k=generator.randint(5, 40)))}."
    return instruction, given, answer


def numbered(tasks: list[tuple[str, str, str]], first: int) -> str:
    """Tasks as the prompt asks for them."""
    return "\n\n".join(
        f"### Task {number}\nInstruction: {instruction}\nInput: {given}\nOutput: {answer}"
        for number, (instruction, given, answer) in enumerate(tasks, first)
    )


class ScriptedServer:
    """A server on loopback.

    Args:
        script: What to do with the first requests, in order; later ones draw from KINDS. An entry is a name in KINDS,
            "307", an HTTP status with an error object, or a dict: the text of a good answer and other
            fields, or `raw` bytes instead.
        seed: Of the draws.
        key: The one key taken; None takes all.
        seconds: About how long an answer takes.
    """

    def __init__(self, script=(), *, seed: int = 0, key: str | None = None, seconds: float = 0.02) -> None:
        self.script, self.generator, self.key, self.seconds = list(script), random.Random(seed), key, seconds
        self.kinds: Counter[str] = Counter()
        self.bodies: list[dict] = []
        self.keys: set[str] = set()
        self.at_once = self.most_at_once = self.prompt_tokens = self.completion_tokens = 0
        self.old: list[list[tuple[str, str, str]]] = []

    @property
    def stats(self) -> dict:
        """What the server counted."""
        return {
            "kinds": self.kinds,
            "most_at_once": self.most_at_once,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
        }

    async def start(self) -> None:
        """Listen on a free port."""
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}/v1"

    def __enter__(self) -> ScriptedServer:
        started = threading.Event()

        async def live() -> None:
            await self.start()
            self.loop, self.over = asyncio.get_running_loop(), asyncio.Event()
            started.set()
            await self.over.wait()
            self.server.close()
            for connection in asyncio.all_tasks() - {asyncio.current_task()}:
                connection.cancel()

        self.thread = threading.Thread(target=asyncio.run, args=(live(),))
        self.thread.start()
        started.wait()
        return self

    def __exit__(self, *error) -> None:
        self.loop.call_soon_threadsafe(self.over.set)
        self.thread.join()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                method, path, _ = head.split(" ", 2)
                headers = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
                raw = await reader.readexactly(int(headers.get("content-length", 0)))
                if method == "GET":
                    self._respond(writer, 200, self.stats)
                    continue
                given = head.partition("uthorization: ")[2].partition("\r\n")[0]
                self.keys.add(given)
                self.at_once += 1
                self.most_at_once = max(self.most_at_once, self.at_once)
                try:
                    await self._answer(json.loads(raw), path, given, reader, writer)
                finally:
                    self.at_once -= 1
                await writer.drain()
        writer.close()

    async def _answer(self, body: dict, path: str, given: str, reader, writer) -> None:
        self.bodies.append(body)
        if self.key is not None and given != f"Bearer {self.key}":
            self.kinds["401"] += 1
            return self._refuse(writer, 401, f"Incorrect API key provided: {given}")
        if self.script:
            kind = self.script.pop(0)
        else:
            kind = self.generator.choices(list(KINDS), weights=list(KINDS.values()))[0]
        name = "good" if isinstance(kind, dict) else kind
        self.kinds[name] += 1
        if name == "307":
            return self._respond(writer, 307, {}, {"Location": "http://127.0.0.1:9/v1/elsewhere"})
        if name.isdigit():
            wait = {"Retry-After": "0.3"} if name == "429" else {}
            return self._refuse(writer, int(name), f"no {name} with {given}", wait)
        chat = path.endswith("/chat/completions")
        prompt = "\n".join(message["content"] for message in body["messages"]) if chat else body["prompt"]
        text, reason = self._text(kind, prompt, chat)
        limit = body.get("max_tokens") or body["max_completion_tokens"]
        if limit < len(text.split()):  # a word is a token here
            text, reason = re.match(rf"(?:\s*\S+){{{limit}}}", text)[0], "length"
        usage = {"prompt_tokens": len(prompt.split()), "completion_tokens": len(text.split())}
        self.prompt_tokens += usage["prompt_tokens"]
        self.completion_tokens += usage["completion_tokens"]
        gone = asyncio.ensure_future(reader.read(1))  # returns when the client hangs up
        await asyncio.wait({gone}, timeout=3600 if kind == "hang" else self.seconds * self.generator.uniform(0.5, 1.5))
        if gone.done():
            raise ConnectionResetError
        gone.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await gone
        choice = {"index": 0, "finish_reason": reason, "logprobs": None}
        choice |= {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        content = {"id": "x", "object": "x", "created": 0, "model": body["model"], "choices": [choice], "usage": usage}
        if isinstance(kind, dict):
            content |= {key: value for key, value in kind.items() if key != "text"}
        self._respond(writer, 200, content, cut=kind == "cut")
        if kind == "cut":
            await writer.drain()
            raise ConnectionResetError

    def _text(self, kind: str | dict, prompt: str, chat: bool) -> tuple[str, str]:
        if isinstance(kind, dict):
            return kind["text"], "stop"
        if kind == "garbage":
            text = " ".join(self.generator.choices([*WORDS.split(), "###", "Task", "\n", "{", "Input:", "7."], k=120))
            return text, "stop"
        tasks = [task(self.generator) for _ in range(20)]
        if kind == "duplicates" and self.old:
            tasks = [*self.generator.choice(self.old)[:12], *tasks[:4], tasks[0], *tasks[4:7]]
        self.old.append(tasks)
        text = numbered(tasks, prompt.count("### Task ") + (1 if chat else 0))
        if not chat:
            text = text.partition("Instruction:")[2]  # the prompt ends in it
        if kind == "truncated":
            return text[: len(text) * self.generator.randint(40, 95) // 100], "length"
        return text, "stop"

    def _refuse(self, writer, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        self._respond(writer, status, {"error": {"message": message, "type": "x", "code": None}}, headers)

    @staticmethod
    def _respond(writer, status: int, content: dict, headers: dict[str, str] | None = None, cut: bool = False) -> None:
        payload = content.pop("raw", None) or json.dumps(content).encode()
        lines = [f"HTTP/1.1 {status} X", "Content-Type: application/json", f"Content-Length: {len(payload)}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        writer.write("\r\n".join([*lines, "", ""]).encode() + (payload[: len(payload) // 2] if cut else payload))


async def _main(seed: int, key: str, seconds: float) -> None:
    server = ScriptedServer(seed=seed, key=key, seconds=seconds)
    await server.start()
    print(server.url, flush=True)
    await server.server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]), sys.argv[2], float(sys.argv[3])))
