"""Faults that one text shows by itself: white space, placeholders, damage, a cut-off end, a refusal."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from ..record import FIELDS, Record
from .findings import Found, excerpt

# The marker Self-Instruct's prompt asks for, as models write it: <noinput>, NoInput, "No input required."
_NO_INPUT = re.compile(
    r"[\W_]*no[\s_-]?input(?:\s+(?:is\s+)?(?:needed|required|provided|given|necessary))?[\W_]*", re.IGNORECASE
)
_NO_INPUT_MARKER = re.compile(r"<\s*no[\s_-]?input\s*>", re.IGNORECASE)
_PLACEHOLDER = re.compile(
    r"""[\W_]* (?: t\W?b\W?[ad] | to\W?do | n/a | nan | null | undefined | lorem\ ipsum\b.* | placeholder(?:\ text)?
        | (?:no|the|your|expected|sample|example)?\s*(?:output|answer|response) | same\ as\ above | coming\ soon
        | (?:to\ be|not\ yet)\ (?:added|completed|determined|done|filled\ in|written) ) [\W_]*
      | <\s*(?:no\s*)?(?:your|insert|some|the|model)?[\s_-]*(?:input|output|answer|response|completion|text|placeholder)
        (?:\s+(?:here|goes\ here))?\s*/?>
      | [\[{<(]+\s*(?:your|insert|add|enter|fill\ in|write)\b[^\n]{0,60}[\]})>]+
      | \W*(?:\.{2,}|…)\W* | _{3,}""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
_ABOUT_WORDS = re.compile(r"abbreviat|acronym|\bstands? for\b|\bmean", re.IGNORECASE)

_TAG = re.compile(
    r"(?:</?(?:br|div|span|img|ul|ol|li|h[1-6]|em|strong|font|table|tbody|thead|tr|td|th|blockquote|body|head|html|center|"
    r"script|style|iframe)|(?<![\w`])</?(?:[abipu]|pre|code|input|button))"  # Vec<i> is a type
    r"(?:\s+[\w-]+\s*=\s*[\"'][^>]*)?\s*/?>"
    r"|&(?:nbsp|amp|lt|gt|quot|apos|hellip|mdash|ndash|[lr][sd]quo|#\d{2,5}|#x[0-9a-f]{2,4});",
    re.IGNORECASE,
)
_ABOUT_MARKUP = re.compile(
    r"html|\bcss|xml|web\s?page|website|web site|\btags?\b|jsx|react|\bvue\b|angular|\bsvg|javascript|\bphp|\bjsp|"
    r"markup|markdown|django|flask|jinja|<!doctype|url[\s-]?encod|escap|entit|\bcode\b",
    re.IGNORECASE,
)
CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)

# Bytes 0x80 to 0xBF as Windows-1252 and Latin-1 show them: what follows the first byte of a character in UTF-8.
_WINDOWS = {bytes([byte]).decode("cp1252", "ignore"): byte for byte in range(0x80, 0xC0)}
_BYTES = {**{chr(byte): byte for byte in range(0x80, 0x100)}, **{char: byte for char, byte in _WINDOWS.items() if char}}
_REST = "[" + re.escape("".join(char for char, byte in _BYTES.items() if byte < 0xC0)) + "]"
_DAMAGE = re.compile(
    rf"(?P<utf8>[ÂÃ]{_REST}|[âï]{_REST}{{2}}|ð{_REST}{{3}}|(?:[ÐÑ]{_REST}){{2,}})"
    r"|(?P<cyrillic>(?:[РС][^\x00-\x7f]){3,})"  # UTF-8 read as Windows-1251
    r"|(?P<western>[\xa1-\xff]{4,})"  # another code page read as Latin-1
    r"|\N{REPLACEMENT CHARACTER}|[\x80-\x84\x86-\x9f]"
)

_ABOUT_ENCODING = re.compile(r"encod|mojibake|utf-?8|unicode", re.IGNORECASE)

_REFUSAL = re.compile(
    r"\bas an? (?:ai|artificial intelligence|(?:large )?language model|ai language model|virtual assistant|chatbot)\b"
    r"[^.\n]{0,40}?,? (?:i\b|my\b|it is (?:not|im)|it's not|there is no)"
    r"|\bi(?: am|'m|’m) (?:just |only |merely )?an? (?:ai\b|artificial intelligence|(?:large |ai )?language model)",
    re.IGNORECASE,
)
_ABOUT_AI = re.compile(
    r"\b(?:ai|a\.i\.|artificial intelligence|language model|chat ?bot|robot|gpt\S*)\b", re.IGNORECASE
)
_REFUSING_START = re.compile(
    r"\W*(?:(?:i(?: am|'m|’m) )?(?:very |really |so )?(?:sorry|afraid)|unfortunately|apologies|i apologi[sz]e)\b"
    r"[^.\n]{0,30}?\bi(?: am|'m|’m)? (?:do(?: not|n't|n’t) have (?:access|the ability|the capability)|"
    r"(?:can(?:not|'t|’t| not)|not able to|unable to|could(?: not|n't)) "
    r"(?:fulfil|comply|assist|help|provide|access|generate|create|browse|open|retrieve|view|see|summari[sz]e|display|draw)\b)"
    r"|\W*i (?:cannot|can't|can’t|am unable to|am not able to) (?:fulfil|comply|assist|help you|answer that|do that)\b",
    re.IGNORECASE,
)

# What no sentence ends with, and what few do.
_NEVER_LAST = re.compile(
    "an?|the|and|n?or|without|into|onto|among|whose|because|unless|although|their|your|our|my|every|its|if|than"
)
_LIST_LINE = re.compile(r"\s*(?:[-*•–—+>|#]|\d+[.):]|[A-Za-z][.)]\s|\(\w+\)|step\s*\d)", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!?。！？][\"'”’)\]*_]*(?=\s)")


def trimmed(text: str) -> str:
    """The text without white space at its ends; if later lines are indented too, the first keeps its indent."""
    text = re.sub(r"\A\s*\n", "", text.rstrip())
    return text if re.search(r"\n[ \t]+\S", text) else text.lstrip()


def is_no_input(text: str) -> bool:
    """Whether an input only says that there is none.

    Example:
        >>> [is_no_input(text) for text in ("<noinput>", "No input required.", "There is no input.")]
        [True, True, False]
    """
    return bool(_NO_INPUT.fullmatch(text))


def is_placeholder(record: Record) -> bool:
    """Whether the output only stands for one. What the prompt names ("write N/A if") is an answer."""
    output = record.output
    if len(output) > 200 or not (_PLACEHOLDER.fullmatch(output) or _NO_INPUT_MARKER.fullmatch(output)):
        return False
    if _ABOUT_WORDS.search(record.instruction):
        return False
    word = output.strip(" .\"'").lower()
    return not word.strip("…_") or word not in f"{record.instruction}\n{record.input}".lower()


def check_texts(record: Record) -> Iterator[Found]:
    """Faults of each text, and of the output as an answer."""
    for field, text in zip(FIELDS, record, strict=True):
        if match := _NO_INPUT_MARKER.search(text):
            yield Found("noinput", field, excerpt(text, *match.span()))
        if (match := _damage(text)) and not _ABOUT_ENCODING.search(record.instruction):
            yield Found("encoding", field, excerpt(text, *match.span()))
        if text.count("```") % 2:
            yield Found("unclosed-fence", field, excerpt(text, text.rfind("```"), text.rfind("```") + 3))
        if ("<" in text or "&" in text) and (found := _markup(text)) and not _ABOUT_MARKUP.search("\n".join(record)):
            yield Found("html", field, found)
    output = record.output
    about_ai = _ABOUT_AI.search(record.instruction)
    if match := _REFUSING_START.match(output) or (None if about_ai else _REFUSAL.search(output)):
        yield Found("refusal", "output", excerpt(output, *match.span()))
    if is_cut_off(output):
        yield Found("cut-off", "output", excerpt(output, len(output)))


def is_cut_off(output: str) -> bool:
    """Whether an output stops in mid-sentence, as far as its end says so by itself.

    It ends with an article or a conjunction, with a comma or "of" after finished sentences, or, at 150 words and more,
    in the middle of a long line that is otherwise made of sentences.

    Example:
        >>> story = "Once there was a fox who lived in the wood. " * 3
        >>> is_cut_off(story + "Every morning it went to the"), is_cut_off(story + "It went home."), is_cut_off("the")
        (True, False, False)
    """
    text = output.rstrip()
    words = text.split()
    if len(words) < 20 or text.count("```") % 2 or not (text[-1].isalpha() or text[-1] in ",(–—;"):
        return False
    last_line, last = text.rsplit("\n", 1)[-1], words[-1]
    if "```" in last_line or last.startswith(("#", "@", "http", "www.", "<", "`")):
        return False
    if _NEVER_LAST.fullmatch(last):
        return True
    finished = len(_SENTENCE_END.findall(text))
    if last == "of" or not last[-1].isalpha():
        return finished >= 2 and len(last_line.split()) >= 4
    # A list's items often have no full stop; one of several sentences has.
    in_line = len(_SENTENCE_END.findall(last_line))
    if in_line == 0 and (_LIST_LINE.match(last_line) or len(last_line.split()) < 30):
        return False
    return last.islower() and len(words) >= 150 and finished >= 5 and len(last_line.split()) >= 20


def _markup(text: str) -> str:
    """The first tag or entity outside code, with what is around it, or ""."""
    prose = CODE.sub("", text)
    tags = (tag for tag in _TAG.finditer(prose) if not _in_table(prose, tag.start()))
    return next((excerpt(prose, *tag.span()) for tag in tags), "")


def _in_table(text: str, place: int) -> bool:
    """Markdown has no other way to break a line inside a table."""
    start = text.rfind("\n", 0, place) + 1
    return "|" in text[start : text.find("\n", place) if "\n" in text[place:] else None]


def _damage(text: str) -> re.Match[str] | None:
    if text.isascii():
        return None
    for match in _DAMAGE.finditer(text):
        if match["western"]:
            if _is_western_damage(match["western"]):
                return match
            continue
        garbled = match["utf8"] or match["cyrillic"]
        if not garbled:
            return match
        try:
            (bytes(_BYTES[char] for char in garbled) if match["utf8"] else garbled.encode("cp1251")).decode("utf-8")
        except UnicodeError:
            continue
        return match
    return None


def _is_western_damage(run: str) -> bool:
    """Whether a run of Latin-1 letters and signs is text of another code page: no language puts so many together.

    Alphabets are spared: they ascend, as "àáâã" does, or pair the two cases.
    """
    codes = [ord(char) for char in run.lower() if char.isalpha()]
    return (
        len(set(codes)) >= 3
        and any(a > b for a, b in pairwise(codes))
        and (sum(char.isupper() for char in run[1:]) > 0 or len(codes) >= 5)
    )
