"""Lets one Markdown text be read on GitHub and on the site: every link into the repository leads somewhere on both.

    in docs/                      on the site
    [text](data.md)               as it is
    [text](../CONTRIBUTING.md)    a page of the site, and so is CHANGELOG.md; there is no second text of them
    [text](../examples/x.py)      a page with the file's text, below source/; a notebook is copied there
    [text](../benchmarks/)        the text alone: a folder is no page
    [text](../absent.py)          left alone, so that the strict build stops and names it

A hook of mkdocs (mkdocs.yml); it runs in no other place.
"""

from __future__ import annotations

import re
from pathlib import Path
from posixpath import dirname, join, normpath, relpath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
ROOT_PAGES = {"contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
"""Pages of the site whose text stands in the repository's root."""

_LINK = re.compile(r"(?<!!)\[([^\[\]]+)\]\(([^)#:\s]+)(#[^)\s]*)?\)")
_LANGUAGES = {
    ".json": "json",
    ".jsonl": "json",
    ".md": "markdown",
    ".py": "python",
    ".sbatch": "bash",
    ".sh": "bash",
    ".toml": "toml",
    ".yaml": "yaml",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the root's pages, and every file of the repository that a page links."""
    for page, source in ROOT_PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    for file in list(files.documentation_pages()):
        for _, link, _ in _LINK.findall(file.content_string):
            name = _in_repository(file.src_uri, link)
            page = _on_site(name)
            if page.startswith("source/") and (ROOT / name).is_file() and not files.get_file_from_path(page):
                files.append(_source(config, name, page))
    return files


def on_page_markdown(markdown: str, page: Page, files: Files, **_: Any) -> str:
    """Turn links into the repository into links within the site."""

    def inside(match: re.Match[str]) -> str:
        text, link, anchor = match[1], match[2], match[3] or ""
        name = _in_repository(page.file.src_uri, link)
        if (ROOT / name).is_dir():
            return text
        target = _on_site(name)
        found = files.get_file_from_path(target)
        return f"[{text}]({relpath(target, dirname(page.file.src_uri) or '.')}{anchor})" if found else match[0]

    return markdown if page.file.src_uri.startswith("source/") else _LINK.sub(inside, markdown)


def _in_repository(page: str, link: str) -> str:
    """What a page's link names, as a path from the repository's root."""
    return normpath(join(dirname(ROOT_PAGES.get(page, f"docs/{page}")), link))


def _on_site(name: str) -> str:
    """Where a file of the repository is on the site."""
    pages = {"README.md": "index.md", **{source: page for page, source in ROOT_PAGES.items()}}
    if name.startswith("docs/"):
        return name.removeprefix("docs/")
    return pages.get(name) or f"source/{name}" + (".md" if Path(name).suffix in _LANGUAGES else "")


def _source(config: MkDocsConfig, name: str, page: str) -> File:
    """A file of the repository as a page, or as it is where it is no text to read."""
    if not page.endswith(".md"):
        return File.generated(config, page, abs_src_path=str(ROOT / name))
    text, language = (ROOT / name).read_text(encoding="utf-8").rstrip(), _LANGUAGES[Path(name).suffix]
    front = "---\nsearch:\n  exclude: true\n---\n"
    return File.generated(config, page, content=f"{front}# `{name}`\n\n`````{language}\n{text}\n`````\n")
