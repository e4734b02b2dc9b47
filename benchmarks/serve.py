"""Many clients at once against `alpaca-lora serve`: what fails, what is refused, how memory grows.

    python benchmarks/serve.py [--model demo] [--clients 64] [--seconds 60] [--also ADAPTER ...]

Starts the server as a process of its own on a free loopback port. Each client, through the official `openai` package,
asks again and again: chats and completions, streamed and whole, sampled and greedy; every tenth leaves in the middle
of its answer. A request that is refused with 429 is counted and tried again a little later; any other error is a
failure. The server's resident memory is read once a second. At the end it gets SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter

import openai
import psutil


async def client(number: int, url: str, end: float, found: Counter[str], models: list[str]) -> None:
    """Ask until `end` (monotonic seconds)."""
    draw = random.Random(number)
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0, timeout=300) as api:
        while time.monotonic() < end:
            model, limit = draw.choice(models), draw.randrange(4, 25)
            more = {"temperature": 1.0, "seed": draw.randrange(1000)} if draw.random() < 0.5 else {}
            try:
                if draw.random() < 0.1:
                    stream = await api.completions.create(
                        model=model, prompt="Once upon a time", max_tokens=500, stream=True
                    )
                    async for _ in stream:
                        if draw.random() < 0.5:
                            break
                    await stream.close()
                    found["left"] += 1
                elif draw.random() < 0.5:
                    messages = [{"role": "user", "content": f"Name {draw.randrange(2, 9)} things that are red."}]
                    stream = await api.chat.completions.create(
                        model=model, messages=messages, max_tokens=limit, stream=True, **more
                    )
                    reasons = [part.choices[0].finish_reason async for part in stream]
                    found["whole" if reasons[-1] in ("stop", "length") else f"ended with {reasons[-1]}"] += 1
                else:
                    reply = await api.completions.create(model=model, prompt="A list:", max_tokens=limit, **more)
                    found["whole" if reply.usage and reply.usage.completion_tokens else "no usage"] += 1
            except openai.RateLimitError:
                found["refused with 429"] += 1
                await asyncio.sleep(draw.uniform(0.2, 1))
            except openai.OpenAIError as error:
                found[f"FAILED {type(error).__name__}: {error}"[:120]] += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--also", nargs="*", default=[])
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()

    command = [sys.executable, "-m", "alpaca_lora", "serve", options.model, "--port", "0"]
    if options.also:
        command += ["--also", str(options.also)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    url = next(match[1] for line in server.stdout if (match := re.search(r"(http://\S+/v1)", line)))
    memory: list[float] = []

    def watch() -> None:
        process = psutil.Process(server.pid)
        while server.poll() is None:
            memory.append(process.memory_info().rss / 2**20)
            time.sleep(1)

    threading.Thread(target=watch, daemon=True).start()
    with openai.OpenAI(base_url=url, api_key="none") as api:
        models = [entry.id for entry in api.models.list()]
    found: Counter[str] = Counter()

    async def all_clients() -> None:
        end = time.monotonic() + options.seconds
        await asyncio.gather(*(client(number, url, end, found, models) for number in range(options.clients)))

    start = time.monotonic()
    asyncio.run(all_clients())
    seconds = time.monotonic() - start
    third = len(memory) // 3
    server.send_signal(signal.SIGTERM)
    code = server.wait(60)
    print(f"{options.clients} clients, {seconds:.0f} s: " + ", ".join(f"{n} {what}" for what, n in found.most_common()))
    print(
        f"memory: {max(memory[:third]):.0f} MiB at most in the first third, {max(memory[-third:]):.0f} MiB in the "
        f"last; SIGTERM: exit code {code}"
    )


if __name__ == "__main__":
    main()
