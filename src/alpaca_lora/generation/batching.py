"""Answers made together: a token for each of them in one forward pass; they join and leave between tokens.

    step            1   2   3   4   5   6   7
    A  p p p p p    a   a   a   $
    B      p p p    b   b   b   b   b   b   $        p: prompt, computed when an answer joins
    C        (waits)          p p   c   c   c ...    $: stop; the row leaves

Rows are padded on the left, hidden by a mask and not counted in positions, so that an answer is the one it would be
alone (float rounding aside). Keys and values are kept in buffers with room to grow: a step copies only its own token.

Memory: rows x longest row x `bytes_per_token(model)`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from transformers.cache_utils import Cache

from ..errors import ModelError
from ..models.predictions import PlainHead, plain_head
from .key_values import KeyValues, left_padded
from .logprobs import Logprobs, keep_chosen, keep_prompt
from .sampler import NOT_FINITE, Sampler
from .sampling import Sampling
from .streaming import GrowingText

# Shapes: B rows, T tokens of the longest row, V vocabulary.


class Answer:
    """One answer in the making.

    Args:
        prompt: Ids of the prompt.
        sampling: How its tokens are chosen.
        stop_ids: It ends at any of these, which are not part of it.
        text: Follows its text, where that is shown as it grows or a text may end it.
        logprobs: Keeps the log-probabilities of its tokens, where somebody asks for them.
        prompt_only: It ends with its prompt: nothing is asked but what the model says of that.
    """

    def __init__(
        self,
        prompt: list[int],
        sampling: Sampling,
        stop_ids: Sequence[int],
        text: GrowingText | None = None,
        logprobs: Logprobs | None = None,
        prompt_only: bool = False,
    ) -> None:
        self.prompt, self.sampling, self.text = prompt, sampling, text
        self.logprobs, self.prompt_only = logprobs, prompt_only
        self.stop_ids = frozenset(stop_ids)
        self.ids: list[int] = []
        self.finish_reason: Literal["stop", "length", "cancelled"] | None = None
        self.sampler: Sampler | None = None
        self.error: BaseException | None = None
        """Why it was cancelled, where that was not wished."""

    @property
    def most_tokens(self) -> int:
        """Tokens of prompt and answer, if it goes on to its limit."""
        return len(self.prompt) + self.sampling.max_new_tokens

    def cancel(self) -> None:
        """Nobody waits for the rest: it leaves at the next step."""
        self.finish_reason = self.finish_reason or "cancelled"

    def take(self, token: int) -> None:
        """The next token was chosen."""
        if self.finish_reason:
            return
        reason: Literal["stop", "length"] | None = None
        if token in self.stop_ids:
            reason = "stop"
        else:
            self.ids.append(token)
            if self.text:
                self.text.update(self.ids)
                if self.text.stopped:
                    reason = "stop"
            if not reason and len(self.ids) >= self.sampling.max_new_tokens:
                reason = "length"
        if reason and self.text:
            self.text.finish(self.ids)
        # Last: another thread takes the text for whole from here on.
        self.finish_reason = self.finish_reason or reason


class Batch:
    """Answers of one model that grow together.

    Args:
        model: A causal language model of transformers or peft.
        pad_id: Any id of the vocabulary; what it stands for is never seen.
        head: Gives the model's head, if its logits are plain; asked for prompts' log-probabilities only.
    """

    def __init__(self, model: Any, pad_id: int, head: Callable[[], PlainHead | None] | None = None) -> None:
        self.model, self.pad_id = model, pad_id
        self._head = head or (lambda: plain_head(model))
        self.answers: list[Answer] = []
        self.layers: list[KeyValues] = []
        self.mask_BT = torch.zeros(0, 0, dtype=torch.long, device=model.device)

    @torch.no_grad()
    def join(self, answers: Sequence[Answer]) -> None:
        """Compute the prompts of new answers, and their first tokens."""
        longest = max(len(answer.prompt) for answer in answers)
        padding = [longest - len(answer.prompt) for answer in answers]
        rows = [[self.pad_id] * gap + answer.prompt for gap, answer in zip(padding, answers, strict=True)]
        seen = [[0] * gap + [1] * (longest - gap) for gap in padding]
        mask_BT = torch.tensor(seen, device=self.model.device)
        layers: list[KeyValues] = []
        wanting = [row for row, answer in enumerate(answers) if answer.logprobs and answer.logprobs.of_prompt]
        head = self._head() if wanting else None
        keeping: AbstractContextManager[list[torch.Tensor]] = head.hidden_states() if head else nullcontext([])
        with keeping as states:
            logits_BV = self._forward(torch.tensor(rows, device=self.model.device), mask_BT, layers)
        for row in wanting:
            prompt, logprobs = answers[row].prompt, answers[row].logprobs
            assert logprobs is not None
            keep_prompt(self.model, head, prompt, states[0][row, -len(prompt) :] if head else None, logprobs)
        del states
        for answer in answers:
            answer.sampler = Sampler(answer.sampling, logits_BV.device)
            if answer.prompt_only:
                answer.finish_reason = answer.finish_reason or "length"
        _choose(answers, logits_BV)
        if not self.answers:
            self.answers, self.layers, self.mask_BT = list(answers), layers, mask_BT
            return
        length = max(longest, self.mask_BT.shape[1])
        self.mask_BT = torch.cat([left_padded(self.mask_BT, length, 1), left_padded(mask_BT, length, 1)])
        for mine, new in zip(self.layers, layers, strict=True):
            mine.hold(
                *(
                    torch.cat([left_padded(old, length, 2), left_padded(more, length, 2)])
                    for old, more in ((mine.keys, new.keys), (mine.values, new.values))
                )
            )
        self.answers = [*self.answers, *answers]

    @torch.no_grad()
    def step(self) -> None:
        """One more token for every answer; those that have ended leave first."""
        self._leave()
        if not self.answers:
            return
        last_B1 = torch.tensor([[answer.ids[-1]] for answer in self.answers], device=self.model.device)
        self.mask_BT = torch.cat([self.mask_BT, torch.ones_like(last_B1)], dim=1)
        _choose(self.answers, self._forward(last_B1, self.mask_BT, self.layers))

    def _leave(self) -> None:
        staying = [row for row, answer in enumerate(self.answers) if not answer.finish_reason]
        if len(staying) == len(self.answers):
            return
        self.answers = [self.answers[row] for row in staying]
        if not staying:
            self.layers, self.mask_BT = [], self.mask_BT[:0, :0]
            return
        index = torch.tensor(staying, device=self.mask_BT.device)
        mask_BT = self.mask_BT[index]
        unused = int(mask_BT.shape[1] - mask_BT.sum(1).max())  # columns that only the longer rows needed
        self.mask_BT = mask_BT[:, unused:]
        for layer in self.layers:
            layer.hold(layer.keys[index, :, unused:], layer.values[index, :, unused:])

    def _forward(self, ids: torch.Tensor, mask_BT: torch.Tensor, layers: list[KeyValues]) -> torch.Tensor:
        """Logits after the last token of each row, float32, shape (B, V); `layers` take keys and values."""
        cache = Cache(layers=layers) if layers else Cache(layer_class_to_replicate=KeyValues)
        positions = (mask_BT.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        out = self.model(
            input_ids=ids,
            attention_mask=mask_BT,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        if not layers:
            layers += cache.layers
        return out.logits[:, -1].float()


class Scheduler:
    """Answers by which adapter gives them, a batch for each, all going on at once.

    Args:
        batch: Makes an empty batch.
        select: Switches the model to an adapter.
        cache_tokens: Maximum number of tokens, padding included, whose keys and values are kept.
        max_rows: Maximum batch size.
    """

    def __init__(
        self, batch: Callable[[], Batch], select: Callable[[str], None], cache_tokens: int, max_rows: int
    ) -> None:
        self.new_batch, self.select = batch, select
        self.cache_tokens, self.max_rows = cache_tokens, max_rows
        self.batches: dict[str, Batch] = {}

    def __len__(self) -> int:
        return sum(len(batch.answers) for batch in self.batches.values())

    def has_room(self, waiting: Sequence[Answer]) -> int:
        """How many of the first of `waiting` can join now; always one where nothing is going on."""
        going = [answer for batch in self.batches.values() for answer in batch.answers]
        longest, count = max((answer.most_tokens for answer in going), default=0), 0
        for answer in waiting:
            longest = max(longest, answer.most_tokens)
            rows = len(going) + count + 1
            if rows > self.max_rows or (rows > 1 and rows * longest > self.cache_tokens):
                break
            count += 1
        return count

    def join(self, adapter: str, answers: Sequence[Answer]) -> None:
        """Begin answers that `adapter` gives."""
        batch = self.batches.setdefault(adapter, self.new_batch())
        batch._leave()
        self.select(adapter)
        batch.join(answers)

    def step(self) -> None:
        """A token for every answer."""
        for adapter, batch in list(self.batches.items()):
            self.select(adapter)
            batch.step()
            if not batch.answers:
                del self.batches[adapter]


def _choose(answers: Sequence[Answer], logits_BV: torch.Tensor) -> None:
    """Give every answer its next token; ModelError where the logits are no numbers to choose by."""
    highest_B, likeliest_B = logits_BV.max(-1)
    if not bool(highest_B.isfinite().all()):  # NaN is the highest wherever it stands
        raise ModelError(NOT_FINITE)
    tokens = likeliest_B.tolist()
    wanting: dict[int, Logprobs] = {}
    for row, (answer, logits_V) in enumerate(zip(answers, logits_BV, strict=True)):
        assert answer.sampler is not None  # it joined
        if not answer.sampler.plain:
            tokens[row] = answer.sampler.choose([*answer.prompt, *answer.ids], logits_V)
        if answer.logprobs and not answer.finish_reason:
            wanting[row] = answer.logprobs
    if wanting:
        keep_chosen([*wanting.values()], logits_BV[[*wanting]], [tokens[row] for row in wanting])
    for answer, token in zip(answers, tokens, strict=True):
        answer.take(token)
