"""Trackers that cannot start are told before the model is loaded and before a folder is made."""

from __future__ import annotations

import sys
import warnings

import pytest
from transformers.integrations import get_available_reporting_integrations
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from alpaca_lora import finetune
from alpaca_lora.errors import ConfigError
from alpaca_lora.training.trackers import check_trackers, tracker_names

BROKEN = "raise OSError('libcurl.so.4: cannot open shared object file')"
WITHOUT_KEY = "run = None\ndef login(**how):\n    raise RuntimeError('No API key configured. Use `wandb login`.')"
OFFLINE = "run = None\ndef login(**how):\n    return False"


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Puts a package on the path: a folder that Python finds and imports, as any other."""

    def install(name, source):
        (tmp_path / "site" / name).mkdir(parents=True)
        (tmp_path / "site" / name / "__init__.py").write_text(source, encoding="utf-8")
        monkeypatch.delitem(sys.modules, name, raising=False)
        monkeypatch.syspath_prepend(tmp_path / "site")

    before = set(sys.modules)
    yield install
    for name in {"wandb", "trackio", "codecarbon"} & (set(sys.modules) - before):
        del sys.modules[name]


def refused(out, report_to, **settings):
    """The problems; the base is nowhere, so loading anything would be another error."""
    with pytest.raises(ConfigError) as caught:
        finetune(base_model="/no/where", data="seeds", output_dir=out, report_to=report_to, **settings)
    assert not out.exists()
    return caught.value.problems


@pytest.mark.parametrize(
    ("report_to", "names"),
    [
        ("none", []),
        ([], []),
        (["none"], []),
        ("wandb", ["wandb"]),
        ("wandb, tensorboard", ["wandb", "tensorboard"]),
        (["mlflow", "mlflow"], ["mlflow"]),
    ],
)
def test_a_name_a_list_or_a_text_with_commas(report_to, names):
    assert tracker_names(report_to) == names


def test_misspelt_names_are_told_together(tmp_path):
    first, second, third, fourth = refused(tmp_path / "out", "tensorbord,WandB,comet,none")
    assert first.startswith("report_to: 'tensorbord' is no tracker. Did you mean 'tensorboard'? Trackers: azure_ml,")
    assert "'WandB' is no tracker. Did you mean 'wandb'?" in second
    assert "'comet' is no tracker. Did you mean 'comet_ml'?" in third
    assert fourth == "report_to: 'none' stands beside others. Leave it out, or give it alone."
    assert refused(tmp_path / "out", "")[0].startswith("report_to: '' is no tracker.")


def test_they_are_told_with_what_else_is_wrong(tmp_path):
    problems = refused(tmp_path / "out", "tensorbord", fsdp=True)
    assert [problem.split(":")[0] for problem in problems] == ["fsdp", "report_to"]


@pytest.mark.parametrize("name", INTEGRATION_TO_CALLBACK)
@pytest.mark.filterwarnings(
    "ignore:The NeptuneCallback", "ignore::pytest.PytestUnraisableExceptionWarning"
)  # their __del__
def test_a_missing_package(tmp_path, name):
    if name in get_available_reporting_integrations():
        pytest.skip(f"{name} is installed here")
    (problem,) = refused(tmp_path / "out", name)
    assert problem.startswith(f"report_to: {name!r} cannot be used here: ")
    assert "requires" in problem and problem.endswith(f". Mend that, or leave {name} out.")


def test_a_package_that_does_not_load(tmp_path, install):
    install("trackio", BROKEN)
    assert refused(tmp_path / "out", ["trackio"]) == [
        "report_to: 'trackio' cannot be used here: libcurl.so.4: cannot open shared object file. Mend that, or leave "
        "trackio out."
    ]


@pytest.mark.parametrize("report_to", ["wandb", "all"])
def test_no_key(tmp_path, install, report_to):
    install("wandb", WITHOUT_KEY)
    assert (
        "report_to: 'wandb' cannot be used here: No API key configured. Use `wandb login`. Mend that, or leave "
        in (refused(tmp_path / "out", report_to)[0])
    )


def test_offline_no_key_is_needed(install):
    install("wandb", OFFLINE)
    check_trackers("wandb")


def test_all_of_none(monkeypatch):
    monkeypatch.setattr("transformers.integrations.get_available_reporting_integrations", list)
    with pytest.warns(UserWarning, match="report_to: 'all', but no tracker is installed; nothing is reported"):
        check_trackers("all")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_trackers("none")


def test_a_tracker_is_told_of_the_run(install, short_base, records, tmp_path):
    seen = tmp_path / "seen.txt"
    install(
        "codecarbon",
        "class EmissionsTracker:\n"
        "    def __init__(self, output_dir):\n        pass\n"
        f"    def start(self):\n        open({str(seen)!r}, 'a').write('start ')\n"
        f"    def stop(self):\n        open({str(seen)!r}, 'a').write('stop')\n",
    )
    rows = [record._asdict() for record in records]
    settings = {"batch_size": 4, "max_steps": 1, "val_set_size": 0, "warmup_steps": 0, "report_to": ["codecarbon"]}
    finetune(base_model=short_base, data=rows, output_dir=tmp_path / "out", **settings)
    assert seen.read_text() == "start stop"
