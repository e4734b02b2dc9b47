"""What to measure: lm-eval's tasks by name, YAML files of tasks, and folders of such files, loaded with their data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ...errors import ConfigError, DataError, HubError, MissingDependencyError, did_you_mean

_YAML = (".yaml", ".yml")


def load_tasks(names: Sequence[str]) -> list[Any]:
    """lm-eval's tasks and groups of tasks.

    Raises:
        ConfigError: no task, one that lm-eval does not know or that is not run here, or two of the same name.
        DataError: a task's file or its data cannot be used.
        HubError: a task's data are on the hub, which cannot be reached.
    """
    if not names:
        raise ConfigError("tasks: is empty. Name a task, such as arc_easy, or a YAML file of one.")
    from lm_eval.tasks import TaskManager

    paths = {name: Path(name).expanduser() for name in names}
    folders = [path.resolve() for path in paths.values() if path.is_dir()]
    own = [name for name, path in paths.items() if path.is_dir() or name.endswith(_YAML)]
    # To read what lm-eval knows takes seconds: left out where only files are named.
    manager = TaskManager(include_path=folders, include_defaults=len(own) < len(paths))
    specs: list[str] = []
    problems: list[str] = []
    for name, path in paths.items():
        if path.is_dir():
            inside = _tasks_in(manager.task_index, path.resolve())
            specs += inside
            problems += [] if inside else [f"tasks: {name}: no YAML file below this folder is a task."]
        elif name in own:
            specs.append(str(path))
            if not path.is_file():
                problems.append(f"tasks: {name}: no such file. Name a task's YAML file, or a task that lm-eval has.")
        else:
            specs.append(name)
            problems += [] if name in manager.task_index else [_unknown(name, manager.all_tasks)]
    if problems:
        raise ConfigError(problems)
    found = [one for spec in specs for one in _loaded(spec, manager.load)]
    _check([task for one in found for task in (one.get_all_tasks() if hasattr(one, "get_all_tasks") else [one])])
    return found


def _tasks_in(known: Any, folder: Path) -> list[str]:
    """Names of the groups whose files are below a folder, and of the tasks that are in none of these groups."""
    inside = {name: entry for name, entry in known.items() if entry.yaml_path and folder in entry.yaml_path.parents}
    taken = {*_members([entry.cfg["task"] for entry in inside.values() if entry.kind.name == "GROUP"])}
    return [name for name in inside if name not in taken]


def _members(entries: Any) -> Iterator[str]:
    """Names of the tasks and groups that a group's file lists."""
    for one in [entries] if isinstance(entries, str | dict) else entries:
        if isinstance(one, str):
            yield one
        else:
            yield from _members(one if isinstance(one, list) else [one[key] for key in ("group", "task") if key in one])


def _unknown(name: str, known: Sequence[str]) -> str:
    return (
        f"tasks: lm-eval knows no task {name!r}.{did_you_mean(name, known)} Give a name (`lm_eval ls tasks` lists them "
        "all), a YAML file of a task, or a folder of such files."
    )


def _loaded(spec: str, load: Callable[[list[str]], Any]) -> list[Any]:
    """A task or a group, as a list; of a tag, which only stands for some tasks, all of these."""
    from datasets.exceptions import DatasetNotFoundError

    try:
        found = load([spec])
    except ModuleNotFoundError as error:
        raise MissingDependencyError(f"task {spec}: needs the package {error.name}. Install it with pip.") from error
    except (DatasetNotFoundError, ConnectionError) as error:
        raise HubError(
            f"task {spec}: its data are on the hub, and cannot be had: {reason(error)}. Measure once where the hub can "
            "be reached, and the cache has them; or name a task of your own, with its data on this machine."
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # whatever a YAML file, its functions and the builders of `datasets` run into
        raise DataError(f"task {spec}: cannot be loaded: {reason(error)}.") from error
    groups, tasks = found.get("groups") or {}, found["tasks"]
    inner = {name for group in groups.values() for name in group.child_names}
    return [one for name, one in (groups or tasks).items() if name not in inner]


def _check(tasks: Sequence[Any]) -> None:
    names = [task.task_name for task in tasks]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"tasks: {twice[0]} is there twice: by itself and in a group, or in two files. Leave one.")
    if unsafe := [task.task_name for task in tasks if getattr(task, "UNSAFE_CODE", False)]:
        raise ConfigError(
            f"tasks: {unsafe[0]} runs code that the model writes, which is not done here. Merge the adapter, and run "
            "lm_eval --model hf on the merged folder, where nothing can be broken."
        )


def reason(error: Exception) -> str:
    """Why, in a line without a full stop."""
    return " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__
