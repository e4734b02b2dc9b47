"""AlpacaEval's and FastChat's own code on our files, and ours on theirs: the figures side by side.

    python benchmarks/evaluators.py --results CLONE/results          # some two minutes on 2 cores, plus installing

CLONE is one of tatsu-lab/alpaca_eval; without --results its published annotations are left out. The first call installs
alpaca-eval 0.6.6 in an environment of its own, and FastChat 0.2.36 beside this one, both in --env (some 700 MB).
Nothing is asked of any server: the demo model answers, and AlpacaEval's judge is one that likes what it reads first.
Exit code 1 if two figures that should be equal are not. docs/judging.md has the table.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from alpaca_lora import answer
from alpaca_lora.evaluation.annotations import write_annotations
from alpaca_lora.evaluation.comparison import Comparison
from alpaca_lora.evaluation.outputs import read_outputs
from alpaca_lora.evaluation.preferences import Preferences, read_preferences
from alpaca_lora.evaluation.statistics.intervals import WinRate
from alpaca_lora.evaluation.statistics.summary import summarize
from alpaca_lora.evaluation.statistics.votes import Vote

ALPACA_EVAL, SETUPTOOLS, FASTCHAT = "alpaca-eval==0.6.6", "setuptools<81", "fschat==0.2.36"  # pkg_resources went in 82

INSTRUCTIONS = [
    {"instruction": "Add the numbers.", "input": "2, 3", "category": "maths"},
    {"instruction": "Add the numbers.", "input": "10, 20, 30", "category": "maths"},
    *(
        {"instruction": f"Name three {things}.", "category": "lists"}
        for things in ("fruits", "rivers", "tools", "birds")
    ),
    {"instruction": "Why is the sky blue?", "category": "science"},
    {"instruction": "Is this a fruit?", "input": "potato", "category": "science"},
]
QUESTIONS = [
    {"question_id": 81, "category": "writing", "turns": ["Write a sentence about rain.", "Now in capital letters."]},
    {"question_id": 82, "category": "humanities", "turns": ["Who was Napoleon?", "Where did he die?"]},
    {"question_id": 83, "category": "stem", "turns": ["What is a whale?"]},
]

# What AlpacaEval's process prints: its figures, as JSON. The judge is AlpacaEval's own stand-in for tests: always the
# same words, while AlpacaEval draws which answer stands first.
IN_ALPACA_EVAL = """
import json, os, sys
import pandas, yaml
import alpaca_eval
from alpaca_eval import metrics, utils
from alpaca_eval.metrics import glm_winrate

asked, folder = json.loads(sys.argv[1]), sys.argv[2]
prompts = os.path.join(os.path.dirname(alpaca_eval.__file__), "evaluators_configs", "text_davinci_003")
os.makedirs(f"{folder}/first", exist_ok=True)
outputs = {1: r"(?:^|\\n) ?Output \\(a\\)", 2: r"(?:^|\\n) ?Output \\(b\\)"}
judge = {"prompt_template": f"{prompts}/basic_prompt.txt", "fn_completions": "test_completions", "batch_size": 1}
judge |= {"completions_kwargs": {"value": "Output (a)"}, "completion_parser_kwargs": {"outputs_to_match": outputs}}
yaml.safe_dump({"first": judge}, open(f"{folder}/first/configs.yaml", "w"))

def minimal(annotations):
    # The only length-controlled figure of a pair by itself; the file that all such figures fetch does not enter it.
    none = {"model": "", "index": range(len(annotations)), "instruction_difficulty": 0.0}
    pandas.DataFrame(none).to_csv(f"{folder}/g.csv")
    glm_winrate.hf_hub_download = lambda **_: f"{folder}/g.csv"
    named = {"glm_name": "length_controlled_minimal", "save_weights_dir": None}
    return metrics.get_length_controlled_winrate(annotations, **named)

def figures(path, controlled=False):
    annotations = utils.load_or_convert_to_dataframe(path)
    return (minimal if controlled else metrics.get_winrate)(annotations)

found = {}
if asked["published"]:
    found["published"] = figures(asked["published"], controlled=True)
if asked["model"]:
    board, annotations = alpaca_eval.evaluate(
        model_outputs=asked["model"], reference_outputs=asked["reference"], annotators_config=f"{folder}/first",
        fn_metric="get_winrate", sort_by="win_rate", precomputed_leaderboard=None, output_path=folder,
        is_return_instead_of_print=True, caching_path=None)
    found["evaluated"] = board.iloc[0].to_dict() | {"pairs": len(annotations)}
if asked["judged"]:
    found["judged"] = figures(asked["judged"])
print("FOUND", json.dumps(found, default=float))
"""
IN_FASTCHAT = """
import argparse, contextlib, io, json, sys
from fastchat.llm_judge import common, show_result

folder = sys.argv[1]
questions = common.load_questions(f"{folder}/question.jsonl", None, None)
answers = common.load_model_answers(f"{folder}/model_answer")
common.check_data(questions, answers, {}, list(answers), {})
turns = {name: {id: row["choices"][0]["turns"] for id, row in own.items()} for name, own in answers.items()}

def shown(function, file):
    out = io.StringIO()
    given = dict(input_file=f"{folder}/{file}", bench_name="mt_bench", judge_model="gpt-4", model_list=None)
    with contextlib.redirect_stdout(out):
        function(argparse.Namespace(**given, baseline_model=None))
    lines = [line.split() for line in out.getvalue().splitlines()]
    return {line[0]: float(line[-1]) for line in lines if len(line) > 1 and line[0] in ("x", "y")}

pair = shown(show_result.display_result_pairwise, "pair.jsonl")
single = shown(show_result.display_result_single, "single.jsonl")
print("FOUND", json.dumps({"turns": turns, "pair": pair, "single": single}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, help="folder `results` of a clone of tatsu-lab/alpaca_eval")
    parser.add_argument("--env", type=Path, default=Path("runs/evaluators"), help="where the two are installed")
    asked = parser.parse_args()
    table = Table()
    with tempfile.TemporaryDirectory() as name:
        alpaca_eval(asked.env, Path(name), asked.results, table)
        fastchat(asked.env, Path(name), table)
    print(table.text)
    sys.exit(table.differ)


class Table:
    """Rows of two figures each; `differ` is 1 once two of them are not the same."""

    def __init__(self) -> None:
        self.rows, self.differ = ["| what | theirs | ours |", "|---|---:|---:|"], 0

    def add(self, what: str, theirs: float, ours: float, tolerance: float = 1e-6) -> None:
        same = abs(theirs - ours) <= tolerance
        self.rows.append(f"| {what} | {theirs:.4g} | {ours:.4g} |{'' if same else ' **not the same**'}")
        self.differ |= not same

    def win_rate(self, what: str, theirs: dict[str, Any], ours: WinRate) -> None:
        for key, value in (("win_rate", ours.rate), ("standard_error", ours.standard_error or 0.0)):
            self.add(f"{what}: `{key}`", round(theirs[key], 2), round(100 * value, 2))
        for key, count in (("n_wins", ours.wins), ("n_wins_base", ours.losses), ("n_draws", ours.ties)):
            self.add(f"{what}: `{key}`", theirs[key], count)

    @property
    def text(self) -> str:
        return "\n".join(self.rows)


def alpaca_eval(env: Path, work: Path, results: Path | None, table: Table) -> None:
    python = env / "alpaca_eval" / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", env / "alpaca_eval"], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", ALPACA_EVAL, SETUPTOOLS], check=True)
    published = results / "alpaca-7b" / "alpaca_eval_gpt4" / "annotations.json" if results else None
    files = [answers(work / f"{name}.json", INSTRUCTIONS, template) for name, template in TEMPLATES.items()]

    def run(**given: Any) -> dict[str, Any]:
        paths = {key: str(given[key].resolve()) if given.get(key) else "" for key in KEYS}
        return found_by([python, "-c", IN_ALPACA_EVAL, json.dumps(paths), work.resolve()])

    first = run(published=published, model=files[0], reference=files[1])
    if published:
        ours = summarize(read_preferences(published).votes)
        table.win_rate("alpaca-7b, published", first["published"], ours.overall)
        assert ours.controlled is not None
        theirs = first["published"]["length_controlled_winrate"]  # by a regression with L1, chosen by cross-validation
        table.add("alpaca-7b, at equal length", round(theirs, 1), round(100 * ours.controlled.rate, 1), tolerance=0.5)
    table.add("our answers: pairs", first["evaluated"]["pairs"], len(INSTRUCTIONS))
    said = read_preferences(work / "annotations.json")
    table.win_rate("our answers, judged there", first["evaluated"], summarize(said.votes).overall)
    judged = written(files, said, work)
    second = run(judged=judged)
    table.win_rate("`annotations-judge.json`", second["judged"], summarize(read_preferences(judged).votes).overall)


KEYS = ("published", "model", "reference", "judged")
TEMPLATES = {"demo-alpaca": "alpaca", "demo-chat": "chat"}


def answers(path: Path, rows: list[dict[str, Any]], template: str) -> Path:
    """The demo model's answers through a template; they are called as their file, so that the two differ."""
    asked = path.with_suffix(".asked.jsonl")
    asked.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    answer("demo", asked, path, prompt_template=template, max_new_tokens=48)
    if path.suffix == ".json":
        made = [{**row, "generator": path.stem} for row in json.loads(path.read_text(encoding="utf-8"))]
        named = path.with_suffix(".named.json")
        named.write_text(json.dumps(made), encoding="utf-8")
        return named
    return path


def written(files: list[Path], said: Preferences, work: Path) -> Path:
    """AlpacaEval's verdicts as votes of a comparison of ours, written as a comparison writes them."""
    comparison = Comparison.open(work / "comparison", *files)
    names = {made.asked.text: pair.id for made, pair in zip(read_outputs(files[0]), comparison.pairs, strict=True)}
    votes = [Vote(names[one.item], "first", comparison.a, comparison.b, one.preference) for one in said.votes]
    write_annotations(work / "annotations-judge.json", comparison, votes)
    return work / "annotations-judge.json"


def fastchat(env: Path, work: Path, table: Table) -> None:
    place = env / "fastchat"
    if not place.exists():
        needed = [FASTCHAT, "anthropic", "shortuuid"]
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps"]
        subprocess.run([*pip, "--target", place, *needed], check=True)
    (work / "model_answer").mkdir()
    made = answers(work / "model_answer" / "demo.jsonl", QUESTIONS, "chat")
    made.with_suffix(".asked.jsonl").rename(
        work / "question.jsonl"
    )  # FastChat takes every .jsonl for a model's answers
    draw = random.Random(0)
    games = [judged(draw, question, turn) for question in range(81, 161) for turn in (1, 2)]
    grades = [
        {"question_id": question, "model": model, "judge": ["gpt-4", "single-v1"], "score": score, "turn": turn}
        for question in range(81, 161)
        for turn in (1, 2)
        for model, score in (("x", draw.choice((-1, 3, 5, 8))), ("y", draw.choice((-1, 2, 5, 7))))
    ]
    for name, rows in (("pair", games), ("single", grades)):
        (work / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    theirs = found_by([sys.executable, "-c", IN_FASTCHAT, work], PYTHONPATH=str(place))
    said = [json.loads(line) for line in made.read_text(encoding="utf-8").splitlines()]
    own = {str(row["question_id"]): row["choices"][0]["turns"] for row in said}
    read = theirs["turns"]["demo"]
    table.add("MT-bench answers read: turns", sum(map(len, read.values())), sum(map(len, own.values())))
    table.differ |= read != own
    overall = summarize(read_preferences(work / "pair.jsonl").votes).overall
    table.add("MT-bench pairs: `win_rate_adjusted`", theirs["pair"][overall.a], overall.rate, tolerance=1e-5)
    scores = read_preferences(work / "single.jsonl").scores
    for model in ("x", "y"):
        given = [score for turn in scores[model].values() for score in turn]
        table.add(f"MT-bench mean score of {model}", theirs["single"][model], sum(given) / len(given), tolerance=1e-5)


def judged(draw: random.Random, question: int, turn: int) -> dict[str, Any]:
    winners = {f"g{k}_winner": draw.choice(("model_1", "model_1", "model_2", "tie", "error")) for k in (1, 2)}
    row = {"question_id": question, "model_1": "x", "model_2": "y", **winners, "judge": ["gpt-4", "pair-v2"]}
    return {**row, "turn": turn}


def found_by(command: list[Any], **variables: str) -> dict[str, Any]:
    """What a program prints after FOUND."""
    environment = {**os.environ, "IS_ALPACA_EVAL_2": "False", "PYTHONPATH": "", **variables}
    done = subprocess.run([*map(str, command)], env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr[-3000:])
    return json.loads(next(line for line in done.stdout.splitlines() if line.startswith("FOUND "))[6:])


if __name__ == "__main__":
    main()
