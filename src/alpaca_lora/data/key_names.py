"""Names that data sets give to their columns, and what a name says of a row.

Names are compared as `plain` writes them: without case, with one mark between words.
"""

from __future__ import annotations

import re
from functools import lru_cache


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


CALLED = {
    "instruction": _words(
        "instruction instructions prompt question query task problem user human inputs input 指令 指示 提示 问题 問題 "
        "질문 지시 anweisung frage instrucción pregunta consigne instrução pergunta istruzione domanda инструкция "
        "вопрос التعليمات निर्देश"
    ),
    "input": _words(
        "input inputs context passage document article paragraph background source_text question query user_input "
        "sentence contexts passages documents contents input_text 输入 輸入 入力 上下文 背景 文脈 입력 문맥 eingabe "
        "kontext entrada contexto entrée contexte ingresso contesto ввод контекст المدخل इनपुट"
    ),
    "output": _words(
        "output outputs response answer completion target targets reply solution output_text target_text response_text "
        "answer_text gpt bot assistant 输出 輸出 出力 回答 答案 回复 응답 출력 답변 ausgabe antwort salida respuesta "
        "sortie réponse saída resposta uscita risposta вывод ответ الناتج आउटपुट"
    ),
}
"""Field -> names that data sets give it, likeliest first."""


BETTER_WORSE = (
    *(("chosen", "rejected"), ("chosen_response", "rejected_response"), ("accepted", "rejected")),
    *(("preferred", "rejected"), ("preferred", "dispreferred"), ("pref", "unpref"), ("better", "worse")),
    *(("better_response", "worse_response"), ("good", "bad"), ("win", "lose"), ("response_j", "response_k")),
    *(("positive", "negative"), ("pos", "neg"), ("chosen_messages", "rejected_messages")),
)
"""Names of the better and the worse of two answers."""


@lru_cache(maxsize=1024)
def plain(name: str) -> str:
    """A name as names are compared: `systemPrompt`, `System Prompt` and `system-prompt` are `system_prompt`."""
    return re.sub(r"[\s.-]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.strip())).casefold()


_MEANINGS = {
    "a system text": _words(
        "system system_prompt system_message system_instruction system_text system_content sys_prompt preprompt "
        "persona developer_prompt developer_message"
    ),
    "earlier turns of a conversation": _words(
        "history chat_history conversation_history message_history dialog_history dialogue_history previous_messages "
        "previous_turns prior_messages prior_turns past_messages past_turns previous_conversation messages "
        "conversations conversation dialogue dialog turns"
    ),
    "tools or calls of them": _words("tools functions tool_calls function_call"),
    "what a text model cannot see": _words("image images video videos audio audios"),
    "one of two answers that were compared": _words("chosen rejected chosen_response rejected_response"),
    "the model that was evaluated: these are its answers to an evaluation set": _words("generator"),
}
MEANING = {name: meaning for meaning, names in _MEANINGS.items() for name in names}
"""Name -> what such a key says of a row, if it holds anything; a conversation, if it has more than the record."""
READ_AS = {
    "a system text": "Name it 'system'",
    "earlier turns of a conversation": "Write them as pairs under 'history', or all turns as 'messages'",
    "one of two answers that were compared": "Set objective=dpo or orpo to train on both answers",
    "tools or calls of them": "Name schemas of tools 'tools', and write calls as turns of 'messages'",
}
"""What such a key says -> how it would be read."""
CONVERSATIONS = _words("conversation conversations dialog dialogue messages turns")
PARTS = _words(
    "code code_snippet docs hypothesis premise retrieved retrieved_contexts retrieved_documents retrieved_passages "
    "review snippet table word"
)
"""Parts of a question that are no answer anywhere; names of a whole input are in `CALLED`."""
CHOICE = re.compile(r"(answer_)?(options|choices)|(option|choice)_?([a-h]|\d)|[a-f]|op[a-d]")
"""Names of the choices of a question."""
LEARN_IF_YES = _words(
    "accepted approved chosen correct decision feedback good include is_accepted is_approved is_chosen is_correct "
    "is_good is_preferred is_safe is_train is_training is_valid keep kto_tag label loss preferred quality "
    "review_status status thumbs train trainable usable use valid verdict"
)
"""Marks of rows to learn."""
LEARN_IF_NO = _words(
    "deleted discard exclude excluded flagged hallucinated hallucination harmful holdout ignore is_bad is_deleted "
    "is_eval is_flagged is_hallucinated is_hallucination is_harmful is_holdout is_rejected is_spam is_test is_toxic "
    "is_unsafe is_validation mask masked rejected skip spam toxic unsafe"
)
"""Marks of rows not to learn."""
WEIGHTS = _words("loss_weight sample_weight weight weights")
SPLITS = _words("data_split dataset_split fold partition set split subset")
SCORES = _words(
    "feedback helpfulness overall_rating overall_score quality quality_score rating reward reward_score score thumbs "
    "upvotes votes"
)
