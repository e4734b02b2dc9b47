"""A run as a notebook shows it."""

from __future__ import annotations

import json
import re
import shutil
from base64 import b64decode
from html.parser import HTMLParser

import pytest

from alpaca_lora import Run, finetune, plot_runs
from alpaca_lora.errors import ConfigError


@pytest.fixture(scope="module")
def run(short_base, records, tmp_path_factory):
    rows = [record._asdict() for record in records]
    out = tmp_path_factory.mktemp("runs") / "a <b> & c"
    settings = {"val_set_size": 2, "batch_size": 4, "max_steps": 2, "lora_r": 4, "dtype": "float32"}
    return finetune(base_model=short_base, data=rows, output_dir=out, **settings)


class Text(HTMLParser):
    """Text and tags of a page."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.text.append(data)


def test_the_card_shows_settings_metrics_folder_and_the_loss(run):
    page = run._repr_html_()
    shown = Text(page)
    assert str(run.output_dir) in shown.text  # its name holds characters of HTML
    assert set(shown.tags) == {"div", "table", "caption", "b", "tr", "th", "td", "img"}
    said = dict(zip(shown.text, shown.text[1:], strict=False))
    assert said["lora_r"] == "4" and said["steps"] == "2" and said["batch_size"] == "4"
    before, after = said["validation loss"].split(" -> ")
    assert float(before) == pytest.approx(run.metrics["eval_loss_before"], abs=1e-4)
    assert float(after) == pytest.approx(run.metrics["eval_loss_after"], abs=1e-4)
    assert "lora_alpha" not in said  # a default
    (picture,) = re.findall(r"base64,([^\"]+)", page)
    assert b64decode(picture).startswith(b"\x89PNG")


def test_its_line_of_text(run):
    assert str(Run(str(run.output_dir))) == str(run)
    assert str(run).startswith(f"Run {run.output_dir}: steps: 2; training loss, last step: ")


def test_an_unfinished_run_says_how_far_it_came(run, tmp_path):
    folder = tmp_path / "stopped"
    shutil.copytree(run.output_dir, folder)
    content = json.loads((folder / "alpaca_lora.json").read_text())
    del content["metrics"]
    (folder / "alpaca_lora.json").write_text(json.dumps({**content, "finished": False}))
    assert "unfinished: 2 steps in its history; the same settings with resume='auto' go on" in str(Run(folder))
    assert "unfinished" in Text(Run(folder)._repr_html_()).text


def test_a_folder_without_a_run(tmp_path):
    assert str(Run(tmp_path)) == f"Run {tmp_path}: alpaca_lora.json: not there yet."
    assert "not there yet" in Run(tmp_path)._repr_html_()


def test_metrics_of_what_is_no_finished_run(run, tmp_path):
    with pytest.raises(ConfigError, match="holds no run .no alpaca_lora.json"):
        _ = Run(tmp_path).metrics
    content = json.loads((run.output_dir / "alpaca_lora.json").read_text())
    del content["metrics"]
    (tmp_path / "alpaca_lora.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match="unfinished: 0 steps .* Metrics are of finished runs"):
        _ = Run(tmp_path).metrics


def test_the_history_as_a_table(run):
    table = run.to_pandas()
    assert list(table["step"]) == [0, 1, 2, 2]
    assert table["loss"].dropna().tolist() == [line["loss"] for line in run.history if "loss" in line]
    assert table["eval_loss"].dropna().iloc[-1] == run.metrics["eval_loss_after"]


def test_several_runs_in_one_picture(run, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(run.output_dir, other)
    (axes,) = plot_runs([run, other]).axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a <b> & c", "other"]
    assert len(axes.lines) == 4  # training and validation of each
    assert axes.lines[0].get_xdata().tolist() == [1, 2] and axes.lines[1].get_xdata().tolist() == [0, 2]
    (axes,) = plot_runs({"first": run, "second": other}).axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["first", "second"]
    assert plot_runs(run)._repr_png_().startswith(b"\x89PNG")


def test_pictures_of_nothing_are_refused(run, tmp_path):
    with pytest.raises(ConfigError, match=f"no history.jsonl of a run in {tmp_path}"):
        plot_runs([run, tmp_path])
    with pytest.raises(ConfigError, match="give one run or more"):
        plot_runs([])
    with pytest.raises(ConfigError, match="two have the same name .* give a dict of names"):
        plot_runs([run, run])
