"""Tokens that a base does not have: added to its tokenizer, given rows in its embedding and head, and trained there.

    tokenizer   ids from its end on; ordinary tokens, not special ones: found in every text, shown in answers
    embedding   the rows of these ids, beyond the base's own where it has none left over. In the base they are the mean
    head        of its own tokens' rows, with which a token's probability is at most 1 / rows; what trains begins at the
                mean of the rows that the token's text had before (arXiv 2402.09977)
    peft        trains these rows and no others (`trainable_token_indices`), once where embedding and head are tied

In: a tokenizer or a model. Out: the same, changed. The base's files stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import ConfigError, ModelError


def add_new_tokens(tokenizer: Any, tokens: list[str]) -> None:
    """Add tokens to a tokenizer.

    Raises:
        ConfigError: it has some already; all are named.
    """
    from tokenizers import AddedToken

    known = tokenizer.get_vocab()
    special = {*tokenizer.all_special_tokens}
    problems = [
        f"new_tokens: {text!r} is a token of this base already, with id {known[text]}"
        + (", a special one: records hold it as text. Choose another." if text in special else ". Leave it out.")
        for text in tokens
        if text in known
    ]
    if problems:
        raise ConfigError(problems)
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in tokens])
    for text in tokens:
        (row,) = tokenizer([f"a{text}b"], add_special_tokens=False, split_special_tokens=True).input_ids
        if row.count(tokenizer.convert_tokens_to_ids(text)) != 1:
            raise ModelError(
                f"new_tokens: {type(tokenizer).__name__} does not find {text!r} in a text. Choose another text."
            )


def rows_for(ids: list[int], rows: int) -> int:
    """Rows that embedding and head need for these ids, where they have `rows`."""
    return max([rows, *(id + 1 for id in ids)])


def rows_of(model: Any) -> int:
    """Rows of a model's embedding, also where peft trains some of them."""
    embedding = model.get_input_embeddings()
    return int(getattr(embedding, "original_module", embedding).weight.shape[0])


def make_room(model: Any, ids: list[int], begin: bool = False) -> None:
    """Give a model rows for ids that it lacks; they are the mean of those before them.

    Args:
        model: A transformers causal language model, no adapter on it.
        ids: Ids of tokens.
        begin: They are new: also where the base has a row left over for one, it is set to the mean.
    """
    import torch

    have = rows_of(model)
    if (rows := rows_for(ids, have)) > have:
        model.resize_token_embeddings(rows, mean_resizing=False)
    places = sorted({*range(have, rows), *(ids if begin else ())})
    if not places:
        return
    with torch.no_grad():
        for weight in (model.get_input_embeddings().weight, model.get_output_embeddings().weight):  # one, if tied
            weight[places] = weight[: places[0]].float().mean(dim=0).to(weight.dtype)


def pieces_of(before: Any, tokenizer: Any, tokens: list[str]) -> dict[int, list[int]]:
    """The ids of new tokens, each with those that its text had.

    Args:
        before: The base's tokenizer, as it is in its files.
        tokenizer: The same with the tokens.
        tokens: Their texts.
    """
    ids = [tokenizer.convert_tokens_to_ids(text) for text in tokens]
    rows = before(tokens, add_special_tokens=False, split_special_tokens=True).input_ids if tokens else []
    return dict(zip(ids, rows, strict=True))


def begin_rows(model: Any, pieces: Mapping[int, list[int]]) -> None:
    """Set what peft trains of new tokens' rows to the mean of the rows of what each was before.

    Args:
        model: A peft model that trains these tokens.
        pieces: What `pieces_of` gave.
    """
    import torch
    from peft.utils.other import TrainableTokensWrapper

    for module in model.modules() if pieces else ():
        if isinstance(module, TrainableTokensWrapper) and not module.token_adapter.tied_adapter:
            rows, own = module.token_adapter, module.original_module.weight
            with torch.no_grad():
                begun = [own[pieces[id]].float().mean(dim=0) for id in rows.token_indices["default"]]
                rows.trainable_tokens_delta["default"].copy_(torch.stack(begun))


def trained_rows(model: Any, ids: list[int]) -> dict[str, list[int]]:
    """peft's `trainable_token_indices` for these ids, in embedding and head.

    Raises:
        ConfigError: the model has no embedding and head that can be told apart by their names.
    """
    from torch import nn

    names = {module: path.rsplit(".", 1)[-1] for path, module in model.named_modules()}
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    if inputs not in names or type(outputs) is not nn.Linear or outputs.bias is not None:
        raise ConfigError(f"new_tokens: {type(model).__name__} has no plain embedding and head. Leave new_tokens out.")
    tied = inputs.weight is outputs.weight
    return {names[inputs]: ids} if tied else {names[inputs]: ids, names[outputs]: ids}


def ids_of(config: Any) -> list[int]:
    """The ids that an adapter trains rows of, by peft's config."""
    found = getattr(config, "trainable_token_indices", None) or []
    return sorted({id for ids in (found.values() if isinstance(found, dict) else [found]) for id in ids})
