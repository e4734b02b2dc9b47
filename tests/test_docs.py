"""What README and docs/ say to type is typed here, page by page, in a folder of its own; so are the examples.

A block of commands is fenced as bash or python. One that is not run says why on the line before its fence,
`<!-- not run: REASON -->`, and is read all the same: its options, files and names must exist. What a reader would
already have is made by `<!-- before: COMMANDS -->`. A command that ends otherwise than with 0 says `exit code N`
in its comment. The lines of an output under `<!-- printed -->` must be among those that the page printed.

`demo` is a tiny random model of the demo model's kind; `make quickstart` and the notebooks take the demo model itself.
"""

from __future__ import annotations

import ast
import functools
import gc
import importlib.util
import io
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import pytest
import yaml

import alpaca_lora
from alpaca_lora import cli

ROOT = Path(__file__).parent.parent
parser = functools.cache(cli._parser)  # built once: the commands are many
EXAMPLES = ROOT / "examples"
PAGES = {str(path.relative_to(ROOT)): path for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))}
every_page = pytest.mark.parametrize("page", PAGES)

_SPEC = importlib.util.spec_from_file_location(
    "scripted_server", ROOT / "tests" / "selfinstruct" / "scripted_server.py"
)
assert _SPEC and _SPEC.loader
scripted_server = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(scripted_server)

NOT_RUN = re.compile(r" *<!-- not run: *(.*?) *-->")
COMMAND = re.compile(
    r"(?:\$ )?(?:[A-Z_]+=\S* )*(?:alpaca-lora|python3?|make|torchrun|accelerate|pip|curl|git|examples/\S+) "
)
OUTPUT = {"text", "json", "yaml", "mermaid"}  # languages of blocks that are read, not typed


class Block(NamedTuple):
    """A fenced block, or what a page's reader has done before it."""

    line: int
    language: str
    text: str
    not_run: str | None = None
    printed: bool = False


def blocks_of(text: str, page: str) -> list[Block]:
    """A page's blocks, in order; what would escape them is an error that names its line."""
    found: list[Block] = []
    lines = text.split("\n")
    at = 0
    while at < len(lines):
        line = lines[at]
        mark = NOT_RUN.fullmatch(lines[at - 1]) if at else None
        opened = re.fullmatch(r"( *)(```+|~~~+)(\S*).*", line)
        before = re.match(r"<!-- before:(.*)", line)
        if opened:
            end = next(end for end in range(at + 1, len(lines)) if lines[end].strip() == opened[2])
            body, language = textwrap.dedent("\n".join(lines[at + 1 : end])), opened[3]
            assert language in {"bash", "python", *OUTPUT}, f"{page}:{at + 1}: a block of {language or 'no'} language"
            typed = language not in OUTPUT
            assert typed or not mark, f"{page}:{at}: a block of {language} is never run"
            assert typed or not any(map(COMMAND.match, body.split("\n"))), f"{page}:{at + 1}: commands, but not as bash"
            printed = at > 0 and lines[at - 1].strip() == "<!-- printed -->"
            found.append(Block(at + 1, language, body, mark[1] if mark else None, printed))
            assert not mark or mark[1], f"{page}:{at}: not run, without a reason"
        elif before:
            end = next(end for end in range(at, len(lines)) if lines[end].endswith("-->"))
            body = "\n".join(lines[at : end + 1]).removeprefix("<!-- before:").removesuffix("-->")
            found.append(Block(at + 1, "bash", body))
        else:
            end = at
            assert "<!-- not run" not in line or re.match(r" *```", lines[at + 1]), f"{page}:{at + 1}: marks no block"
            outside = line.startswith(("    ", "\t", "<pre")) and COMMAND.match(line.strip().removeprefix("<pre>"))
            assert not outside, f"{page}:{at + 1}: a command outside of a fenced block"
        at = end + 1
    return found


@functools.cache
def blocks(page: str) -> list[Block]:
    return blocks_of(PAGES[page].read_text(encoding="utf-8"), page)


def commands(block: Block) -> Iterator[str]:
    """The lines of a block of bash; those that go on in the next, as a file written there (`<<END`) does, are one."""
    lines = r"^.*<< *'?(\w+)'?.*\n(?s:.*?)^\1$|^(?:.*\\\n)*.*$"
    for line in re.finditer(lines, block.text, re.MULTILINE):
        if line[0].strip() and not line[0].startswith("#"):
            yield line[0].replace("\\\n", " ")


# What is run


def in_bash(command: str, **variables: str) -> str:
    """Output of what must succeed, with `alpaca-lora` on the PATH as in an activated environment."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, **variables}
    done = subprocess.run(["bash", "-euc", command], env=environment, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    print(done.stdout)
    return done.stdout


def in_this_process(command: str) -> None:
    """`alpaca-lora ...` without a process of its own, whose imports would take longer than the command."""
    code: Any = 0
    try:
        cli.main(shlex.split(command, comments=True)[1:])
    except SystemExit as end:
        code = end.code or 0
    if isinstance(code, str):
        print(code)
        code = 1
    expected = re.search(r"#.*exit code (\d+)", command)
    assert code == int(expected[1] if expected else 0), f"{command}: exit code {code}"


def run_bash(block: Block) -> None:
    """Lines with nothing of the shell's in this process; but all in one shell where a line depends on another's."""
    if re.search(r"\$|^(cd|export|for|if) ", block.text, re.MULTILINE):
        in_bash(block.text)
        return
    for command in commands(block):
        plain = not re.search(r"[|&;<>`*~]", re.sub(r"'[^']*'|#.*", "", command))
        (in_this_process if plain and command.startswith("alpaca-lora ") else in_bash)(command)


def run_example(name: str, *arguments: str) -> None:
    """`python examples/NAME ARGUMENTS`, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [name, *arguments])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")


@pytest.fixture(scope="module")
def small_demo(demo_base: str, short_base_bpe: str, cache: Path, tmp_path_factory: Any) -> Iterator[str]:
    """What says `demo` gets a tiny model of its kind out of the cache."""
    home = tmp_path_factory.mktemp("small_demo")
    for entry in cache.parent.iterdir():
        if entry != cache:
            (home / entry.name).symlink_to(entry.resolve())
    (home / cache.name).mkdir()
    (home / cache.name / Path(demo_base).name).symlink_to(short_base_bpe)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(home))
        yield short_base_bpe


@pytest.fixture
def desk(tmp_path: Path, small_demo: str, records: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The reader's place: a folder with my.json, 240 records, and the repository's scripts; nothing is typed in."""
    rows = [
        {**record._asdict(), "instruction": f"{record.instruction} (Question {number}.)"}
        for number in range(20)
        for record in records
    ]
    (tmp_path / "my.json").write_text(json.dumps(rows), encoding="utf-8")
    for folder in ("benchmarks", "examples"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    monkeypatch.setattr(cli, "_parser", parser)
    gc.collect()  # as conftest's `settled`: what pages have imported by now is not gone through at every Trainer's end
    gc.freeze()
    return tmp_path


@pytest.mark.slow
@every_page
def test_blocks_run_in_order(page, desk, capfd):
    names: dict[str, Any] = {"__name__": "__main__"}
    out = ""
    for block in blocks(page):
        if block.language == "bash" and block.not_run is None:
            run_bash(block)
        elif block.language == "python" and block.not_run is None:
            exec(compile("\n" * block.line + block.text, page, "exec"), names)
        out += "".join(capfd.readouterr())
        missing = set(block.text.splitlines()) - set(out.splitlines()) if block.printed else set()
        assert not missing, f"{page}:{block.line}: not what was printed: {missing}\n{out}"
    if page == "README.md":  # running means more than ending with 0
        assert "'eval_loss'" in out and "supervised tokens" in out and "Merged folder: runs/mine-merged" in out
        assert (desk / "runs" / "first-merged" / "model.safetensors").exists()


@pytest.mark.slow
def test_python_examples(desk, capfd):
    run_example("finetune.py", "run")
    run_example("merge_adapter.py", "run", "merged")
    out = capfd.readouterr().out
    assert "'loss'" in out and "merged into merged" in out


@pytest.mark.slow
def test_compare_example(desk, small_demo):
    """A model and a file of answers, and a judge that likes what it reads first: a tie."""
    asked = ["Name three fruits."]
    Path("asked.jsonl").write_text("".join(json.dumps({"instruction": text}) + "\n" for text in asked))
    Path("other.json").write_text(json.dumps([{"instruction": text, "output": "A cat."} for text in asked]))
    with scripted_server.ScriptedServer([{"text": "It is.\nVerdict: 1"}] * 2) as server:
        command = f"examples/compare.sh compared {small_demo} other.json --judge m --base_url {server.url}"
        out = in_bash(command, INSTRUCTIONS="asked.jsonl")
    answers = json.loads(Path("compared/a.json").read_text(encoding="utf-8"))
    assert [row["instruction"] for row in answers] == asked
    assert "no difference detected: 0 to 0" in out and Path("compared/report/report.html").exists()


# What is only read


def read_bash(command: str) -> None:
    """Options, files and targets of a command that is not run."""
    words = shlex.split(command.partition("<<")[0], comments=True)
    if "alpaca-lora" in words or "alpaca_lora" in words:
        read_alpaca_lora(words[words.index("alpaca-lora" if "alpaca-lora" in words else "alpaca_lora") + 1 :])
    for number, word in enumerate(words):
        if re.match(r"(benchmarks|examples|tests)/", word):
            text = (ROOT / word).read_text(encoding="utf-8")
            options = [option for option in words[number:] if option.startswith("--")] if word.endswith(".py") else []
            missing = [option for option in options if f'"{option}"' not in text]
            assert not missing, f"{command}: {word} has no {missing}"
    if "make" in words:
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        for word in words[words.index("make") + 1 :]:
            assert "=" in word or word in targets, f"{command}: make has no target {word}"


def read_alpaca_lora(words: list[str]) -> None:
    """A command whose options exist."""
    if "--help" not in words:
        try:
            parser().parse_args(words)
        except SystemExit as end:
            pytest.fail(f"alpaca-lora {' '.join(words)}: exit code {end.code}")


def read_python(text: str, page: str) -> None:
    """Python that can be compiled, and whose names of this library exist."""
    for node in ast.walk(ast.parse(text, page)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "alpaca_lora":
            module = __import__(node.module or "", fromlist=["_"])
            for name in node.names:
                assert hasattr(module, name.name), f"{page}: from {node.module} import {name.name}"
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "alpaca_lora":
            assert hasattr(alpaca_lora, node.attr), f"{page}: alpaca_lora.{node.attr}"


@every_page
def test_blocks_that_are_not_run_could_be(page):
    for block in blocks(page):
        if block.not_run is not None and block.language == "python":
            read_python(block.text, page)
        elif block.not_run is not None:
            for command in commands(block):
                read_bash(command)


@every_page
def test_commands_within_sentences_name_what_exists(page):
    """`alpaca-lora lint --against` may leave out what a command needs, but name nothing that is not there."""
    text = PAGES[page].read_text(encoding="utf-8")
    for command in re.findall(r"(?<!`)`((?:python|make) [^`]+)`(?!`)", text):
        read_bash(command)
    for line in re.findall(r"(?<!`)`alpaca-lora ([^`]+)`(?!`)", text):
        words = shlex.split(line)
        if "--help" in words:
            continue
        name = " ".join(words[:2]) if words[0] in cli._GROUPS else words[0]
        assert name in cli._COMMANDS, f"{page}: alpaca-lora {line}"
        given = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert given <= options_of(*name.split()), f"{page}: alpaca-lora {line}"


def options_of(*name: str) -> set[str]:
    own = parser()
    for word in name:
        own = next(action for action in own._actions if word in (action.choices or ())).choices[word]
    return {option for action in own._actions for option in action.option_strings}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("```\nalpaca-lora recipes\n```", "page.md:1: a block of no language"),
        ("\n```sh\nmake test\n```", "page.md:2: a block of sh language"),
        ("```text\n$ alpaca-lora recipes\n```", "page.md:1: commands, but not as bash"),
        ("~~~console\n$ make test\n~~~", "page.md:1: a block of console language"),
        ("Text.\n\n    python x.py", "page.md:3: a command outside of a fenced block"),
        ("Text.\n\n<pre>python x.py</pre>", "page.md:3: a command outside of a fenced block"),
        ("- item\n\n    ```\n    make test\n    ```", "page.md:3: a block of no language"),
        ("<!-- not run: -->\n```bash\nmake test\n```", "page.md:1: not run, without a reason"),
        ("<!-- not run: needs a GPU -->\n\n```bash\nmake test\n```", "page.md:1: marks no block"),
        ("<!-- not run: needs a GPU -->\n```text\nLoss 1\n```", "page.md:1: a block of text is never run"),
    ],
)
def test_what_would_escape_is_an_error(text, said):
    with pytest.raises(AssertionError, match=re.escape(said)):
        blocks_of(text, "page.md")


@pytest.mark.parametrize(
    "command",
    [
        "torchrun --nproc_per_node 8 -m alpaca_lora finetune --recipe alpaca-7b --batch_sise 64",
        "OPENAI_API_KEY=k alpaca-lora compare a.json b.json --judgee m",
        "make tset",
        "python benchmarks/plan.py --rows 3",
    ],
)
def test_a_command_that_could_not_run_is_an_error(command):
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        read_bash(command)


def test_a_command_that_ends_otherwise_than_it_says_is_an_error(desk):
    in_this_process("alpaca-lora recipes")
    in_this_process("alpaca-lora recipes alpaca-7c  # exit code 1")
    for command in ("alpaca-lora recipes alpaca-7c", "alpaca-lora recipes  # exit code 1"):
        with pytest.raises(AssertionError, match="recipes"):
            in_this_process(command)


# What pages point to


def slugs(path: Path) -> set[str]:
    """Anchors of a page's headings, where GitHub and the site make the same of a heading; and of the API's objects."""
    text = re.sub(r"^( *)```.*?^\1```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    found = set(re.findall(r"^::: (\S+)", text, re.MULTILINE))
    for heading in re.findall(r"^#+ (.*)", text, re.MULTILINE):
        plain = re.sub(r"\[(.*?)\]\(.*?\)", r"\1", heading).strip().lower()
        github = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        if github == re.sub(r"[-\s]+", "-", github).strip("-"):
            found.add(github)
    return found


@pytest.mark.parametrize("page", [*PAGES, "CONTRIBUTING.md"])
def test_links_and_images_point_to_something(page):
    path = ROOT / page
    text = re.sub(r"^( *)```.*?^\1```|`[^`\n]*`", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    links = re.findall(r"\]\(<?([^)>\s]+)", text) + re.findall(r"^\[[^\]]+\]: (\S+)", text, re.MULTILINE)
    for link in links + re.findall(r"""(?:src|href)=["'](.*?)["']""", text):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = unquote(link).partition("#")
        there = (path.parent / target) if target else path
        assert there.exists(), f"{page}: {link}"
        assert not anchor or there.suffix != ".md" or anchor in slugs(there), f"{page}: {link}"


def test_what_the_readme_calls_by_name_exists():
    for name in re.findall(r"`((?:src|docs|tests|benchmarks|examples)/[^` ]*)`", PAGES["README.md"].read_text("utf-8")):
        assert (ROOT / name).exists(), name


def test_every_page_is_in_the_site_s_navigation():
    class Loader(yaml.SafeLoader):
        """Passes over the tags that mkdocs knows, such as !!python/name."""

    Loader.add_multi_constructor("", lambda loader, suffix, node: None)
    site = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader)

    def pages(entry: Any) -> Iterator[str]:
        if isinstance(entry, str):
            yield entry
        else:
            for below in entry.values() if isinstance(entry, dict) else entry:
                yield from pages(below)

    local = {f"docs/{page}" for page in pages(site["nav"]) if "://" not in page}
    assert local >= set(PAGES) - {"README.md"}
