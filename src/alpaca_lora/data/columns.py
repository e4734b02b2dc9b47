"""Columns: which of a source's keys is which field of a record, and what others call these fields.

A mapping is `{our field: their key}`. `{their key: None}` leaves a key out on purpose, so that nothing is said of it.
"""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from ..errors import ConfigError, a, did_you_mean

FIELDS = ("instruction", "input", "output")
TURN_KEYS = ("conversations", "messages")

Columns = Mapping[str, str | None]

CALLED: dict[str, tuple[str, ...]] = {
    "instruction": (
        *(
            "instruction",
            "instructions",
            "prompt",
            "question",
            "query",
            "task",
            "problem",
            "user",
            "human",
            "inputs",
            "input",
        ),
        *(
            "指令",
            "指示",
            "提示",
            "问题",
            "問題",
            "질문",
            "지시",
            "anweisung",
            "frage",
            "instrucción",
            "pregunta",
            "consigne",
        ),
        *("instrução", "pergunta", "istruzione", "domanda", "инструкция", "вопрос", "التعليمات", "निर्देश"),
    ),
    "input": (
        *("input", "inputs", "context", "passage", "document", "article", "paragraph", "background", "source_text"),
        *("question", "query", "user_input", "sentence", "contexts", "passages", "documents", "contents"),
        *("input_text",),
        *(
            "输入",
            "輸入",
            "入力",
            "上下文",
            "背景",
            "文脈",
            "입력",
            "문맥",
            "eingabe",
            "kontext",
            "entrada",
            "contexto",
        ),
        *("entrée", "contexte", "ingresso", "contesto", "ввод", "контекст", "المدخل", "इनपुट"),
    ),
    "output": (
        *("output", "outputs", "response", "answer", "completion", "target", "targets", "reply", "solution"),
        *("output_text", "target_text", "response_text", "answer_text", "gpt", "bot"),
        *(
            "assistant",
            "输出",
            "輸出",
            "出力",
            "回答",
            "答案",
            "回复",
            "응답",
            "출력",
            "답변",
            "ausgabe",
            "antwort",
            "salida",
        ),
        *(
            "respuesta",
            "sortie",
            "réponse",
            "saída",
            "resposta",
            "uscita",
            "risposta",
            "вывод",
            "ответ",
            "الناتج",
            "आउटपुट",
        ),
    ),
}
"""Field -> names that data sets give it, likeliest first; compared without case."""


@lru_cache(maxsize=1024)
def plain(name: str) -> str:
    """A key's name as names are compared: `systemPrompt`, `System Prompt` and `system-prompt` are `system_prompt`."""
    return re.sub(r"[\s.-]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.strip())).casefold()


_SYSTEM = "a system text, and a record has no place for one"
_TURNS = "earlier turns of a conversation, and a record is one exchange"
SAID = {
    **dict.fromkeys(("system", "system_prompt", "system_message", "system_instruction", "system_text"), _SYSTEM),
    **dict.fromkeys(("system_content", "sys_prompt", "preprompt", "persona"), _SYSTEM),
    **dict.fromkeys(("developer_prompt", "developer_message"), _SYSTEM),
    **dict.fromkeys(("history", "chat_history", "conversation_history", "message_history", "dialog_history"), _TURNS),
    **dict.fromkeys(("dialogue_history", "previous_messages", "previous_turns", "prior_messages"), _TURNS),
    **dict.fromkeys(("prior_turns", "past_messages", "past_turns", "previous_conversation"), _TURNS),
    **dict.fromkeys(("messages", "conversations", "conversation", "dialogue", "dialog", "turns"), _TURNS),
    **dict.fromkeys(("tools", "functions", "tool_calls", "function_call"), "tools or calls of them, not supported"),
    **dict.fromkeys(("image", "images", "video", "videos", "audio", "audios"), "what a text model cannot see"),
    **dict.fromkeys(("chosen", "rejected"), "one of two answers that were compared"),
    **dict.fromkeys(("chosen_response", "rejected_response"), "one of two answers that were compared"),
    "generator": "the model that was evaluated: these are its answers to an evaluation set",
}
"""Plain name -> what such a key says of a row; a dialogue says so where it has more than the record."""
DIALOGUES = {"messages", "conversations", "conversation", "dialogue", "dialog", "turns"}
PARTS = {"table", "code", "code_snippet", "snippet", "review", "retrieved", "retrieved_documents", "retrieved_contexts"}
PARTS |= {"retrieved_passages", "docs", "word", "premise", "hypothesis"}
"""Plain names of parts of a question that are no answer anywhere; those of a whole input are in `CALLED`."""
CHOICE = re.compile(r"(answer_)?(options|choices)|(option|choice)_?([a-h]|\d)|[a-f]|op[a-d]")
"""Plain names of the choices of a question."""
LEARN_IF_YES = {"label", "kto_tag", "train", "trainable", "loss", "accepted", "preferred", "is_correct", "correct"}
LEARN_IF_YES |= {"is_train", "is_training", "chosen", "approved", "good", "valid", "keep", "quality", "verdict"}
LEARN_IF_YES |= {"is_accepted", "is_preferred", "is_chosen", "is_approved", "is_good", "is_valid"}
LEARN_IF_YES |= {"status", "review_status", "feedback", "thumbs", "use", "usable", "include", "decision", "is_safe"}
LEARN_IF_NO = {"skip", "exclude", "excluded", "ignore", "deleted", "mask", "masked", "rejected", "flagged", "spam"}
LEARN_IF_NO |= {"is_test", "is_eval", "is_validation", "holdout", "is_holdout", "is_rejected", "is_deleted", "is_bad"}
LEARN_IF_NO |= {"toxic", "is_toxic", "hallucinated", "hallucination", "is_hallucinated", "is_hallucination", "discard"}
LEARN_IF_NO |= {"is_flagged", "is_spam", "harmful", "is_harmful", "unsafe", "is_unsafe"}
WEIGHTS = {"weight", "loss_weight", "sample_weight", "weights"}
SPLITS = {"split", "data_split", "dataset_split", "partition", "fold", "subset", "set"}
SCORES = {"reward", "score", "rating", "quality", "votes", "upvotes", "helpfulness", "feedback", "thumbs"}
SCORES |= {"reward_score", "quality_score", "overall_score", "overall_rating"}


def suggest(keys: Iterable[object], given: Columns | None = None, slips: bool = True) -> dict[str, str | None]:
    """The `columns` that read these keys, as far as their names tell, also with `slips`; `given` stays as it is.

    Example:
        >>> suggest(["instruction", "context", "response", "category"])
        {'input': 'context', 'output': 'response'}
    """
    found = dict(given or {})
    names = {plain(str(key)): str(key) for key in keys if str(key).strip() and str(key) not in found}
    fixed = {field: found.get(field) or field for field in FIELDS if found.get(field) or field in names.values()}
    taken = {*fixed.values()}
    for field in ("output", "instruction", "input"):
        if field not in fixed and field not in found:
            likely = (field, misspelt(field, tuple(names)) if slips else field, *CALLED[field])
            others = taken - {"input"} if field == "instruction" and "input" not in found else taken
            key = next((names[name] for name in likely if name in names and names[name] not in others), None)
            if key is not None:
                found[field] = key
                taken.add(key)
    order = sorted(found, key=lambda name: FIELDS.index(name) if name in FIELDS else len(FIELDS))
    return {name: found[name] for name in order}


def check_columns(columns: Mapping[str, Any]) -> None:
    """Raise ConfigError with all that is wrong with a mapping by itself."""
    problems = []
    for field, key in columns.items():
        if key is None and field not in ("instruction", "output"):
            continue
        if field not in FIELDS:
            problems.append(
                f"columns: {field!r} is no field of a record.{did_you_mean(str(field), FIELDS)} "
                "Write columns={our field: your key}; our fields are 'instruction', 'input' and 'output'."
            )
        elif key is None:
            problems.append(f"columns: {field!r} cannot be left out; name the key that holds it.")
        elif not isinstance(key, str):
            problems.append(
                f"columns: {field!r} is mapped to {key!r}, {a(type(key).__name__)}; name a key of the data."
            )
    read = {field: columns.get(field, field) for field in FIELDS if field in columns or field != "input"}
    keys = [key for key in read.values() if key is not None]
    same = [field for field, key in read.items() if key is not None and keys.count(key) > 1]
    if same:
        problems.append(f"columns: {list_keys(same)} all read the key {read[same[0]]!r}; map each to its own.")
    problems += [
        f"columns: {key!r} is both read and left out (None); keep one." for key in keys if columns.get(key, "") is None
    ]
    if problems:
        raise ConfigError(problems)


@lru_cache(maxsize=1024)
def misspelt(field: str, names: tuple[str, ...]) -> str:
    """The name among these that is a field's but for a slip, or ""; `output_1` is no slip."""
    near = [
        name
        for name in names
        if difflib.SequenceMatcher(None, name.lower().strip(), field).ratio() >= 0.8 and not any(map(str.isdigit, name))
    ]
    return near[0] if near else ""


def list_keys(names: Iterable[object]) -> str:
    """Key names for a message, shortened: `'question', 'answer'`."""
    shown = [reprlib.repr(str(name)) for name in names]
    return ", ".join(shown[:8]) + (f" and {len(shown) - 8} more" if len(shown) > 8 else "") if shown else "none"
