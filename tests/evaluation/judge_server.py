"""An OpenAI-compatible judge of known habits, on the server of tests/selfinstruct/scripted_server.py.

Answers to judge hold a quality (`quality(7)`); the better one wins, except that with probability `bias` the one shown
first does. A part of the replies cannot be read, each for a reason real models give. As a process: `judge_server.py
SEED BIAS MALFORMED SECONDS` prints its address; GET tells what it said, and to what.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import random
import re
import sys
from pathlib import Path

_PATH = Path(__file__).parents[1] / "selfinstruct" / "scripted_server.py"
_SPEC = importlib.util.spec_from_file_location("scripted_server", _PATH)
assert _SPEC and _SPEC.loader
_scripted = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_scripted)

MALFORMED = (
    "Both are fine, I would say.",
    "Verdict: 1\nThough one could see it otherwise.",
    "Verdict: 1\nOn reflection:\nVerdict: 2",
    "Verdict: 1 or 2",
    "<think>\nVerdict: 1",
    "The first is better than the second.",
    "",
)
ANSWERED, FAULTS = "judged", {"429": 3, "500": 3, "cut": 2}


class JudgeServer(_scripted.ScriptedServer):
    """A judge.

    Args:
        seed: Of all draws.
        bias: How often the answer shown first wins whatever it says.
        malformed: Part of the replies that cannot be read.
        faults: Whether some requests are refused or cut off (8 in 100).
        seconds: About how long a reply takes.
    """

    def __init__(
        self, *, seed: int = 0, bias: float = 0.0, malformed: float = 0.0, faults: bool = False, seconds: float = 0.001
    ) -> None:
        kinds = {ANSWERED: 100 - sum(FAULTS.values()), **FAULTS} if faults else {ANSWERED: 1}
        drawn = random.Random(f"{seed}/kinds").choices(list(kinds), weights=list(kinds.values()), k=20_000)
        super().__init__(drawn, seed=seed, seconds=seconds)
        self.bias, self.malformed, self.habits = bias, malformed, random.Random(f"{seed}/habits")
        self.said: list[tuple[str, str]] = []

    @property
    def stats(self) -> dict:
        """What it counted, and said: (question, reply) in order, asked again or not."""
        return {**super().stats, "said": self.said}

    def _text(self, kind: str, prompt: str, chat: bool) -> tuple[str, str]:
        first, second = map(int, re.findall(r"quality\((\d+)\)", prompt))
        if self.habits.random() < self.malformed:
            reply = self.habits.choice(MALFORMED)
        elif self.habits.random() < self.bias or first > second:
            reply = "The first.\nVerdict: 1"
        else:
            reply = "As asked.\nVerdict: 2" if second > first else "No difference.\nVerdict: tie"
        self.said.append((key_of(prompt), reply))
        return reply, "stop"


def key_of(prompt: str) -> str:
    """The same for a question and the same one asked again."""
    return hashlib.sha256(prompt.partition("\n\n(Request number")[0].encode()).hexdigest()[:12]


async def _main(seed: int, bias: float, malformed: float, seconds: float) -> None:
    server = JudgeServer(seed=seed, bias=bias, malformed=malformed, faults=True, seconds=seconds)
    await server.start()
    print(server.url, flush=True)
    await server.server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]), *map(float, sys.argv[2:])))
