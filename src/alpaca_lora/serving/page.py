"""A page for people: a form, an answer that grows, and, beside it, the base's own; Gradio draws it.

    form -> moderation -> engine (the server's queue and batches) -> moderation -> plain text fields

What a model says goes into text fields, so nothing in it is read as HTML or Markdown. The page needs no other host,
and the browser is told to allow none. Of what Gradio serves, only what this page needs is reachable: no uploads, no
files, no proxy.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import gradio as gr
from fastapi import FastAPI

from ..data.tokens import user_message
from ..errors import AlpacaLoraError, ConfigError
from ..generation.batching import Answer
from ..generation.moderation import Moderation
from ..generation.prompt_format import BASE, warnings_of
from ..generation.sampling import Sampling
from .engine import Engine
from .page_answers import PageAnswers
from .path_allowlist import PathAllowlist

LIMITS = """\
**What this is, and is not.** A small language model writes these answers. It makes up facts, sources and figures and
states them with confidence; its answers may be wrong, biased or offensive. Do not rely on an answer that you have not
checked, and do not pass one on without saying that a machine wrote it."""
MAX_NEW_TOKENS = 2048
NO_COMPARISON = "No comparison with a base: a merged model or a base is served, and no adapter that could be left out."
API_PATHS = tuple(f"/gradio_api/{call}" for call in ("queue/join", "queue/data", "run/predict"))
PAGE_PATHS = ("/", "/theme.css", "/favicon.ico", "/assets/", "/static/", *API_PATHS)
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
    mount.app = PathAllowlist(mount.app, PAGE_PATHS)  # type: ignore[attr-defined]
    return app


class _Page:
    """What is in the page, and what its buttons do."""

    def __init__(self, engine: Engine, moderation: Moderation | None) -> None:
        self.engine, self.answering = engine, PageAnswers(engine, moderation)
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
            # Questions and answers so far. The browser keeps them: the server remembers nothing of a page.
            self.earlier = gr.JSON([], visible=False)
            several_turns = self.prompt_formats[first].encoder.chats
            self.history = gr.Textbox(
                label="Earlier turns, which the model is told",
                lines=4,
                max_lines=16,
                elem_id="history",
                visible=several_turns,
                **fixed,
            )
            with gr.Row():
                with gr.Column(scale=1):
                    self.system = gr.Textbox(
                        label="System text; may be empty", lines=2, max_lines=6, elem_id="system", visible=several_turns
                    )
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
                        self.anew = gr.Button("New conversation", elem_id="anew", visible=several_turns)
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
                [self.instruction, self.input, self.name, self.compare, self.system, self.earlier, *sampling],
                [self.answer, self.base_answer, self.status, self.ask, self.stop, self.earlier, self.history],
                trigger_mode="once",
                **private,
            )
            self.anew.click(_forgotten, None, [self.earlier, self.history, self.answer], queue=False, **private)
            self.stop.click(self.stopped, None, None, queue=False, **private)
            self.compare.change(_shown, self.compare, self.base_answer, queue=False, **private)
            self.name.change(self.renamed, self.name, [self.template, self.answer], queue=False, **private)
        return page

    def _sampling_controls(self) -> list[Any]:
        """In the order of `_sampling`'s arguments."""
        usual = Sampling()
        with gr.Row():
            tokens = gr.Slider(
                1, MAX_NEW_TOKENS, usual.max_new_tokens, step=1, label="Maximum new tokens", elem_id="tokens"
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
        self,
        request: gr.Request,
        instruction: str,
        input: str,
        name: str,
        compare: bool,
        system: str,
        earlier: Any,
        *sampling: Any,
    ) -> AsyncIterator[Update]:
        """One answer, or two that grow together, and at the end how they ended, or why there is none."""
        fields = (self.answer, self.base_answer)
        instruction, input, system = map(_text, (instruction, input, system))
        earlier = _turns(earlier)
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
            growing = await self.answering.queued(instruction, input, names, _sampling(*sampling), system, earlier)
            mine += (answers := [asked.answers[0] for asked in growing])
            for asked in growing:
                async with aclosing(asked.growth()) as growth:
                    async for _ in growth:
                        grown = dict(zip(fields, self.answering.shown(answers), strict=False))
                        yield {**grown, self.status: self.answering.status(answers)}
            ended = [await self.answering.ended(answer) for answer in answers]
            shown = [text for text, _ in ended]
            status = "\n".join(f"{who}: {how}." for who, (_, how) in zip(names, ended, strict=True))
            if self.prompt_formats[name].encoder.chats and shown[0]:
                earlier = [*earlier, (user_message(instruction, input)["content"], shown[0])]
        except AlpacaLoraError as error:
            status = "No answer: " + str(error).removeprefix("no answer: ")
        except Exception:
            logger.exception("the page could not answer")
            status = "No answer: the server failed; its log says why."
        finally:  # also if the page was closed
            for answer in mine:
                answer.cancel()
            self.running.pop(request.session_hash, None)
        yield {
            **dict(zip(fields, shown, strict=False)),
            self.status: status,
            self.ask: gr.update(interactive=True),
            self.stop: gr.update(interactive=False),
            self.earlier: earlier,
            self.history: "\n\n".join(f"> {asked}\n{answer}" for asked, answer in earlier),
        }


def _text(sent: Any) -> str:
    """A text field as a browser sends it back; of one that was never drawn, nothing."""
    return sent if isinstance(sent, str) else ""


def _turns(sent: Any) -> list[tuple[str, str]]:
    """Questions and answers as a browser sends them back; none of what is anything else."""
    listed = sent if isinstance(sent, list) else []
    pairs = [tuple(pair) for pair in listed if isinstance(pair, (list, tuple)) and len(pair) == 2]
    return [(asked, answer) for asked, answer in pairs if isinstance(asked, str) and isinstance(answer, str)]


def _forgotten() -> tuple[list[Any], str, str]:
    return [], "", ""


def _sampling(
    tokens: float, temperature: float, top_p: float, top_k: float, repetition_penalty: float, seed: str
) -> Sampling:
    """What the controls say.

    Raises:
        ConfigError: a value is out of range, or a number was deleted.
    """
    if None in (tokens, temperature, top_p, top_k, repetition_penalty):
        raise ConfigError("fill in each number beside the answer; only the seed may be empty.")
    seed = _text(seed)
    if seed.strip() and not seed.strip().isdecimal():
        raise ConfigError(f"seed: {seed!r} must be a whole number, or empty.")
    return Sampling(
        int(tokens), temperature, top_p, int(top_k), repetition_penalty, seed=int(seed) if seed.strip() else None
    )


def _shown(compare: bool) -> Any:
    return gr.update(visible=compare)
