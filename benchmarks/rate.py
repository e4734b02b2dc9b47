"""People rate answers in real browsers, browsers and servers are killed, and what was clicked is what is stored.

    python benchmarks/rate.py A B [--items 60] [--seconds 60] [--chromium /usr/bin/chromium]

A and B are two models' answers to the same instructions, in a format that `alpaca-lora compare` reads.

1. Three raters at once, each in a Chromium of its own, rate the first items with keys and mouse. In the middle, one
   Chromium gets SIGKILL right after a key is pressed, and so, later, does the server; both start again.
2. 20 raters rate, change and take back over HTTP for some time, then the server gets SIGKILL: all that was confirmed is
   stored. They rate 5,000 items, so that nobody runs out of them.
3. The page with 1,000 items: time to the first, and from a key to the next.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import http.client
import json
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
from playwright.async_api import Error, async_playwright, expect

from alpaca_lora import load_records
from alpaca_lora.evaluation.compare_models import compare_report
from alpaca_lora.evaluation.comparison import Comparison
from alpaca_lora.evaluation.outputs import ModelOutput, write_outputs
from alpaca_lora.evaluation.pairs import Pair
from alpaca_lora.evaluation.people.people_votes import read_ratings
from alpaca_lora.evaluation.statistics.sentence import verdict
from alpaca_lora.evaluation.statistics.summary import summarize

TOKEN = "a-token-of-this-benchmark"
SERVER = f"""
import sys
from alpaca_lora.evaluation.comparison import Comparison
from alpaca_lora.evaluation.people.rating_page import serve_page
print_now = lambda url: print(url, flush=True)
serve_page(Comparison.read(sys.argv[1]), token={TOKEN!r}, port=int(sys.argv[2]), ready=print_now)
"""
PREFERENCE = {"a": 1.0, "b": 0.0, "tie": 0.5}


def start(comparison: Comparison, port: int = 0) -> tuple[subprocess.Popen, str]:
    """The server in a process of its own, and its address."""
    command = [sys.executable, "-c", SERVER, str(comparison.folder), str(port)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    return server, server.stdout.readline().strip()


def kill(process: Any) -> None:
    process.kill()
    process.wait()


def made(folder: Path, pairs: list[Pair], names: tuple[str, str]) -> Comparison:
    """A comparison of these pairs."""
    folder.mkdir()
    files = [folder / "one.json", folder / "two.json"]
    for file, name, side in zip(files, names, "ab", strict=True):
        answers = [(pair.instruction, pair.input, getattr(pair, f"output_{side}")) for pair in pairs]
        write_outputs(file, [ModelOutput(*answer, name) for answer in answers])
    return Comparison.open(folder / "compared", *files)


def many(pairs: list[Pair], count: int) -> list[Pair]:
    """As many pairs as that, from these, each asked in words of its own."""
    chosen = [pairs[number % len(pairs)] for number in range(count)]
    return [
        Pair("", f"{number}: {pair.instruction}", pair.input, pair.output_a, pair.output_b)
        for number, pair in enumerate(chosen)
    ]


async def launch(playwright: Any, chromium: str) -> tuple[Any, psutil.Process]:
    """A Chromium, and its process."""
    before = set(psutil.Process().children(recursive=True))
    browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
    new = set(psutil.Process().children(recursive=True)) - before
    return browser, min(new, key=lambda process: (len(process.parents()), process.pid))


async def opened(browser: Any, url: str, rater: str, heard: list[str]) -> Any:
    """The page, where a name has been given; `heard` gets all bodies that the network brought."""
    page = await browser.new_page()

    async def hear(response: Any) -> None:
        with suppress(Error):  # of the browser that is killed
            heard.append(str(response.headers) + (await response.text() if response.status == 200 else ""))

    page.on("response", hear)
    await page.goto(url)
    await page.fill("#name", rater)
    await page.keyboard.press("Enter")
    await page.wait_for_selector("#progress:visible")
    return page


class Rater:
    """Clicks, by a rule of its own, on a, b or a tie, and notes what it clicked on."""

    def __init__(self, name: str, comparison: Comparison) -> None:
        self.name = name
        self.pairs = {(pair.instruction, pair.input): pair for pair in comparison.pairs}
        self.clicked: dict[tuple[str, str], float] = {}

    async def click(self, page: Any, wait: bool = True) -> None:
        shown = await page.evaluate("() => ['instruction', 'input', 'left', 'right'].map(id => at(id).textContent)")
        pair = self.pairs[shown[0], "" if shown[1] == "(nothing)" else shown[1]]
        draw = hashlib.sha256(f"{self.name} {pair.id}".encode()).digest()[0]
        a_left = shown[2] == (pair.output_a or "(nothing)")
        liked = "tie" if pair.output_a == pair.output_b else ("a", "b", "a", "tie", "b")[draw % 5]
        choice = "tie" if liked == "tie" else "left" if (liked == "a") == a_left else "right"
        self.clicked[pair.id, self.name] = PREFERENCE[liked]
        progress = await page.text_content("#progress")
        if draw % 2:
            await page.click(f"[data-choice={choice}]", timeout=20_000)
        else:
            await page.keyboard.press({"left": "1", "right": "2", "tie": "0"}[choice])
        if wait:
            shown_next = page.locator("#progress").filter(has_not_text=progress).or_(page.locator("#done:visible"))
            await shown_next.first.wait_for()

    async def rate(self, page: Any, items: int) -> None:
        for _ in range(items):
            if await page.is_visible("#done"):
                return
            await self.click(page)


async def browsers(comparison: Comparison, chromium: str) -> None:
    """Part 1."""
    server, url = start(comparison)
    heard: list[str] = []
    names = ("rater-1", "rater-2", "rater-3")
    raters = [Rater(name, comparison) for name in names]
    third, items = len(comparison.pairs) // 3, len(comparison.pairs)
    begun = time.monotonic()
    async with async_playwright() as playwright:
        started = [await launch(playwright, chromium) for _ in names]
        pages = [await opened(started[n][0], url, name, heard) for n, name in enumerate(names)]
        await asyncio.gather(*(rater.rate(page, third) for rater, page in zip(raters, pages, strict=True)))

        async def killed_and_resumed() -> None:
            await raters[1].click(pages[1], wait=False)
            kill(started[1][1])
            browser, _ = await launch(playwright, chromium)
            pages[1] = await opened(browser, url, names[1], heard)
            print(f"1. {names[1]}: its Chromium was killed; goes on at {await pages[1].text_content('#progress')!r}")
            await raters[1].rate(pages[1], third)

        await asyncio.gather(killed_and_resumed(), *(raters[n].rate(pages[n], third // 2) for n in (0, 2)))
        going_on = [asyncio.create_task(rater.rate(page, items)) for rater, page in zip(raters, pages, strict=True)]
        await asyncio.sleep(0.3)
        kill(server)
        await expect(pages[0].locator("#message")).to_contain_text("cannot be reached", timeout=20_000)
        server, _ = start(comparison, urlsplit(url).port or 0)
        await asyncio.gather(*going_on)
        for page in pages:
            print("1.", await page.text_content("#done"))
    seconds = time.monotonic() - begun
    kill(server)
    read = read_ratings(comparison.folder)
    stored = {(vote.item, vote.rater): vote.preference for vote in read.votes}
    clicked = {key: value for rater in raters for key, value in rater.clicked.items()}
    hidden = [
        comparison.a,
        comparison.b,
        *(comparison.sources[side]["sha256"] for side in "ab"),
        str(comparison.folder),
    ]
    told = {word: sum(word in text for text in heard) for word in hidden}
    first = Counter(vote.shown_first for vote in read.votes)
    print(
        f"1. {len(comparison.pairs)} items, 3 raters, {seconds:.0f} s: {len(clicked)} clicked, {len(stored)} stored, "
        f"equal: {stored == clicked}; clicks {dict(Counter(clicked.values()))}; shown first {dict(first)}; "
        f"{len(heard)} responses hold {sum(told.values())} times a name, hash or path"
    )
    compare_report(comparison.folder)
    found = load_records({"path": comparison.folder, "votes": "every"}, objective="dpo")
    won = sum(value != 0.5 for value in clicked.values())
    left_out = {reason: len(numbers) for reason, numbers in found.dropped.items()}
    print(f"1. As preferences, every vote: {len(found)} records of {won} clicks for an answer; left out {left_out}")
    print("1. The report's sentence on these clicks, which are random:", verdict(summarize(read.votes)))


def crowd(comparison: Comparison, seconds: float) -> None:
    """Part 2."""
    server, url = start(comparison)
    confirmed: list[dict[int, str]] = [{} for _ in range(20)]
    unsure: list[set[int]] = [set() for _ in confirmed]
    took: list[float] = []
    done: Counter[str] = Counter()

    def work(rater: int) -> None:
        draw, mine = random.Random(rater), confirmed[rater]
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"}

        def post(path: str, **content: Any) -> Any:
            begun = time.monotonic()
            connection.request("POST", path, json.dumps({"rater": f"rater-{rater}", **content}), headers)
            response = connection.getresponse()
            reply = json.loads(response.read())
            assert response.status == 200, reply
            took.append(time.monotonic() - begun)
            return reply

        try:
            number = post("/join")["number"]
            while True:
                one = draw.choice(list(mine)) if mine and draw.random() < 0.1 else number
                unsure[rater] = {one}
                if one in mine and draw.random() < 0.5:
                    number = post("/undo", number=one)["number"]
                    del mine[one]
                    done["taken back"] += 1
                else:
                    choice = draw.choice(("left", "right", "tie", "skip"))
                    number = post("/rate", number=one, choice=choice, reason=f"{one} {choice}")["number"]
                    done["changed" if one in mine else "new"] += 1
                    mine[one] = choice
        except (OSError, http.client.HTTPException):
            connection.close()

    threads = [threading.Thread(target=work, args=(rater,)) for rater in range(20)]
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    memory = psutil.Process(server.pid).memory_info().rss / 2**20
    kill(server)
    for thread in threads:
        thread.join()
    stored = {(rater, reason) for (_, rater), reason in read_ratings(comparison.folder).reasons.items()}
    wanted = {
        (f"rater-{rater}", f"{number} {choice}")
        for rater, mine in enumerate(confirmed)
        for number, choice in mine.items()
        if number not in unsure[rater]
    }
    beyond = len(stored - wanted)  # at most one for each rater, whom the kill left without a reply
    took.sort()
    middle, late = (1000 * took[int(part * len(took))] for part in (0.5, 0.99))
    print(
        f"2. 20 raters, {seconds:.0f} s: {dict(done)}; confirmed, but not stored so after SIGKILL: "
        f"{len(wanted - stored)}; stored without a reply: {beyond}; a request took {middle:.0f} ms "
        f"(median), {late:.0f} ms (99th percentile); the server had {memory:.0f} MiB"
    )


async def quick(comparison: Comparison, chromium: str) -> None:
    """Part 3."""
    server, url = start(comparison)
    async with async_playwright() as playwright:
        browser, _ = await launch(playwright, chromium)
        begun = time.monotonic()
        page = await opened(browser, url, "rater", [])
        first = time.monotonic() - begun
        # Measured in the page, from the key to the frame that shows the next item.
        took = await page.evaluate(
            """async () => {
                const took = [];
                for (let n = 0; n < 200; n += 1) {
                    const before = at("progress").textContent, begun = performance.now();
                    document.body.dispatchEvent(new KeyboardEvent("keydown", {key: "1", bubbles: true}));
                    while (at("progress").textContent === before) await new Promise(requestAnimationFrame);
                    took.push(performance.now() - begun);
                }
                return took;
            }"""
        )
        await browser.close()
    kill(server)
    print(
        f"3. {len(comparison.pairs):,} items: {first:.2f} s from the address to the first item, name typed; "
        f"from a key to the next item {statistics.median(took):.0f} ms (median), "
        f"{sorted(took)[-2]:.0f} ms (99th percentile of 200)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("a", type=Path)
    parser.add_argument("b", type=Path)
    parser.add_argument("--items", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        whole = Comparison.open(folder / "whole", options.a, options.b)
        names = (whole.a, whole.b)
        print(f"{names[0]} and {names[1]}: {len(whole.pairs)} pairs")
        asyncio.run(browsers(made(folder / "1", whole.pairs[: options.items], names), options.chromium))
        crowd(made(folder / "2", many(whole.pairs, 5000), names), options.seconds)
        asyncio.run(quick(made(folder / "3", many(whole.pairs, 1000), names), options.chromium))


if __name__ == "__main__":
    main()
