"""Chat templates of every kind in use, written for these tests, and small tokenizers that have their special tokens."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

from hypothesis import strategies as st
from tokenizers import AddedToken

from alpaca_lora.data.record import Conversation


class Chat(NamedTuple):
    """A template and what its tokenizer has.

    Attributes:
        template: Jinja.
        kind: `sentencepiece` or `bpe`.
        specials: Special tokens, beside BOS and EOS.
        bos: BOS, "" if the template writes none.
        end: What ends a turn.
        eos: EOS.
        words: Tokens that are not special, such as `<think>`.
        system: Whether it takes a system message.
        strips: Whether special tokens take the white space behind them.
    """

    template: str
    kind: str
    specials: tuple[str, ...]
    bos: str
    end: str
    eos: str
    words: tuple[str, ...] = ()
    system: bool = True
    strips: bool = False


_CHATML = """\
{%- for message in messages -%}
{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"""

_LLAMA2 = """\
{%- if messages[0].role == 'system' -%}
{%- set system = '<<SYS>>\\n' + messages[0].content + '\\n<</SYS>>\\n\\n' -%}{%- set turns = messages[1:] -%}
{%- else -%}{%- set system = '' -%}{%- set turns = messages -%}{%- endif -%}
{%- for message in turns -%}
{%- if (message.role == 'user') != (loop.index0 % 2 == 0) -%}
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
{%- endif -%}
{%- if message.role == 'user' -%}
{{ bos_token + '[INST] ' + (system if loop.first else '') + message.content.strip() + ' [/INST]' }}
{%- else -%}{{ ' ' + message.content.strip() + ' ' + eos_token }}{%- endif -%}
{%- endfor -%}"""

_LLAMA3 = """\
{%- if not date_string is defined -%}
{%- if strftime_now is defined -%}{%- set date_string = strftime_now('%d %b %Y') -%}
{%- else -%}{%- set date_string = '26 Jul 2024' -%}{%- endif -%}{%- endif -%}
{%- if messages[0].role == 'system' -%}
{%- set system = messages[0].content.strip() -%}{%- set turns = messages[1:] -%}
{%- else -%}{%- set system = '' -%}{%- set turns = messages -%}{%- endif -%}
{{ bos_token + '<|start_header_id|>system<|end_header_id|>\\n\\nToday Date: ' + date_string + '\\n\\n' }}
{%- for tool in tools or [] -%}{{ tool | tojson + '\\n\\n' }}{%- endfor -%}
{{ system + '<|eot_id|>' }}
{%- for message in turns -%}
{{ '<|start_header_id|>' + ('ipython' if message.role == 'tool' else message.role) + '<|end_header_id|>\\n\\n' }}
{%- if message.tool_calls -%}{{ message.tool_calls[0].function | tojson + '<|eot_id|>' }}
{%- else -%}{{ message.content.strip() + '<|eot_id|>' }}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif -%}"""

_ZEPHYR = """\
{%- for message in messages -%}
{{ '<|' + message.role + '|>\\n' + message.content + eos_token + '\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|assistant|>\\n' }}{%- endif -%}"""

_GEMMA = """\
{{ bos_token }}
{%- if messages[0].role == 'system' -%}{{ raise_exception('System role not supported') }}{%- endif -%}
{%- for message in messages -%}
{%- if (message.role == 'user') != (loop.index0 % 2 == 0) -%}
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
{%- endif -%}
{{ '<start_of_turn>' + ('model' if message.role == 'assistant' else message.role) + '\\n' }}
{{- message.content | trim + '<end_of_turn>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<start_of_turn>model\\n' }}{%- endif -%}"""

_MISTRAL = """\
{{ bos_token }}
{%- for message in messages -%}
{%- if (message.role == 'user') != (loop.index0 % 2 == 0) -%}
{{ raise_exception('After the optional system message, conversation roles must alternate user/assistant') }}
{%- endif -%}
{%- if message.role == 'user' -%}{{ '[INST] ' + message.content + '[/INST]' }}
{%- elif message.role == 'assistant' -%}{{ ' ' + message.content + eos_token }}
{%- else -%}{{ raise_exception('Only user and assistant roles are supported!') }}{%- endif -%}
{%- endfor -%}"""

# History loses its thoughts; the last answer keeps them, or gets an empty block.
_QWEN3 = """\
{%- if tools -%}
{{ '<|im_start|>system\\n' }}
{%- if messages[0].role == 'system' -%}{{ messages[0].content + '\\n\\n' }}{%- endif -%}
{{ '<tools>' }}{%- for tool in tools -%}{{ '\\n' + tool | tojson }}{%- endfor -%}{{ '\\n</tools><|im_end|>\\n' }}
{%- elif messages[0].role == 'system' -%}
{{ '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif -%}
{%- set ns = namespace(last=0) -%}
{%- for message in messages -%}
{%- if message.role == 'user' -%}{%- set ns.last = loop.index0 -%}{%- endif -%}
{%- endfor -%}
{%- for message in messages -%}
{%- if message.role == 'user' -%}{{ '<|im_start|>user\\n' + message.content + '<|im_end|>\\n' }}
{%- elif message.role == 'tool' -%}
{{ '<|im_start|>user\\n<tool_response>\\n' + message.content + '\\n</tool_response><|im_end|>\\n' }}
{%- elif message.role == 'assistant' -%}
{%- set content = message.content -%}{%- set thought = message.reasoning_content or '' -%}
{%- if not thought and '</think>' in content -%}
{%- set thought = content.split('</think>')[0].split('<think>')[-1].strip('\\n') -%}
{%- set content = content.split('</think>')[-1].lstrip('\\n') -%}
{%- endif -%}
{{ '<|im_start|>assistant\\n' }}
{%- if loop.index0 > ns.last and (loop.last or thought) -%}
{{ '<think>\\n' + thought + '\\n</think>\\n\\n' }}
{%- endif -%}
{{ content }}
{%- for call in message.tool_calls or [] -%}
{{ '\\n<tool_call>\\n' + call.function | tojson + '\\n</tool_call>' }}
{%- endfor -%}
{{ '<|im_end|>\\n' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"""

_R1 = """\
{{ bos_token }}
{%- if messages[0].role == 'system' -%}{{ messages[0].content }}{%- endif -%}
{%- for message in messages -%}
{%- if message.role == 'user' -%}{{ '<｜User｜>' + message.content }}
{%- elif message.role == 'assistant' -%}
{{ '<｜Assistant｜>' + message.content.split('</think>')[-1] + '<｜end▁of▁sentence｜>' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<｜Assistant｜>' }}{%- endif -%}"""

# What ends a turn is not what ends the text.
_PHI = """\
{%- for message in messages -%}
{{ '<|' + message.role + '|>\\n' + message.content + '<|end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|assistant|>\\n' }}{%- else -%}{{ eos_token }}{%- endif -%}"""

_IM = ("<|im_start|>", "<|im_end|>")
CHATS = {
    "llama2": Chat(_LLAMA2, "sentencepiece", (), "<s>", "</s>", "</s>"),
    "llama3": Chat(_LLAMA3, "bpe", ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
                   "<|begin_of_text|>", "<|eot_id|>", "<|end_of_text|>"),
    "chatml": Chat(_CHATML, "bpe", _IM, "", "<|im_end|>", "<|im_end|>"),
    "chatml-sentencepiece": Chat(_CHATML, "sentencepiece", _IM, "", "<|im_end|>", "</s>"),
    "zephyr": Chat(_ZEPHYR, "sentencepiece", (), "", "</s>", "</s>"),
    "gemma": Chat(_GEMMA, "sentencepiece", ("<start_of_turn>", "<end_of_turn>"), "<s>", "<end_of_turn>", "</s>",
                  system=False),
    "mistral": Chat(_MISTRAL, "sentencepiece", ("[INST]", "[/INST]"), "<s>", "</s>", "</s>", system=False),
    "qwen3": Chat(_QWEN3, "bpe", _IM, "", "<|im_end|>", "<|im_end|>", words=("<think>", "</think>")),
    "deepseek-r1": Chat(_R1, "bpe", ("<｜User｜>", "<｜Assistant｜>"), "<｜begin▁of▁sentence｜>",
                        "<｜end▁of▁sentence｜>", "<｜end▁of▁sentence｜>", words=("<think>", "</think>")),
    "phi": Chat(_PHI, "sentencepiece", ("<|user|>", "<|assistant|>", "<|system|>", "<|end|>", "<|endoftext|>"), "",
                "<|end|>", "<|endoftext|>", strips=True),
}  # fmt: skip

# Templates that nothing can be trained with.
UNUSABLE = {
    "thinks before it answers": _R1.replace(
        "'<｜Assistant｜>' }}{%- endif -%}", "'<｜Assistant｜><think>\\n' }}{%- endif -%}"
    ),
    "no generation prompt": _CHATML.partition("\n{%- if add_gen")[0],
    "raises": "{{ raise_exception('This model is for code completion.') }}",
    "Python": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "no Jinja": "{% for message in messages %}",
    "says nothing": "Hello",
}


def chat_tokenizer(name: str, tokenizers: dict[str, Any]) -> Any:
    """A copy of a tokenizer, by its kind, with a chat's tokens and template."""
    chat = CHATS[name]
    tokenizer = copy.deepcopy(tokenizers[chat.kind])
    tokens = [AddedToken(text, special=True, normalized=False, rstrip=chat.strips) for text in chat.specials]
    tokenizer.add_special_tokens({"extra_special_tokens": tokens})
    if chat.words:
        tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in chat.words])
    ends = {"eos_token": chat.eos, **({"bos_token": chat.bos} if chat.bos else {})}
    tokenizer.add_special_tokens({key: value for key, value in ends.items() if getattr(tokenizer, key) != value})
    tokenizer.chat_template = chat.template
    return tokenizer


@st.composite
def random_conversations(draw: st.DrawFn, name: str, texts: st.SearchStrategy[str]) -> Conversation:
    """One to three exchanges, with a system text where the template takes one; some answers are not learned."""
    messages: list[dict[str, Any]] = []
    trained: list[int] = []
    if CHATS[name].system and draw(st.booleans()):
        messages.append({"role": "system", "content": draw(texts)})
    count = draw(st.integers(1, 3))
    for number in range(count):
        messages.append({"role": "user", "content": draw(texts)})
        if number == count - 1 or draw(st.booleans()):
            trained.append(len(messages))
        messages.append({"role": "assistant", "content": draw(texts.filter(_is_answer))})
    return Conversation(tuple(messages), tuple(trained))


def _is_answer(text: str) -> bool:
    """Whether a template that strips thinking leaves something of a text that is no white space alone."""
    return not text.strip() or bool(text.rpartition("</think>")[2].strip())


@st.composite
def random_trees(draw: st.DrawFn, texts: st.SearchStrategy[str]) -> Conversation:
    """A question, one to three answers, questions to some of them, and answers to those."""
    messages, parents, trained = [{"role": "user", "content": draw(texts)}], [-1], []
    for _ in range(draw(st.integers(1, 6))):
        parent = draw(st.integers(0, len(messages) - 1))
        role = "assistant" if messages[parent]["role"] == "user" else "user"
        trained += [len(messages)] if role == "assistant" else []
        messages.append({"role": role, "content": draw(texts)})
        parents.append(parent)
    if not trained:
        trained, parents = [len(messages)], [*parents, 0]
        messages.append({"role": "assistant", "content": draw(texts)})
    return Conversation(tuple(messages), tuple(trained), parents=tuple(parents))
