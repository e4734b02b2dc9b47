"""What a reply says, and whether it says anything: the one place that knows models which think aloud.

In: a completion. Out: its text without the thoughts in front of it, or the reason why it cannot be used. Thoughts are
drafts, so none of them may pass for an answer:

    <think>draft</think> answer        -> answer        also <thinking>, <reasoning>, [THINK], ◁think▷, ...
    draft</think> answer               -> answer        the opening stood in the server's prompt
    <think>draft                       -> thought_only  cut off, or the model never came to an answer
    <|channel|>analysis ... <|channel|>final<|message|>answer  -> answer
    A text about `<think>` tags.       -> as it is      only what stands in front of an answer is a thought
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..generation.completion import Completion

THOUGHT_ONLY, EMPTY_REPLY, TOO_LONG = "thought_only", "empty_reply", "too_long_reply"
FILTERED = "filtered_reply"
REMEDIES = {
    THOUGHT_ONLY: "The model thinks aloud and comes to no answer: switch thinking off where it is served (often "
    "enable_thinking or reasoning_effort), allow more new tokens, or name a model that does not think aloud.",
    EMPTY_REPLY: "Nothing comes back: see what the server logs, and try the other kind (chat, completions).",
    FILTERED: "The server's content filter kept the reply back (content_filter): see how it is set, or "
    "name another model.",
    TOO_LONG: "The server does not keep to the limit of new tokens: see how it is set up.",
}
"""Why a reply cannot be used, and what to do about it."""
FIRST_REPLIES = 10
"""Maximum number of replies paid for before the first that can be used; then something is wrong with all of them."""
THOUGHT = "<think>\n"
"""In front of thoughts that a server gives apart from the answer, if it gives no answer."""

_LONGEST = 10_000, 32  # characters of any reply, and for each new token: of text it has some four
_SHOWN = 300  # characters of a sample

_WORD = r"(?:\w+:)?(?:think(?:ing)?|thoughts?|reasoning)"
_KINDS = [
    (re.compile(opening, re.IGNORECASE), re.compile(closing, re.IGNORECASE))
    for opening, closing in (
        (rf"<{_WORD}>", rf"</{_WORD}>"),
        (r"◁think▷", r"◁/think▷"),
        (r"(?-i:\[THINK\])", r"(?-i:\[/THINK\])"),
        (
            r"<\|(?:begin_of_|start_)(?:thought|think(?:ing)?|reasoning)\|>",
            r"<\|end_(?:of_)?(?:thought|think(?:ing)?|reasoning)\|>",
        ),
    )
]
_OPENING = re.compile("|".join(f"(?:{opening.pattern})" for opening, _ in _KINDS), re.IGNORECASE)
_CLOSING = re.compile("|".join(f"(?:{closing.pattern})" for _, closing in _KINDS), re.IGNORECASE)
_FRAME = re.compile(r"<\|(?:(?:begin|end)_of_solution|(?:start|end)_response)\|>", re.IGNORECASE)
# Channels, with their special tokens or with these left out by a server's decoding.
_CHANNELS = re.compile(r"(?:<\|start\|>assistant)?<\|channel\|>|(?:analysis|commentary)(?=[A-Z])")
_FINAL = re.compile(r"(?:<\|channel\|>|(?<!\w)assistant|(?<=[.!?\w])assistant)final(?:<\|message\|>)?")
_CHANNEL_END = re.compile(r"<\|(?:end|return|call)\|>\s*\Z")
_CODE = re.compile(r"^[ \t]*(```|~~~).*?^[ \t]*\1|`[^`\n]+`", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Reply:
    """A completion as it is to be used.

    Attributes:
        text: What it says; "" if it cannot be used.
        problem: Why not, a key of REMEDIES; "" otherwise.
        thoughts: Whether thoughts stood in front of the text.
    """

    text: str
    problem: str = ""
    thoughts: bool = False


def read_reply(completion: Completion, max_new_tokens: int) -> Reply:
    """Read a completion.

    Args:
        completion: As it came.
        max_new_tokens: The limit it was asked for with; a text far beyond it is not looked into.

    Example:
        >>> read_reply(Completion("<think>Paris? Yes.</think>\\n\\nParis.", "stop", 9, 9), 64)
        Reply(text='Paris.', problem='', thoughts=True)
    """
    text = completion.text
    if len(text) > max(_LONGEST[0], _LONGEST[1] * max_new_tokens):
        return Reply("", TOO_LONG)
    if not text.strip():
        return Reply("", FILTERED if completion.finish_reason == "content_filter" else EMPTY_REPLY)
    said = _without_thoughts(text)
    if said is None or not said.strip():
        return Reply("", THOUGHT_ONLY, thoughts=True)
    return Reply(said, thoughts=said != text)


def sample_of(text: str) -> str:
    """The beginning and the end of a text, for a message; half a character is written as its number."""
    half = _SHOWN // 2
    return repr(text if len(text) <= _SHOWN else f"{text[:half]} [...] {text[-half:]}")


def whole_characters(text: str) -> str:
    """A text that every file takes: half of a surrogate pair, which JSON can write, becomes U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _without_thoughts(text: str) -> str | None:
    """The text after the thoughts at its start, unchanged without any; None if they have no end."""
    place = _skip_space(text, 0)
    if _CHANNELS.match(text, place):
        final = list(_FINAL.finditer(text, place))
        return _CHANNEL_END.sub("", text[final[-1].end() :]).strip() if final else None
    start = place
    while kind := next((kind for kind in _KINDS if kind[0].match(text, place)), None):
        end = kind[1].search(text, place)
        if end is None:
            return None
        place = _skip_space(text, end.end())
    bare = _CODE.sub(lambda code: " " * len(code[0]), text)  # what stands in code is talked about
    for end in _CLOSING.finditer(bare, place):
        if _OPENING.search(bare, place, end.start()):
            break
        if _ends_thoughts(bare, end):
            place = _skip_space(text, end.end())
    openings = [opening for opening in _OPENING.finditer(bare, place) if _stands_alone(bare, opening)]
    if openings and not _CLOSING.search(bare, openings[-1].end()):
        return None
    return text if place == start else _FRAME.sub("", text[place:]).strip()


def _ends_thoughts(text: str, end: re.Match[str]) -> bool:
    """Whether a closing without an opening ends thoughts, and is not talked about in a sentence or in quotes."""
    before, after = text[end.start() - 1 : end.start()], text[end.end() : end.end() + 1]
    if before in "\"'“‘«(" and before:
        return False
    return before in ("", "\n") or after in ("", "\n", "\r") or (not before.isspace() and not after.isspace())


def _stands_alone(text: str, mark: re.Match[str]) -> bool:
    start, end = text.rfind("\n", 0, mark.start()) + 1, text.find("\n", mark.end())
    line = text[start : end if end >= 0 else len(text)]
    return line.strip() == mark[0]


def _skip_space(text: str, place: int) -> int:
    match = re.compile(r"\s*").match(text, place)
    assert match
    return match.end()
