"""What clients send beside what this server honours: the values that change nothing, and other names of a parameter.

Chat programs send all of their settings, most of them switched off. What is off is accepted; what would change the
answer is refused by the name that the client used.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import did_you_mean
from .values import counted, short


def _each(names: str, *off: Any) -> dict[str, tuple[Any, ...] | None]:
    return dict.fromkeys(names.split(), off or None)


OFF: dict[str, tuple[Any, ...] | None] = {
    # About accounts, caches and costs; or settings of something that is itself accepted only when off.
    **_each(
        "user store metadata service_tier safety_identifier prompt_cache_key prompt_cache_retention "
        "prompt_cache_options request_id "
        "priority session_id chat_id keep_alive cache_prompt id_slot n_keep parallel_tool_calls include_reasoning "
        "truncation_length mirostat_tau mirostat_eta dry_base dry_allowed_length dry_penalty_last_n "
        "dry_sequence_breakers xtc_threshold smoothing_curve dynatemp_exponent dynatemp_low dynatemp_high "
        "length_penalty early_stopping"
    ),
    **_each(
        "frequency_penalty presence_penalty min_p top_a top_logprobs mirostat mirostat_mode dry_multiplier n_probs "
        "xtc_probability smoothing_factor dynatemp_range epsilon_cutoff eta_cutoff no_repeat_ngram_size min_tokens "
        "min_length penalty_alpha",
        0,
    ),
    **_each(
        "typical_p typical tfs tfs_z repeat_penalty rep_pen encoder_repetition_penalty guidance_scale cfg_scale "
        "best_of num_beams",
        1,
    ),
    **_each(
        "logprobs echo ignore_eos ban_eos_token use_beam_search dynamic_temperature temperature_last think "
        "include_stop_str_in_output return_token_ids return_tokens_as_token_ids return_tokens timings_per_token "
        "continue_final_message enable_thinking prompt_logprobs",
        False,
    ),
    **_each("skip_special_tokens spaces_between_special_tokens add_generation_prompt add_special_tokens", True),
    **_each("suffix negative_prompt grammar grammar_string custom_token_bans", ""),
    **_each("tools functions bad_words stop_token_ids banned_strings banned_tokens documents", []),
    **_each("logit_bias", {}, []),
    **_each("chat_template_kwargs", {}, {"enable_thinking": False}),
    **_each("tool_choice function_call", "none", "auto"),
    **_each("response_format", {"type": "text"}),
    **_each("modalities", ["text"]),
    **_each("reasoning_effort", "none"),
    **_each("top_k", 0, -1),
    **_each("top_n_sigma truncate_prompt_tokens", 0, -1),
    **_each("seed", -1),
    **_each("stop", "", []),
    # Of the repetition penalty, which here looks at the whole text: see `WINDOWS`.
    **_each("repeat_last_n repetition_penalty_range rep_pen_range", -1),
}
"""By name, the values that change nothing; None if any value changes nothing."""

WINDOWS = {"repeat_last_n", "repetition_penalty_range", "rep_pen_range"}
"""They change nothing, either, if `repetition_penalty` is 1."""

_MAX_UNKNOWN = 8  # looking for what each may have meant takes milliseconds, in which no one is answered

ALIASES = {
    "max_tokens": ("max_tokens", "max_completion_tokens", "max_new_tokens", "n_predict", "num_predict"),
    "stop": ("stop", "stop_sequences", "stopping_strings"),
}
"""Names that clients have for the same, by the one used here; several may be sent, with one value."""

_OTHER_NAME = "{value} is not read. Send repetition_penalty, which looks at the whole text"
_IN_CHATS = "belongs to /v1/chat/completions"
_IN_COMPLETIONS = "belongs to /v1/completions"
INSTEAD_IN_CHATS = {
    "prompt": f"{_IN_COMPLETIONS}. This address, /v1/chat/completions, reads messages",
    "echo": f"{{value}} {_IN_COMPLETIONS}. Leave it out, or send false",
    "n_probs": "{value} is not read. Send logprobs: true, with top_logprobs: {count}",
    "repeat_penalty": _OTHER_NAME,
    "rep_pen": _OTHER_NAME,
}
"""What to do instead of sending a parameter to chats, with its `value`, or as a `count` of likeliest tokens."""
INSTEAD_IN_COMPLETIONS = {
    "messages": f"{_IN_CHATS}. This address, /v1/completions, reads a prompt",
    "input": f"{_IN_CHATS}. Write it into prompt",
    "top_logprobs": f"{{value}} {_IN_CHATS}. Send logprobs: {{count}}",
    "n_probs": "{value} is not read. Send logprobs: {count}",
    "repeat_penalty": _OTHER_NAME,
    "rep_pen": _OTHER_NAME,
}
"""The same for completions."""


def is_off(name: str, value: Any) -> bool:
    """Whether a parameter has a value that changes nothing.

    Example:
        >>> is_off("min_p", 0.0), is_off("min_p", 0.1), is_off("logprobs", 0), is_off("logprobs", False)
        (True, False, False, True)
    """
    if value is None:
        return True
    off = OFF.get(name, ())
    # 0 is not False here: `logprobs: 0` asks for the probability of each token.
    return off is None or any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in off)


def read_parameters(
    sent: dict[str, Any], known: Iterable[str], instead: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, str], list[str]]:
    """What of a request's body is to be read.

    Args:
        sent: The body.
        known: Names of the parameters that are honoured.
        instead: What to do instead of sending some others: `INSTEAD_IN_CHATS`.

    Returns:
        The parameters that say something, each by its name in `known`; under the same names, what the client called
        them; and what is wrong, each beginning with the client's name and a colon.
    """
    given: dict[str, Any] = {}
    called: dict[str, str] = {}
    problems: list[str] = []
    unknown: list[str] = []
    to_ours = {alias: ours for ours, names in ALIASES.items() for alias in names}
    known = {*known}
    for name, value in sent.items():
        ours = to_ours.get(name, name)
        if is_off(ours, value) or (name in WINDOWS and sent.get("repetition_penalty") in (None, 1)):
            continue
        if ours in known:
            if ours in given and given[ours] != value:
                problems.append(f"{name}: {short(value)} contradicts {called[ours]}: {short(given[ours])}")
            given.setdefault(ours, value)
            called.setdefault(ours, name)
        elif name in instead:
            problems.append(f"{name}: {instead[name].format(value=short(value), count=counted(value))}")
        elif name in OFF:
            off = " or ".join(map(json.dumps, OFF[name] or ()))
            problems.append(f"{name}: {short(value)} is not supported by this server. Leave it out, or send {off}")
        else:
            unknown.append(name)
    for name in unknown[:_MAX_UNKNOWN]:
        problems.append(f"{short(name)[1:-1]}: is not known.{did_you_mean(name, {*known, *instead, *OFF, *to_ours})}")
    if len(unknown) > _MAX_UNKNOWN:
        problems.append(f"the body: {len(unknown) - _MAX_UNKNOWN:,} more names are not known")
    return given, called, problems
