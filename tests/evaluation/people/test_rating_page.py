"""The page for people: real browsers, a real server that is killed, and what is stored in the end."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import closing, contextmanager
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest

from alpaca_lora.errors import ConfigError
from alpaca_lora.evaluation.comparison import Comparison
from alpaca_lora.evaluation.outputs import ModelOutput, write_outputs
from alpaca_lora.evaluation.people.assignments import Assignments, Share
from alpaca_lora.evaluation.people.people_votes import read_ratings
from alpaca_lora.evaluation.people.rating_page import serve_page
from alpaca_lora.evaluation.people.ratings import Ratings

TOKEN = "a-token-of-enough-length"
NAMES = ("hidden-heron", "secret-osprey")
MARKUP = "<script>document.title = 'taken'</script><img src='http://127.0.0.1:9/x'> <b>no</b>"
KEYS = {"left": "1", "tie": "t", "right": "ArrowRight", "skip": "s"}
SERVER = f"""
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
from alpaca_lora.evaluation.comparison import Comparison
from alpaca_lora.evaluation.people.rating_page import serve_page
print_now = lambda url: print(url, flush=True)
serve_page(Comparison.read(sys.argv[1]), token={TOKEN!r}, port=int(sys.argv[2]), ready=print_now)
"""


def compared(folder, items=8):
    """The first name's answers begin with Once, the second's with Twice: for the test to tell; and one has markup."""
    for name, word in zip(NAMES, ("Once", "Twice"), strict=True):
        outputs = [ModelOutput(f"Question {n}?", "x" * (n % 2), f"{word} {n}", name) for n in range(1, items)]
        outputs.append(ModelOutput("Question 0?", "", f"{word} {MARKUP}", name))
        write_outputs(folder / f"{name}.json", outputs)
    return Comparison.open(folder / "compared", *(folder / f"{name}.json" for name in NAMES))


@contextmanager
def serving(comparison, port=0, most_bytes=1 << 40):
    """A server in a process of its own, killed at the end; gives its address, and the process."""
    command = [sys.executable, "-c", SERVER, str(comparison.folder), str(port), str(most_bytes)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            yield server.stdout.readline().strip(), server
        finally:
            server.kill()


def post(url, path, **content):
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=300)
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"}
    try:
        connection.request("POST", path, json.dumps(content), headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


@contextmanager
def opened(browser, url, name, seen=None, **window):
    """The page of one rater who has given a name; `seen` gets all that the network brought."""
    context = browser.new_context(**window)
    page = context.new_page()
    page.set_default_timeout(300_000)
    asked, complaints, responses = [], [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("response", lambda response: responses.append(response) if seen is not None else None)
    page.goto(url)
    page.fill("#name", name)
    page.keyboard.press("Enter")
    page.wait_for_selector("#progress:visible, #done:visible")
    yield page
    for response in responses:
        body = "" if response.status == 303 else response.text()
        seen.append((urlsplit(response.url).path, response.status, response.all_headers(), body))
    context.close()
    own = "http://" + urlsplit(url).netloc
    assert [address for address in asked if not address.startswith((own, "data:"))] == []
    assert [text for text in complaints if "ERR_CONNECTION" not in text] == []


def item(page):
    return page.inner_text("#instruction")


def press(page, key, wait=True):
    before = item(page)
    page.keyboard.press(key)
    if wait:
        turned(page, before)


def turned(page, before):
    """Wait until another item is shown, or none."""
    page.locator("#instruction").filter(has_not_text=before).or_(page.locator("#done:visible")).first.wait_for()


def judge(page, rater, clicked, wait=True):
    """Choose by a rule of the test's own, and note it: for the first model, for the second, tie, or skip."""
    asked, on_left = item(page), page.inner_text("#left").startswith("Once")
    verdict = (int(re.search(r"\d", asked)[0]) + len(rater)) % 4
    choice = ("left" if on_left else "right", "right" if on_left else "left", "tie", "skip")[verdict]
    clicked[rater, asked] = (1, 0, 0.5, None)[verdict]
    press(page, KEYS[choice], wait)


def stored(comparison):
    asked = {pair.id: pair.instruction for pair in comparison.pairs}
    return {(vote.rater, asked[vote.item]): vote.preference for vote in read_ratings(comparison.folder).votes}


def test_raters_and_server_are_killed_and_what_was_clicked_is_stored(browser, tmp_path):
    comparison, clicked = compared(tmp_path), {}
    with serving(comparison) as (url, server), opened(browser, url, "ann") as ann:
        with opened(browser, url, "bernd") as bernd:
            for _ in range(3):
                judge(ann, "ann", clicked)
                judge(bernd, "bernd", clicked)
            judge(bernd, "bernd", clicked, wait=False)
        # bernd's browser is gone in the middle of a click; ann's page sees the server die, and its successor
        with opened(browser, url, "cleo2") as cleo:
            judge(cleo, "cleo2", clicked)
            server.kill()
            server.wait()
            before = item(ann)
            judge(ann, "ann", clicked, wait=False)
            ann.locator("#message", has_text="Not stored yet: the server cannot be reached. Trying again.").wait_for()
            with serving(comparison, urlsplit(url).port):
                turned(ann, before)
                assert ann.inner_text("#message") == ""
                with opened(browser, url, "Bernd") as bernd:
                    assert bernd.inner_text("#who") == "bernd"
                    assert bernd.inner_text("#progress").startswith(("Item 4 of 8", "Item 5 of 8"))
                    for page, rater in ((bernd, "bernd"), (ann, "ann"), (cleo, "cleo2")):
                        while not page.is_visible("#done"):
                            judge(page, rater, clicked)
                        assert re.match(f"Thank you, {rater}: 6 of 8 rated, 2 skipped", page.inner_text("#done"))
    assert len(clicked) == 24
    assert stored(comparison) == {key: value for key, value in clicked.items() if value is not None}
    read = read_ratings(comparison.folder)
    assert read.skipped == 6
    with closing(sqlite3.connect(comparison.folder / "ratings.sqlite")) as file:
        assert [name for (name,) in file.execute("SELECT name FROM raters ORDER BY place")] == ["ann", "bernd", "cleo2"]
        assert all(0 < seconds < 60 for (seconds,) in file.execute("SELECT seconds FROM ratings"))
    assert {vote.shown_first for vote in read.votes} == set(NAMES)


def test_keys_buttons_reasons_and_undo(browser, tmp_path):
    comparison = compared(tmp_path)
    with serving(comparison) as (url, _), opened(browser, url, "ann") as page, opened(browser, url, "ann") as tab:
        assert page.locator(".undo").first.is_disabled()
        first = item(page)
        assert item(tab) == first
        # a reason: Enter goes into its field and out of it, keys in it are letters
        page.keyboard.press("Enter")
        page.keyboard.type("stu 012")
        page.keyboard.press("Enter")
        press(page, "1")
        second = item(page)
        assert page.inner_text("#progress") == "Item 2 of 8"
        assert page.input_value("#reason") == ""
        # the other tab does not count it twice: its word is the last
        press(tab, "0")
        assert item(tab) == second
        press(tab, "s")
        assert tab.inner_text("#progress") == "Item 3 of 8, 1 skipped"
        # taken back, twice: what was chosen last, and what was before it
        press(tab, "u")
        assert item(tab) == second
        assert tab.locator(".chosen").inner_text() == "SSkip"
        tab.click(".undo")
        turned(tab, second)
        assert item(tab) == first
        assert stored(comparison) == {}
        tab.fill("#reason", "Better so.")
        tab.click("[data-choice=right]")
        turned(tab, first)
        assert item(tab) == second
        # neither a key held down, nor the second click of a double click, nor a key with Ctrl
        tab.dispatch_event("body", "keydown", {"key": "1", "repeat": True})
        tab.dispatch_event("[data-choice=left]", "click", {"detail": 2})
        tab.dispatch_event("body", "keydown", {"key": "1", "ctrlKey": True})
        assert (tab.evaluate("() => busy"), tab.inner_text("#progress")) == (False, "Item 2 of 8")
        press(tab, "2")
        assert tab.inner_text("#progress") == "Item 3 of 8"
        tab.reload()
        assert tab.inner_text("#progress:visible") == "Item 3 of 8"
        while not tab.is_visible("#done"):
            press(tab, "0")
        tab.keyboard.press("u")
        tab.wait_for_selector("#progress:visible")
        assert tab.inner_text("#progress") == "Item 8 of 8"
        assert tab.locator(".chosen").inner_text() == "0Tie"
        reasons = read_ratings(comparison.folder).reasons
    assert list(reasons.values()) == ["Better so."]
    assert len(stored(comparison)) == 7


def test_answers_are_text_and_fit_a_phone(browser, tmp_path):
    comparison = compared(tmp_path)
    phone = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
    with serving(comparison) as (url, _), opened(browser, url, "ann", **phone) as page:
        while item(page) != "Question 0?":
            press(page, "0")
        assert {page.inner_text("#left"), page.inner_text("#right")} == {f"Once {MARKUP}", f"Twice {MARKUP}"}
        assert page.title() == "Which answer is better?"
        assert page.locator("#left *, #right *").count() == 0
        assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
        assert page.locator("[data-choice=left]").bounding_box()["height"] >= 44


def test_nothing_tells_whose_answer_it_is(browser, tmp_path):
    comparison, seen, sources = compared(tmp_path), [], []
    with serving(comparison) as (url, _):
        for name in ("ann", "bernd"):
            with opened(browser, url, name, seen) as page:
                sources.append(page.content())
                for key in ("1", "u", "s", *"01201201"):
                    if page.is_visible("#done"):
                        break
                    if key == "u":
                        page.keyboard.press(key)
                        page.locator("#progress", has_text="Item 1 of").wait_for()
                    else:
                        press(page, key)
                    sources.append(page.content())
        for path, content in (("/rate", {"rater": "ann", "number": 99}), ("/undo", {}), ("/x", {}), ("/join", [])):
            seen.append((path, 0, {}, str(post(url, path, **dict(content)))))
    text = "\n".join([*sources, *(f"{path} {headers} {body}" for path, _, headers, body in seen)]).lower()
    hashes = [source["sha256"] for source in comparison.sources.values()]
    hidden = [*NAMES, "heron", "osprey", str(tmp_path), tmp_path.name, "compared", *hashes, comparison.fingerprint]
    hidden += [*(pair.id for pair in comparison.pairs), "output_a", "output_b", "shown", "generator", "etag", "secret"]
    with Ratings(comparison) as ratings:
        hidden.append(ratings.secret.hex())
    assert [word for word in hidden if word.lower() in text] == []
    # All that comes with an item is the same whichever is on the left, but for the two texts themselves.
    items = [(headers, body) for path, _, headers, body in seen if path in ("/join", "/rate") and '"left"' in body]
    assert len(items) >= 16
    assert len({tuple(json.loads(body)) for _, body in items}) == 1
    assert len({tuple(sorted(headers.keys())) for headers, _ in items}) == 1


def test_orders_are_random_for_each_rater_and_stay(tmp_path):
    comparison = compared(tmp_path, 400)
    with Ratings(comparison) as ratings:
        desk, again = Assignments(comparison, ratings), Assignments(comparison, ratings)
        raters = [ratings.join(name) for name in ("ann", "bernd")]
        orders = [list(desk._items(rater)) for rater in raters]
        assert orders == [list(again._items(rater)) for rater in raters]
        assert sorted(orders[0]) == sorted(orders[1]) == sorted(pair.id for pair in comparison.pairs)
        assert sum(one == other for one, other in zip(*orders, strict=True)) < 20
        sides = [[desk._left(rater, pair) for pair in comparison.pairs] for rater in raters]
        assert sides == [[again._left(rater, pair) for pair in comparison.pairs] for rater in raters]
        for side in sides:
            assert 140 < side.count("a") < 260  # of 400, at six standard deviations
        assert 140 < sum(one == other for one, other in zip(*sides, strict=True)) < 260


def test_20_raters_at_once_and_a_kill_lose_nothing(tmp_path):
    comparison = compared(tmp_path, 300)
    confirmed, started, failures = {}, threading.Event(), []

    def work(rater):
        try:
            number = post(url, "/join", rater=rater)[1]["number"]
            started.wait()
            while number is not None:
                choice = ("left", "right", "tie", "skip")[(number + len(confirmed)) % 4]
                status, reply = post(url, "/rate", rater=rater, number=number, choice=choice, reason=f"{number}")
                assert status == 200, reply
                confirmed[rater, number] = choice
                number = reply["number"]
        except (OSError, http.client.HTTPException):
            pass  # the server was killed
        except Exception as error:
            failures.append(error)

    def fewest():
        votes = Counter(rater for rater, _ in list(confirmed))
        return min(votes[f"rater-{n}"] for n in range(20))

    with serving(comparison) as (url, _):
        threads = [threading.Thread(target=work, args=(f"rater-{n}",)) for n in range(20)]
        for thread in threads:
            thread.start()
        started.set()
        end = time.monotonic() + 600
        while not failures and fewest() < 5:
            assert time.monotonic() < end
            time.sleep(0.05)
    for thread in threads:
        thread.join(300)
    assert failures == []
    with Ratings(comparison) as ratings:
        desk = Assignments(comparison, ratings)
        for rater in {rater for rater, _ in confirmed}:
            own = {number: choice for (name, number), choice in confirmed.items() if name == rater}
            kept = ratings.of(rater)
            items = list(desk._items(ratings.join(rater)))
            found = {items.index(item) + 1: rating for item, rating in kept.items()}
            assert {number: found[number].choice for number in own} == own
            assert all(rating.reason == str(number) for number, rating in found.items())
            assert len(found) - len(own) <= 1  # stored, and the server killed before it could say so


def test_two_servers_may_share_one_file(tmp_path):
    comparison = compared(tmp_path, 8)
    with serving(comparison) as (one, _), serving(comparison) as (two, _):
        for rater, urls in (("ann", (one, two)), ("bob", (two, one))):
            number, given = post(one, "/join", rater=rater)[1]["number"], 0
            while number is not None:
                sent = {"rater": rater, "number": number, "choice": "tie"}
                number = post(urls[given % 2], "/rate", **sent)[1]["number"]
                given += 1
            assert given == 8
    found = read_ratings(comparison.folder)
    assert len(found.votes) == 16 and {vote.rater for vote in found.votes} == {"ann", "bob"}


@pytest.mark.parametrize(
    ("path", "content", "expected"),
    [
        ("/join", {}, "rater: give a name of 1 to 64 letters"),
        ("/join", {"rater": "two words"}, "rater: give a name"),
        ("/join", {"rater": "x" * 65}, "rater: give a name"),
        ("/rate", {"rater": "ann", "number": 0, "choice": "tie"}, "number: 0 is no item of yours; give 1 to 8."),
        ("/rate", {"rater": "ann", "number": True, "choice": "tie"}, "number: True is no item"),
        ("/rate", {"rater": "ann", "number": 1, "choice": "a"}, "choice: 'a' is none; give left, right, tie, skip."),
        ("/rate", {"rater": "ann", "number": 1, "choice": []}, "choice: [] is none"),
        ("/rate", {"rater": "ann", "number": 1, "choice": "tie", "reason": "x" * 4001}, "at most 4,000 characters"),
        ("/rate", {"rater": "ann", "number": 1, "choice": "tie", "seconds": -1}, "seconds: -1 is no time taken"),
        ("/undo", {"rater": "ann", "number": "1"}, "number: '1' is no item of yours"),
    ],
)
def test_requests_that_make_no_sense_are_refused(server, path, content, expected):
    status, reply = post(server, path, **content)
    assert status == 422
    assert expected in reply["error"]["message"]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(compared(tmp_path_factory.mktemp("refusing"))) as (url, _):
        yield url


def test_without_the_token_there_is_nothing(server):
    connection = http.client.HTTPConnection(urlsplit(server).netloc, timeout=300)
    for path in ("/", "/?token=another-token-of-length"):
        connection.request("GET", path)
        response = connection.getresponse()
        assert (response.status, b"Which answer" in response.read()) == (401, False)
    connection.close()


@pytest.mark.parametrize("gone", ["file", "log", "folder", "replaced"])
def test_a_vote_that_is_not_in_the_file_is_not_confirmed(tmp_path, gone):
    comparison = compared(tmp_path)
    file, aside = comparison.folder / "ratings.sqlite", tmp_path / "aside"
    vote = {"rater": "ann", "choice": "tie"}
    with serving(comparison) as (url, _):
        assert post(url, "/join", rater="ann")[0] == 200
        assert post(url, "/rate", **vote, number=1)[0] == 200
        if gone == "replaced":
            shutil.copy(file, tmp_path / "copy")
        taken = {"log": file.with_name("ratings.sqlite-wal"), "folder": comparison.folder}.get(gone, file)
        taken.rename(aside)
        if gone == "replaced":
            shutil.move(tmp_path / "copy", file)
        for path, content in (
            ("/rate", {**vote, "number": 2}),
            ("/undo", {"rater": "ann", "number": 1}),
            ("/join", vote),
        ):
            status, told = post(url, path, **content)
            assert (status, told["error"]["message"]) == (503, "not stored: the file of ratings cannot be written.")
        aside.rename(taken)  # put back, it is gone on with
        assert post(url, "/rate", **vote, number=3)[0] == 200
    assert ("ann", 0.5) in {(rater, vote) for (rater, _), vote in stored(comparison).items()}


def test_a_vote_for_which_there_is_no_room_is_not_confirmed(tmp_path):
    comparison, confirmed = compared(tmp_path, items=60), 0
    vote = {"rater": "ann", "choice": "tie", "reason": "x" * 4_000}
    with serving(comparison, most_bytes=150_000) as (url, server):
        assert post(url, "/join", rater="ann")[0] == 200
        while (status := post(url, "/rate", **vote, number=confirmed + 1)[0]) == 200 and confirmed < 59:
            confirmed += 1
        assert status == 503
        assert post(url, "/rate", **vote, number=confirmed + 1)[0] == 503  # and the server is still there
        server.kill()
        server.wait()
    assert 0 < confirmed < 59
    assert len(stored(comparison)) == confirmed


def test_the_page_says_that_a_vote_is_not_stored(browser, tmp_path):
    comparison, clicked = compared(tmp_path), {}
    file = comparison.folder / "ratings.sqlite"
    context = browser.new_context()
    with serving(comparison) as (url, _):
        page = context.new_page()
        page.goto(url)
        page.fill("#name", "ann")
        page.keyboard.press("Enter")
        page.wait_for_selector("#progress:visible")
        file.rename(tmp_path / "aside")
        before = item(page)
        judge(page, "ann", clicked, wait=False)
        page.locator("#message", has_text="Not stored: the server failed, and its terminal says why.").wait_for()
        assert item(page) == before
        (tmp_path / "aside").rename(file)
        turned(page, before)  # sent again
    context.close()
    assert {key: value for key, value in clicked.items() if value is not None} == stored(comparison)


def test_half_a_character_can_be_shown_and_stored(tmp_path):
    asked = SimpleNamespace(id="1", instruction="Say \ud83d", input="", output_a="a", output_b="b\udc00", category="")
    comparison = SimpleNamespace(folder=tmp_path, a="x", b="y", pairs=[asked], fingerprint="f")
    with Ratings(comparison) as ratings:
        desk = Assignments(comparison, ratings)
        assert json.loads(json.dumps(desk.join({"rater": "ann"})))["instruction"] == "Say \ud83d"
        desk.rate({"rater": "ann", "number": 1, "choice": "tie", "reason": " no \ud83d"})
        assert ratings.of("ann")["1"].reason == "no ?"


@pytest.mark.parametrize(("share", "raters", "each", "times"), [(0.5, 4, 5, {2}), (0.4, 3, 4, {1, 2}), (1, 2, 10, {2})])
def test_shares_cover_all_items_evenly(share, raters, each, times):
    pairs = [SimpleNamespace(id=str(n)) for n in range(10)]
    parts = [[pair.id for pair in Share(share, raters, seed=1).of(pairs, place)] for place in range(raters)]
    assert [len(set(part)) for part in parts] == [each] * raters
    assert set(Counter(id for part in parts for id in part).values()) == times
    assert len(set().union(*parts)) == 10
    assert Share(share, raters, seed=1).of(pairs, raters)[0].id == parts[0][0]
    assert [pair.id for pair in Share(share, raters, seed=2).of(pairs, 0)] != parts[0]


def test_a_share_stays_with_its_rater(tmp_path):
    comparison, share = compared(tmp_path), Share(0.5, 2)
    with Ratings(comparison) as ratings:
        desk = Assignments(comparison, ratings, share)
        assert [desk.join({"rater": name})["total"] for name in ("ann", "bernd")] == [4, 4]
        assert len({id for name in ("ann", "bernd") for id in desk._items(ratings.join(name))}) == 8
        before = desk.rate({"rater": "ann", "number": 1, "choice": "tie"})
        assert Assignments(comparison, ratings, share).join({"rater": "ann"}) == before


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"share": 0.5}, "share: 0.5 and raters: None belong together; give both, or neither."),
        ({"raters": 2}, "share: None and raters: 2 belong together"),
        ({"share": 0.3, "raters": 3}, "leaves some that nobody sees. Give at least 0.334, or twice that"),
        ({"share": 0, "raters": 3}, "share: 0 is not a part of the items"),
        ({"share": 1, "raters": 0}, "raters: 0 is too few"),
        ({"host": "0.0.0.0", "token": ""}, "a token is needed"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path, settings, expected):
    with pytest.raises(ConfigError, match=expected):
        serve_page(compared(tmp_path), **{"token": TOKEN, **settings})
