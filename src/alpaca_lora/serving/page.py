"""A page for people: a form, an answer that grows, and, beside it, the base's own; Gradio draws it.

    form -> moderation -> engine (the server's queue and batches) -> moderation -> plain text fields

What a model says goes into text fields, so nothing in it is read as HTML or Markdown. The page needs no other host,
and the browser is told to allow none. Of what Gradio serves, only what this page needs is reachable: no uploads, no
files, no proxy.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import gradio as gr
from fastapi import FastAPI

from ..errors import AlpacaLoraError, ConfigError, DataError
from ..generation.batching import Answer
from ..generation.moderation import Moderation, refusal
from ..generation.prompt_format import BASE, warnings_of
from ..generation.sampling import Sampling
from .engine import Asked, Engine
from .page_access import PathAllowlist

LIMITS = """\
**What this is, and is not.** A small language model writes these answers. It makes up facts, sources and figures and
states them with confidence; its answers may be wrong, biased or offensive. It knows nothing of earlier questions. Do
not rely on an answer that you have not checked, and do not pass one on without saying that a machine wrote it."""
MOST_NEW_TOKENS = 2048
NO_COMPARISON = "No comparison with a base: a merged model or a base is served, and no adapter that could be left out."
API = tuple(f"/gradio_api/{call}" for call in ("queue/join", "queue/data", "run/predict"))
USED = ("/", "/theme.css", "/favicon.ico", "/assets/", "/static/", *API)
"""The paths of Gradio that the page uses."""
CTRL_ENTER = """() => document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) document.querySelector("#ask").click();
})"""
STYLE = """
.gradio-container { max-width: 1240px !important; margin: 0 auto !important; }
#limits { border-left: 4px solid #d97706; padding: 0.5em 0 0.5em 1em; }
#answer textarea, #base-answer textarea { font-size: 15px; line-height: 1.5; }
"""

Update = dict[Any, Any]
logger = logging.getLogger(__name__)


def add_page(app: FastAPI, engine: Engine, moderation: Moderation | None) -> FastAPI:
    """Put the page at /, behind the routes that are there.

    Args:
        app: What `make_app` made.
        engine: Answers; a full queue is told in the page.
        moderation: Looks at instructions and answers; answers are then shown when they are whole and looked at.

    Returns:
        The same application.
    """
    page = _Page(engine, moderation).drawn()
    # The engine's queue is the bound: Gradio lets in as many as it takes, and one more, who is told that it is full.
    page.max_threads = engine.max_rows + engine.max_waiting + 1
    page.queue(default_concurrency_limit=None, api_open=False, max_size=engine.max_rows)
    gr.mount_gradio_app(
        app,
        page,
        "",
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        enable_monitoring=False,
        max_file_size=1,
        show_error=False,
        theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        css=STYLE,
        js=CTRL_ENTER,
    )
    mount = app.router.routes[-1]
    mount.app = PathAllowlist(mount.app, USED)  # type: ignore[attr-defined]
    return app


class _Page:
    """What is in the page, and what its buttons do."""

    def __init__(self, engine: Engine, moderation: Moderation | None) -> None:
        self.engine, self.moderation = engine, moderation
        self.prompt_formats = engine.model.prompt_formats
        self.names = [name for name in self.prompt_formats if name != BASE]
        self.running: dict[str | None, list[Answer]] = {}  # by the page they were asked from

    def drawn(self) -> Any:
        """The page, as Gradio's Blocks."""
        first = self.engine.model.name
        fixed = {"interactive": False}
        with gr.Blocks(title=f"{first}: alpaca_lora", analytics_enabled=False) as page:
            gr.Markdown("# Ask the model")
            for warning in warnings_of(self.prompt_formats):  # a file's words: shown as text
                gr.Textbox(warning, label="Warning", elem_id="warning", **fixed)
            gr.Markdown(LIMITS, elem_id="limits")
            with gr.Row():
                with gr.Column(scale=1):
                    self.instruction = gr.Textbox(
                        label="Instruction", lines=4, max_lines=12, autofocus=True, elem_id="instruction"
                    )
                    self.input = gr.Textbox(
                        label="Input: what the instruction is about; may be empty",
                        lines=3,
                        max_lines=12,
                        elem_id="input",
                    )
                    with gr.Row():
                        self.ask = gr.Button("Ask (Ctrl+Enter)", variant="primary", elem_id="ask")
                        self.stop = gr.Button("Stop", variant="stop", elem_id="stop", **fixed)
                    self.status = gr.Textbox(label="Status", lines=2, max_lines=6, elem_id="status", **fixed)
                with gr.Column(scale=1):
                    with gr.Row():
                        several = len(self.names) > 1
                        self.name = gr.Dropdown(
                            self.names, value=first, label="Adapter", visible=several, elem_id="adapter"
                        )
                        self.template = gr.Textbox(self._template(first), label="Prompt template", **fixed)
                    self.compare = gr.Checkbox(
                        label="Compare with the base model", visible=BASE in self.prompt_formats, elem_id="compare"
                    )
                    if BASE not in self.prompt_formats:
                        gr.Markdown(NO_COMPARISON)
                    sampling = self._sampling_controls()
            with gr.Row():
                large = {"lines": 10, "max_lines": 24}
                self.answer = gr.Textbox(label=self._label(first), elem_id="answer", **large, **fixed)
                label = "Generated text, by the base without an adapter"
                self.base_answer = gr.Textbox(label=label, elem_id="base-answer", visible=False, **large, **fixed)
            private = {"api_visibility": "private", "show_progress": "hidden"}
            gr.on(
                [self.ask.click, self.instruction.submit, self.input.submit],
                self.answers,
                [self.instruction, self.input, self.name, self.compare, *sampling],
                [self.answer, self.base_answer, self.status, self.ask, self.stop],
                trigger_mode="once",
                **private,
            )
            self.stop.click(self.stopped, None, None, queue=False, **private)
            self.compare.change(_shown, self.compare, self.base_answer, queue=False, **private)
            self.name.change(self.renamed, self.name, [self.template, self.answer], queue=False, **private)
        return page

    def _sampling_controls(self) -> list[Any]:
        """In the order of `_sampling`'s arguments."""
        usual = Sampling()
        with gr.Row():
            tokens = gr.Slider(
                1, MOST_NEW_TOKENS, usual.max_new_tokens, step=1, label="Most new tokens", elem_id="tokens"
            )
            temperature = gr.Slider(0, 2, usual.temperature, step=0.05, label="Temperature")
        with gr.Row():
            top_p = gr.Slider(0.05, 1, usual.top_p, step=0.05, label="Top-p")
            top_k = gr.Slider(0, 200, usual.top_k, step=1, label="Top-k (0: all)")
        with gr.Row():
            penalty = gr.Slider(1, 2, usual.repetition_penalty, step=0.05, label="Repetition penalty")
            seed = gr.Textbox(label="Seed", placeholder="another each time", max_length=18, elem_id="seed")
        return [tokens, temperature, top_p, top_k, penalty, seed]

    def _template(self, name: str) -> str:
        return self.prompt_formats[name].encoder.template.name

    def _label(self, name: str) -> str:
        return f"Generated text, by {name}"

    async def renamed(self, name: str) -> tuple[str, Any]:
        """Another adapter was chosen."""
        return self._template(name), gr.update(label=self._label(name), value="")

    async def stopped(self, request: gr.Request) -> None:
        """End what this page asked for; `answers` then says so."""
        for answer in self.running.get(request.session_hash, []):
            answer.cancel()

    async def answers(
        self, request: gr.Request, instruction: str, input: str, name: str, compare: bool, *sampling: Any
    ) -> AsyncIterator[Update]:
        """One answer, or two that grow together, and at the end how they ended, or why there is none."""
        fields = (self.answer, self.base_answer)
        yield {
            **dict.fromkeys(fields, ""),
            self.status: "Waiting for its turn.",
            self.ask: gr.update(interactive=False),
            self.stop: gr.update(interactive=True),
        }
        names = [name, BASE] if compare else [name]
        mine = self.running.setdefault(request.session_hash, [])
        shown: list[str] = []
        try:
            growing = await self._asked(instruction, input, names, _sampling(*sampling))
            mine += (answers := [asked.answers[0] for asked in growing])
            for asked in growing:
                async with aclosing(asked.growth()) as growth:
                    async for _ in growth:
                        grown = dict(zip(fields, self._grown(answers), strict=False))
                        yield {**grown, self.status: self._going(answers)}
            ended = [await self._ended(answer) for answer in answers]
            shown = [text for text, _ in ended]
            status = "\n".join(f"{who}: {how}." for who, (_, how) in zip(names, ended, strict=True))
        except AlpacaLoraError as error:
            status = "No answer: " + str(error).removeprefix("no answer: ")
        except Exception:
            logger.exception("the page could not answer")
            status = "No answer: the server failed; its log says why."
        finally:  # also where the page was closed
            for answer in mine:
                answer.cancel()
            self.running.pop(request.session_hash, None)
        yield {
            **dict(zip(fields, shown, strict=False)),
            self.status: status,
            self.ask: gr.update(interactive=True),
            self.stop: gr.update(interactive=False),
        }

    async def _asked(self, instruction: str, input: str, names: list[str], sampling: Sampling) -> list[Asked]:
        """Queue an answer of each name: all or none.

        Raises:
            QueueFull, DataError, ConfigError: why not.
        """
        if not instruction.strip():
            raise DataError("write an instruction first.")
        if reason := await self._refused(f"{instruction}\n{input}".strip()):
            raise DataError(f"the instruction is refused by this server's moderation: {reason}.")
        asked: list[Asked] = []
        try:
            for name in names:
                encoder = self.engine.model.prompt_format(name).encoder
                prompt = await asyncio.to_thread(encoder.prompt_ids, instruction, input)  # a long one takes seconds
                asked.append(self.engine.ask([prompt], [sampling], name))
        except AlpacaLoraError:
            for one in asked:
                one.answers[0].cancel()
            raise
        return asked

    def _grown(self, answers: list[Answer]) -> list[str]:
        """What can be shown of answers that go on."""
        return ["" if self.moderation else _text(answer) for answer in answers]

    def _going(self, answers: list[Answer]) -> str:
        if not any(answer.ids for answer in answers):
            return "Waiting for its turn."
        return "Generating; shown once it was looked at." if self.moderation else "Generating."

    async def _ended(self, answer: Answer) -> tuple[str, str]:
        """An answer's text, and how it ended; nothing of it where moderation refuses it."""
        if reason := await self._refused(_text(answer)):
            return "", f"not shown, this server's moderation refuses it: {reason}"
        how = {"length": "cut off at the limit of new tokens", "cancelled": "stopped"}.get(
            answer.finish_reason or "", "ended by itself"
        )
        return _text(answer), f"{len(answer.ids)} tokens, {how}"

    async def _refused(self, text: str) -> str | None:
        return await refusal(self.moderation, text)


def _text(answer: Answer) -> str:
    assert answer.text is not None  # what the engine makes has one
    return answer.text.certain


def _sampling(
    tokens: float, temperature: float, top_p: float, top_k: float, repetition_penalty: float, seed: str
) -> Sampling:
    """What the controls say.

    Raises:
        ConfigError: a value is out of range.
    """
    if seed.strip() and not seed.strip().isdecimal():
        raise ConfigError(f"seed: {seed!r} must be a whole number, or empty.")
    return Sampling(
        int(tokens), temperature, top_p, int(top_k), repetition_penalty, seed=int(seed) if seed.strip() else None
    )


def _shown(compare: bool) -> Any:
    return gr.update(visible=compare)
