"""The pictures of the report: counts in, SVG out, with text as text and nothing to be loaded."""

from __future__ import annotations

import io
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

ACCEPTED = "accepted"
_BARS = 60  # maximum, over a whole run
_REASONS = 8  # with a colour of their own; the rest are together
_VERBS, _OBJECTS = 20, 4  # as in the picture of Alpaca's README
_OTHERS = "other reasons"


def lengths(words: Mapping[str, Sequence[int]], records: int) -> str:
    """Histograms of the words of each field, of those records that have the field."""
    import numpy

    figure = _figure(4.6)
    for axes, (name, counts) in zip(figure.subplots(len(words)), words.items(), strict=True):
        edges = {round(edge) for edge in numpy.geomspace(1, max([10, *counts]) + 1, 30)}
        axes.hist(counts, bins=[edge - 0.5 for edge in sorted(edges)], color="#2563eb")
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.set_xscale("log")
        ticks = [
            power * step for power in (1, 10, 100, 1000) for step in (1, 2, 5) if power * step <= max([10, *counts])
        ]
        axes.set_xticks(ticks, labels=[f"{tick:,}" for tick in ticks])
        axes.xaxis.set_tick_params(which="minor", bottom=False, labelbottom=False)
        axes.set_ylim(0, None if counts else 1)
        share = "" if len(counts) == records else f" ({len(counts):,} records have one)"
        axes.set_title(name + share, loc="left")
    axes.set_xlabel("words")
    return _svg(figure)


def similarity(scores: Sequence[float], threshold: float) -> str:
    """A histogram of ROUGE-L, and where rejection begins."""
    figure = _figure(3.2)
    axes = figure.add_subplot()
    axes.hist(scores, bins=[number / 40 for number in range(41)], color="#2563eb")
    axes.axvline(threshold, color="#b91c1c", linestyle="--", label=f"rejected from {threshold:g} on")
    axes.set_xlim(0, 1)
    axes.set_xlabel("highest ROUGE-L to the seeds and earlier records")
    axes.set_ylabel("records")
    axes.yaxis.get_major_locator().set_params(integer=True)
    figure.legend(loc="outside upper right", frameon=False, fontsize=8)
    return _svg(figure)


def outcomes(answers: Sequence[Mapping[str, int]]) -> str:
    """The fate of the candidates of each answer, in order: a mean of neighbours if there are many answers.

    Args:
        answers: ACCEPTED and reasons -> count, for each answer; at least one.
    """
    import pandas

    counts = pandas.DataFrame(answers).fillna(0)
    reasons = counts.drop(columns=ACCEPTED).sum().sort_values(ascending=False, kind="stable").index
    named = [ACCEPTED, *reasons[:_REASONS]]
    if len(reasons) > _REASONS:
        counts[_OTHERS] = counts[reasons[_REASONS:]].sum(axis=1)
        named.append(_OTHERS)
    width = -(-len(counts) // _BARS)
    bars = counts[named].groupby(counts.index // width)
    means, middles = bars.mean(), width * bars.size().index + bars.size() / 2
    figure = _figure(3.8)
    axes = figure.add_subplot()
    floor = 0 * middles
    for name, colour in zip(named, ["#15803d", *_colours("tab10", _REASONS + 3)[3:]], strict=False):
        axes.bar(middles, means[name], width=width * 0.92, bottom=floor, color=colour, label=name)
        floor = floor + means[name]
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("answers, in order")
    axes.set_ylabel("candidates per answer")
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return _svg(figure)


def sunburst(openings: Mapping[tuple[str, str], int]) -> str:
    """The most frequent verbs inside, and the most frequent objects of each around them."""
    verbs: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for (verb, noun), count in openings.items():
        verbs[verb][noun] += count
    chosen = sorted(verbs, key=lambda verb: (-verbs[verb].total(), verb))[:_VERBS]
    figure = _figure(5.0)
    axes = figure.add_subplot()
    inner: list[tuple[int, str, Any]] = []
    outer: list[tuple[int, str, Any]] = []
    for verb, colour in zip(chosen, _colours("tab20", _VERBS), strict=False):
        top = verbs[verb].most_common(_OBJECTS)
        inner.append((sum(count for _, count in top), verb, colour))
        outer += [(count, noun, (*colour[:3], 0.6)) for noun, count in top]
    for ring, radius, share in ((inner, 0.62, 0.7), (outer, 1.0, 0.78)):
        whole = sum(size for size, _, _ in ring)
        axes.pie(
            [size for size, _, _ in ring],
            labels=[word if size / whole > 0.008 else "" for size, word, _ in ring],
            colors=[colour for _, _, colour in ring],
            radius=radius,
            labeldistance=share,
            rotatelabels=True,
            startangle=90,
            counterclock=False,
            wedgeprops={"width": 0.38, "edgecolor": "white", "linewidth": 0.6},
            textprops={"fontsize": 7, "va": "center", "ha": "center", "rotation_mode": "anchor"},
        )
    axes.set_xlim(-1, 1)
    axes.set_ylim(-1, 1)
    return _svg(figure)


def _colours(name: str, count: int) -> list[Any]:
    from matplotlib import colormaps

    return [colormaps[name](number) for number in range(count)]


def _figure(height: float) -> Any:
    from matplotlib.figure import Figure  # no pyplot: no global state, no display needed

    return Figure(figsize=(5, height), layout="constrained", facecolor="none")


def _svg(figure: Any) -> str:
    """The figure as an element of a page: no prologue, no names that another picture has too."""
    from matplotlib import rc_context

    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.title.set_fontsize(10)
    text = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with rc_context({"svg.fonttype": "none", "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"]}):
        figure.savefig(text, format="svg", metadata=nothing)
    svg = text.getvalue()
    return re.sub(r'<g id="[^"]*"', "<g", svg[svg.index("<svg") :])
