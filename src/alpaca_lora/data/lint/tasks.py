"""Faults between the texts of one record: an input missing, out of reach or said twice, or a second task inside."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..record import FIELDS, Record
from .findings import Found, excerpt

_WORD = re.compile(r"\w+")
_URL = re.compile(r"(?:https?://|www\.)\S+", re.IGNORECASE)
_ABOUT_ADDRESS = re.compile(
    r"\burls?\b(?!,? (?:explain|summari|what|describe))|\bdomain|\blinks?\b|\bhtml|\bcode\b|\bquery|protocol|button|"
    r"\bparse|regex|regular expression|\bvalid|\btags?\b|shorten|\bscript|program|\bcit(?:e|ation)|reference|"
    r"file ?name|extension|\bpath\b|rename",
    re.IGNORECASE,
)

_MEDIA_FILE = re.compile(
    r"\S+\.(?:jpe?g|png|gif|bmp|webp|svg|mp3|mp4|wav|mov|avi|pdf|docx?|xlsx?|pptx?|csv|zip)", re.IGNORECASE
)
_NAMED_MEDIA = re.compile(
    r"\W*(?:an? )?(?:attached |uploaded )?(?:image|photo|picture|video|audio|file)(?: (?:attached|file|here))?\W*",
    re.IGNORECASE,
)
_ABOUT_MEDIA = re.compile(
    r"\b(?:this|these|the (?:following|given|attached|provided|uploaded|below)|an? (?:given|attached|uploaded))"
    r"(?:\s+[\w-]+){0,4}?\s+"
    r"(?:images?|photo(?:graph)?s?|pictures?|videos?|audio(?: file| clip)?|recordings?|screenshots?|pdf|spreadsheets?|"
    r"attachments?)\b(?! (?:caption|title|description|app|album|name|editing|file format))",
    re.IGNORECASE,
)
_MAKES_MEDIA = re.compile(
    r"\b(?:draw|sketch|paint|generate|create|produce|make|take|upload|crop|colou?rize|photoshop)\s+(?:me\s+)?"
    r"(?:an?|the|some)\s+(?:[\w-]+\s+){0,2}?(?:image|picture|photo|photograph|drawing|painting|sketch|gif|animation)\b"
    r"(?! (?:caption|title|description|prompt|gallery|album|book|tag|page|class|metaphor))"
    r"(?!.*\b(?:ascii|words|text|html|css|code|python|svg|describ|story|poem|verbal|mental))",
    re.IGNORECASE,
)

# "the following sentence", "the given text": a pointer at something that must stand somewhere.
_THING = (
    r"(?:sentences?|texts?|paragraphs?|passages?|articles?|stor(?:y|ies)|poems?|lists?|words?|phrases?|numbers?|"
    r"data(?:set| set)?|tables?|questions?|statements?|quotes?|quotations?|e-?mails?|letters?|reviews?|conversations?|"
    r"dialogues?|documents?|essays?|codes?|snippets?|items?|points?|equations?|expressions?|problems?|scenarios?|"
    r"headlines?|excerpts?|facts?|information|details|instructions|ingredients|songs?|lyrics|tweets?|posts?|messages?|"
    r"websites?|graphs?|charts?|diagrams?|paintings?|recipes?|organizations?|names?|products?|animals?|terms?|topics?|"
    r"arrays?|strings?|functions?|concepts?|events?|people|options?|movies?|books?|companies|countries|cities)"
)
_POINTER = re.compile(
    rf"\b(?:the\s+)?following\s+(?:[\w'-]+\s+){{0,3}}?{_THING}\b"
    rf"|\b(?:the|this|these)\s+(?:given|provided|attached|above|below)\s+(?:[\w'-]+\s+){{0,2}}?{_THING}\b"
    rf"|\b(?:the|this|these)\s+(?:[\w'-]+\s+)?{_THING}\s+(?:(?:given |provided )?below|above)\b"
    r"|\b(?:this|these)\s+(?:sentences?|paragraphs?|passages?|articles?|texts?|lists?|quotes?|phrases?)\b",
    re.IGNORECASE,
)
# What is pointed at may stand in the instruction itself: after a colon, in quotes or brackets, on its own line.
_HOLDS_TEXT = re.compile(r"[:\n\"“”`(\[=]|\s[-–—]\s|['‘]\w.*['’](?:\W|$)")
# "Write a function that sorts the given list": given to the function, not here.
_GENERAL = re.compile(
    r"\b(?:functions?|program|algorithm|scripts?|code|class|method|query|sql|regex|regular expression|python|java|"
    r"javascript|c\+\+|html|css|api|app|application|tool|system|bot|model|formula|how (?:to|do|would|can|could)|"
    r"process|steps|procedure|design|template|write an? (?:story|poem|essay|paragraph|article|song))\b",
    re.IGNORECASE,
)
_TO_FILL = re.compile(
    r"[\[<{(]+\s*(?:(?:insert|your|add|paste|enter)\b[^\n]{0,40}"
    r"|(?:the\s+)?(?:text|article|sentence|paragraph|passage|image|input|list|data)(?:\s+here)?)\s*[\]>})]+",
    re.IGNORECASE,
)
_LACKED = (
    r"(?:text|article|sentences?|paragraphs?|passages?|list|data|information|details|context|story|poem|image|picture|document|"
    r"lyrics|code|input|words?|numbers?|link|website|content|song|review|e-?mail|question|statement)"
)
_ASKS_BACK = re.compile(
    r"\b(?:(?:please|kindly|(?:can|could|would) you(?: please)?)(?: first)?"
    r" (?:provide|share|give|specify|supply|send|paste|tell)(?: me| us)?(?: with)?"
    rf"(?: (?:the|your|an?|more|some|any|additional|further|specific))* (?:\w+ ){{0,3}}?{_LACKED}\b"
    rf"|(?:no|any) (?:\w+ )?{_LACKED} (?:was|were|is|has been|have been) (?:provided|given|attached|supplied)"
    r"|you (?:did not|didn't|didn’t|have not|haven't|haven’t)"
    r" (?:provided?|given?|included?|specif(?:y|ied)|shared?|attach(?:ed)?)\b)",
    re.IGNORECASE,
)
_ASKED_TO_ASK = re.compile(
    r"e-?mail|letter|message|dialog|conversation|chat|script|reply|respon[ds]|request|ask", re.IGNORECASE
)
_ASKS_WITHIN = 500  # characters of the output

_MARKER = re.compile(
    r"^[ \t]*(?:#{2,}\s*(?:instruction|input)\s*:|#{3,}[ \t]*\n\s*\d+\."
    r"|(?:#{2,}\s*)?(?:\d+\s*[.)]\s*)?(?:instruction|new instruction|next instruction|task)(?:\s*#?\d+)?\s*:\s*\S)",
    re.IGNORECASE | re.MULTILINE,
)
_ABOUT_TASKS = re.compile(r"instruction|\btasks?\b|to-do|prompt|steps|template", re.IGNORECASE)
_STRAY_TASK = re.compile(
    r"^[ \t]*(?P<number>[2-9]|[1-9]\d)[.)]\s+(?:Write|Describe|Explain|Create|Generate|Give|Identify|List|Name|Find|"
    r"Summarize|Classify|Compose|Rewrite|Translate|Suggest|Compare|Calculate|Design|Provide|Construct|Convert|Edit|"
    r"Determine|Categorize|Predict|Analyze|Tell|Come up)\s+\w+.*$",
    re.MULTILINE,
)


def check_tasks(record: Record) -> Iterator[Found]:
    """Faults of the prompt, and of the prompt against the output: at most three."""
    if found := _not_text(record) or _missing(record):
        yield found
    if repeats(record.instruction, record.input):
        yield Found("repeated-input", "input", excerpt(record.input))
    if found := _merged(record):
        yield found


def _not_text(record: Record) -> Found | None:
    instruction, given = record.instruction, record.input
    if _URL.fullmatch(given) and not _ABOUT_ADDRESS.search(_URL.sub("", instruction)):
        return Found("not-text", "input", excerpt(given))
    match = _ABOUT_MEDIA.search(instruction)
    if match and given and not _NAMED_MEDIA.fullmatch(given):
        files = [_URL.fullmatch(word) or _MEDIA_FILE.fullmatch(word) for word in given.split()]
        match = match if all(files) else None  # a description in words is text
    if not match and not re.search(r"```|<svg", record.output):
        match = _MAKES_MEDIA.search(instruction)
    return Found("not-text", "instruction", excerpt(instruction, *match.span())) if match else None


def _missing(record: Record) -> Found | None:
    if _TO_FILL.fullmatch(record.input):
        return Found("missing-input", "input", excerpt(record.input))
    if not record.input and (match := dangling_pointer(record.instruction)):
        return Found("missing-input", "instruction", excerpt(record.instruction, *match.span()))
    match = _ASKS_BACK.search(record.output, 0, _ASKS_WITHIN)
    if match and not _ASKED_TO_ASK.search(record.instruction):
        return Found("missing-input", "output", excerpt(record.output, *match.span()))
    return None


def dangling_pointer(instruction: str) -> re.Match[str] | None:
    """The place at which an instruction without input points at a text that it does not hold itself.

    Example:
        >>> bool(dangling_pointer("Summarize the following article."))
        True
        >>> bool(dangling_pointer("Summarize the following article: Rain fell."))
        False
    """
    if _GENERAL.search(instruction) and "following" not in instruction.lower():
        return None
    match = _POINTER.search(instruction)
    if match is None or _HOLDS_TEXT.search(instruction):
        return None
    # Another sentence, a list or a number after it may be what is pointed at.
    rest = instruction[match.end() :]
    if re.search(r"[.?!]\s+\w|,|\d", rest) or len(rest.split()) > 14:
        return None
    named = re.match(r"\s+(?:an?|the|that (?:is|are) (?:about|called))\s", rest)
    return None if named and len(rest.split()) > 6 else match


def repeats(instruction: str, given: str) -> bool:
    """Whether one of the two texts holds the other, word for word, at a length that is no accident.

    Example:
        >>> repeats("Compute the mean of 2, 5, 10", "2, 5, 10")
        True
        >>> repeats("Which is older, Python or R?", "Python")
        False
    """
    outer, inner = _WORD.findall(instruction.lower()), _WORD.findall(given.lower())
    if len(inner) > len(outer):
        outer, inner = inner, outer
    return len(inner) >= 3 and f" {' '.join(inner)} " in f" {' '.join(outer)} "


def _merged(record: Record) -> Found | None:
    about_tasks = _ABOUT_TASKS.search(record.instruction)
    for field, text in zip(FIELDS, record, strict=True):
        for match in _MARKER.finditer(text):
            heading = match.start() == 0 and field != "output"  # "Instruction: do this" is one task
            if not heading and ("###" in match[0] or not about_tasks):
                return Found("merged-tasks", field, excerpt(text, *match.span()))
        for match in _STRAY_TASK.finditer(text):
            # A list has the number before this one; a task that ran in from a list of tasks has not.
            before = rf"(?<!\d){int(match['number']) - 1}\s*[.):]"
            if match.start() and not re.search(before, text[: match.start()]):
                return Found("merged-tasks", field, excerpt(text, *match.span()))
    return None
