"""A model that answers here: loaded, asked, talked to.

from alpaca_lora import load
model = load("runs/first")
model.generate("Name three fruits.")
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, DataError
from ..runs import by_name

if TYPE_CHECKING:
    from .answer_table import AnswerTable
    from .model import LocalModel
    from .moderation import Moderation
    from .prompt_format import Question
    from .sampling import Sampling


def load(
    path: str | PathLike[str],
    *,
    base_model: str | None = None,
    prompt_template: str | None = None,
    also: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    force: bool = False,
) -> LocalModel:
    """Load an adapter folder, a merged folder or a base for generation.

    Args:
        path: Folder, hub id of a base, or `demo`.
        base_model: Path or hub id of an adapter's base, if it is not where the adapter says.
        prompt_template: For models without a contract; `alpaca` if left out.
        also: Further adapters of the same base, each called by its folder's name; `base` is the base itself.
        force: Continue even if tokenizer, template or base differ from those trained with.

    Raises:
        AdapterError: an adapter is damaged, or not for this base, tokenizer or template.
        ModelError: the base cannot be loaded.
    """
    from .loading import load_local

    further = [also] if isinstance(also, str | PathLike) else also
    folders = [fspath(folder) for folder in further]
    return load_local(fspath(path), base_model=base_model, prompt_template=prompt_template, also=folders, force=force)


def generate(
    model: str | PathLike[str] | LocalModel,
    instruction: Question,
    input: str = "",
    *,
    system: str = "",
    adapter: str | None = None,
    base_model: str | None = None,
    **sampling: Any,
) -> str:
    """The answer to one instruction; for many, `load(...).answers([...])` makes them together, several times as fast.

    Args:
        model: What `load` returned, or anything it takes.
        instruction: What to do; or it and its input, as a pair or as a mapping; or a conversation, as a list of
            messages with `role` and `content`, for models trained with a chat template.
        input: Context, may be empty.
        system: A system text in front of it all, for models trained with a chat template.
        adapter: Which of several adapters answers; `base` disables them all.
        base_model: As for `load`.
        **sampling: Fields of `Sampling`: max_new_tokens, temperature, top_p, top_k, repetition_penalty, num_beams,
            seed, stop.

    Raises:
        ConfigError: a value is out of range.
        DataError: nothing is asked, or it cannot be read. Both are told before a model is loaded.
        AdapterError, ModelError: as `load`.
    """
    from .prompt_format import with_system

    loaded, chosen = _asked(model, instruction, input, sampling, base_model=base_model)
    return loaded.generate(*with_system(system, instruction, input), chosen, adapter)


def stream(
    model: str | PathLike[str] | LocalModel,
    instruction: Question,
    input: str = "",
    *,
    system: str = "",
    adapter: str | None = None,
    base_model: str | None = None,
    prompt_template: str | None = None,
    force: bool = False,
    **sampling: Any,
) -> Iterator[str]:
    """Answer one instruction, in pieces as they are made.

    Args:
        model: Adapter folder, merged folder, base folder, hub id, or `demo`; or what `load` returned.
        instruction: What to do; or it and its input, as a pair or as a mapping; or a conversation, as for `generate`.
        input: Context.
        system: A system text in front of it all, for models trained with a chat template.
        adapter: Which of several adapters answers; `base` disables them all.
        base_model: Path or hub id of an adapter's base, if it is not where the adapter says.
        prompt_template: For models without a contract; `alpaca` if left out.
        force: Continue even if tokenizer, template or base differ from those trained with.
        **sampling: As for `generate`.

    Raises:
        ConfigError, DataError, AdapterError, ModelError: as `generate`.
    """
    from .prompt_format import with_system

    where: dict[str, Any] = {"base_model": base_model, "prompt_template": prompt_template, "force": force}
    loaded, chosen = _asked(model, instruction, input, sampling, **where)
    return loaded.stream(*with_system(system, instruction, input), chosen, adapter)


def chat(
    model: str | PathLike[str] | LocalModel,
    *,
    also: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    base_model: str | None = None,
    prompt_template: str | None = None,
    moderation: str | Moderation | None = None,
    force: bool = False,
    key: str | None = None,
    system: str = "",
    write: Callable[..., Any] = print,
    **sampling: Any,
) -> None:
    """Answer what is typed in the terminal, until the end of input.

    A model trained with a chat template is told what was said before; for any other each instruction stands alone.

    Args:
        model: Adapter folder, merged folder, base folder, hub id, or `demo`; or what `load` returned.
        also: Folders of further adapters, to switch between.
        base_model: Path or hub id of an adapter's base, if it is not where the adapter says.
        prompt_template: For models without a contract; `alpaca` if left out.
        moderation: A file with one word or phrase per line that are refused, or the URL of an OpenAI-compatible
            moderation endpoint; in Python also a function that returns why a text is refused, or None.
        force: Continue even if tokenizer, template or base differ from those trained with.
        key: Key of the moderation endpoint.
        system: A system text, for models trained with a chat template; `/system` gives another.
        write: Prints, as `print` does.
        **sampling: As for `generate`; `max_new_tokens` is 512 if left out.
    """
    from .moderation import moderation_from
    from .sampling import sampling_of
    from .terminal import chat as talk

    chosen = sampling_of({"max_new_tokens": 512, **sampling})
    looks = moderation_from(moderation, key) if isinstance(moderation, str) else moderation
    loaded = loaded_model(model, base_model=base_model, prompt_template=prompt_template, also=also, force=force)
    talk(loaded, chosen, looks, system=system, write=write)


def compare_answers(
    models: Sequence[Any] | Mapping[str, Any], instructions: Iterable[Question], **sampling: Any
) -> AnswerTable:
    """The answers of several models to the same instructions, side by side.

    Args:
        models: Runs, loaded models, or anything `load` takes; a mapping gives their names, else they are the folders'.
        instructions: Texts, pairs of instruction and input, or records of which these are read.
        **sampling: As for `generate`.

    Returns:
        A table that shows itself in a notebook; `print` and `to_pandas()` give it elsewhere.

    Raises:
        ConfigError: nothing to ask or nobody, or two models have the same name.
        DataError: an instruction that cannot be read.
        AdapterError, ModelError: as `load`.
    """
    from .answer_table import answer_table
    from .sampling import sampling_of

    def loading(model: Any) -> Callable[[], LocalModel]:
        if hasattr(model, "output_dir"):
            return lambda: model.model  # a run keeps what it loaded
        return lambda: loaded_model(model)

    given = {name: loading(model) for name, model in by_name(models).items()}
    return answer_table(given, instructions, sampling_of(sampling))


def loaded_model(model: str | PathLike[str] | LocalModel, **settings: Any) -> LocalModel:
    """The model, loaded where it is not yet; `settings` as for `load`."""
    if isinstance(model, str | PathLike):
        return load(model, **settings)
    if settings.get("base_model") is not None:
        raise ConfigError("base_model: this model is loaded already, on its base. Give base_model to load.")
    return model


def _asked(
    model: str | PathLike[str] | LocalModel,
    instruction: Question,
    input: str,
    sampling: Mapping[str, Any],
    **where: Any,
) -> tuple[LocalModel, Sampling]:
    """The model and how its tokens are chosen, once something is asked in a way that can be answered."""
    from .prompt_format import is_conversation, question_of
    from .sampling import sampling_of

    chosen = sampling_of(sampling)
    if not is_conversation(instruction) and not "".join(question_of(instruction, input)).strip():
        raise DataError("instruction: is empty. Say what to do.")
    return loaded_model(model, **where), chosen
