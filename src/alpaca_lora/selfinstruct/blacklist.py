"""What a model of text cannot do: see, hear, draw, open, send, look up.

In: a record. Out: the words that ask for it, or "". The list is English, of whole words, and mostly wants a verb or a
determiner in front of a noun ("draw a cat", "this photo"), so that the plot of a novel, the title of a photo album and
code that reads a file pass. A record wrongly dropped costs one of many; one wrongly kept teaches a model to pretend.
"""

from __future__ import annotations

import re

from ..data.records import Record

_CLAUSE = r"(?:^|[.!?;:,]\s+|\b(?:and|then|please)\s+)"  # where an order starts
_MEDIUM = (
    r"(?:(?:images?|pictures?|photo(?:graph)?s?|videos?|animations?|gifs?|audio|logos?|posters?|charts?|"
    r"graphs?|diagrams?|flow\s?charts?|infographics?|(?:mind |road )?maps?|illustrations?|drawings?|paintings?|"
    r"slide\s?shows?|screenshots?|podcasts?|spreadsheets?|pdfs?|files?)\b"
    r"(?!['’]s|\s+(?:scripts?|titles?|captions?|descriptions?|ideas?|names?|prompts?|topics?|albums?|theory|functions?)\b))"
)
_GAP = r"(?:(?!(?:for|about|of|from|on|in|to|with|that|describing|without)\b)[\w'’-]+\s+){0,4}?"
_NOT_TEXT = re.compile(
    "|".join(
        [
            # Something to be seen, heard or read that is not in the record.
            r"\b(?:the|this|these|that|attached|following|given|provided|above|below)\s+(?:[\w-]+\s+){0,3}?"
            r"(?:images?|pictures?|photo(?:graph)?s?|videos?|audio|screenshots?|recordings?|clips?)\b"
            r"(?!['’]s|\s+(?:titles?|captions?|descriptions?|albums?)\b)",
            r"\b(?:this|these|attached|following|given|provided|uploaded)\s+(?:[\w-]+\s+){0,2}?"
            r"(?:files?|maps?|charts?|graphs?|diagrams?|drawings?|paintings?|websites?|web\s?pages?|links?|attachments?)\b"
            r"(?!\s+(?:theory|names?|titles?)\b)",
            rf"{_CLAUSE}(?:watch|listen\s+to)\s+(?:an?|the|this|these|some|my)\b",
            # Something to be made that is no text.
            rf"{_CLAUSE}(?:draw|paint)\s+(?:(?:me|us)\s+)?(?:an?|the|this|my|your|two|three|some)\s+"
            r"(?!(?:[\w-]+\s+)?(?:conclusions?|comparisons?|parallels?|distinctions?|line|lessons?|inferences?|analog(?:y|ies)|"
            r"contrasts?|connections?|table)\b)",
            rf"{_CLAUSE}(?:plot|graph)\s+(?:an?|the|this|these|following|[a-z]\s*(?:=|\())",
            rf"\b(?:draw|sketch|paint|create|make|design|generate|produce|build|render|plot|record|edit|construct|prepare|"
            rf"show|open|upload|download|attach|save|rename|delete|convert|colori[sz]e|photoshop|take)\s+{_GAP}{_MEDIUM}",
            rf"{_CLAUSE}(?:play|sing|hum|record)\s+(?:me\s+)?(?:an?\s+|the\s+|some\s+|this\s+)?(?:[\w'’-]+\s+){{0,2}}?"
            r"(?:songs?|music|melody|tunes?|tracks?|playlists?)\b",
            # Something on the web, or of today.
            rf"{_CLAUSE}(?:visit|open|browse|go\s+to|navigate\s+to|click(?:\s+on)?|access|search)\s+(?:[\w'’.-]+\s+){{0,4}}?"
            r"(?:website|site|web\s?page|links?|url|page|internet|web|browser|google)\b",
            r"\b(?:summari[sz]e|read|visit|open|describe|explain|review|analy[sz]e|translate|rewrite|paraphrase)\b"
            r"[^?!\n]{0,80}?(?:https?://|\bwww\.)",
            r"\bcontents?\s+of\s+(?:the|a|this)\s+(?:web\s?page|website|link|url)\b",
            r"\b(?:current|today['’]s|tonight['’]s|live)\s+(?:weather|temperature|forecast|time|date|news|headlines|"
            r"stock\s+prices?|exchange\s+rates?|scores?|traffic)\b",
            # Something to be done outside of the conversation.
            rf"{_CLAUSE}(?:send|forward|mail|e-?mail|text|call|phone|dial)\s+(?:an?|the|this|my|me|him|her|them)\b",
            rf"{_CLAUSE}(?:book|reserve|order|buy|purchase)\s+(?:(?:me|us)\s+)?(?:an?|some|two|three)\b",
            rf"{_CLAUSE}(?:set\s+an?\s+(?:[\w-]+\s+)?(?:alarm|timer|reminder)|remind\s+me|turn\s+(?:on|off)\s+the)\b",
        ]
    ),
    re.IGNORECASE,
)
# A model of text can write the code or markup that draws, reads and converts.
_CODE = re.compile(
    r"\b(?:code|(?:write|implement|define|complete|fix)\s+an?\s+(?:[\w-]+\s+)?function|script|program|algorithm|command|regex|query|python|java|javascript|typescript|matplotlib|bash|"
    r"shell|sql|html|css|svg|latex|tikz|mermaid|markdown|ascii|directed|undirected|weighted|bipartite)\b|c\+\+",
    re.IGNORECASE,
)
_ABOUT_URL = re.compile(
    r"\b(?:ur[il]s?|links?|domains?|host(?:name)?s?|path|query|protocol|parse|parameters?|encode|decode|slug)\b",
    re.IGNORECASE,
)
_URL = re.compile(r"(?:https?://|www\.)\S+", re.IGNORECASE)
_MEDIUM_INPUT = re.compile(
    r"\W*(?:(?:insert|attached?|see|uploaded?|an?|the|this|your|some)\s+)*"
    r"(?:image|picture|photo(?:graph)?|video|audio|screenshot|file|recording)(?:\s+(?:here|attached|file|of\b[^.]{0,60}))?\W*"
    r"|\S+\.(?:jpe?g|png|gif|webp|mp3|mp4|wav|mov|avi|pdf|docx?|xlsx?|pptx?|zip)",
    re.IGNORECASE,
)


def beyond_text(record: Record) -> str:
    """The words that ask for more than text, at most 80 characters of them, or "" if there are none.

    Example:
        >>> beyond_text(Record("Please draw a cat in the rain.", "", "..."))
        'draw a'
        >>> beyond_text(Record("Summarise the plot of the novel in one paragraph.", "Emma", "..."))
        ''
    """
    instruction, given = record.instruction.strip(), record.input.strip()
    found = _NOT_TEXT.search(instruction)
    if found and not _CODE.search(instruction):
        return re.sub(r"^(?:and|then|please)\s+", "", found[0].strip(" .!?;:,\t\n"), flags=re.IGNORECASE)[:80]
    only_url = _URL.fullmatch(given) and not _ABOUT_URL.search(instruction)
    return given[:80] if only_url or _MEDIUM_INPUT.fullmatch(given) else ""
