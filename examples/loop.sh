#!/usr/bin/env bash
# The loop: two models answer, a judge says which answers are better, one of the models is trained on that, and both it
# and what it was before are judged on other questions.
#
#   examples/loop.sh FOLDER                          # the demo model and a scripted judge
#   ADAPTER=runs/mine OTHER=runs/first QUESTIONS=asked.json HELD_OUT=others.json JUDGE=NAME \
#     JUDGE_URL=http://127.0.0.1:8000/v1 examples/loop.sh FOLDER --learning_rate 5e-6      # key: OPENAI_API_KEY
#
# What follows FOLDER goes to the `finetune` of preferences. The same command goes on where it ended. For another round,
# ADAPTER is FOLDER/better, and questions and FOLDER are new.
set -euo pipefail
folder=${1:?usage: examples/loop.sh FOLDER [options of finetune]}
shift
examples=$(dirname "$0")
mkdir -p "$folder"

BASE=${BASE:-demo}                        # of the adapter that is made where ADAPTER names none
ADAPTER=${ADAPTER:-}                      # what is trained on the judge's verdicts
OTHER=${OTHER:-$BASE}                     # whose answers stand against its
QUESTIONS=${QUESTIONS:-}                  # instructions whose answers are trained on; a third of the built-in ones
HELD_OUT=${HELD_OUT:-probe}               # others, on which the result is judged
START_STEPS=${START_STEPS:-12}            # optimizer steps of the adapter that is made
MAX_NEW_TOKENS=${MAX_NEW_TOKENS:-96}      # of an answer
JUDGE=${JUDGE:-shorter}                   # name of the judging model at JUDGE_URL
JUDGE_URL=${JUDGE_URL:-}                  # of an OpenAI-compatible server; if left out, one that likes short answers

stage() { printf '\n== %s\n' "$*"; }
answers() { alpaca-lora answer "$1" "$2" "$3" --max_new_tokens "$MAX_NEW_TOKENS"; }
judged() { alpaca-lora compare "$1" "$2" --out "$3" --judge "$JUDGE" --base_url "$JUDGE_URL"; }

if [ -z "$JUDGE_URL" ]; then
  exec 3< <(exec python "$examples/scripted_judge.py")
  trap "kill $!" EXIT
  read -r JUDGE_URL <&3
fi

if [ -z "$ADAPTER" ] || [ -z "$QUESTIONS" ]; then
  python - "$folder" <<'END'
import json, sys
from alpaca_lora import load_records

rows = [record._asdict() for record in load_records("seeds").records]
parts = {"questions": rows[::3], "learned": [row for number, row in enumerate(rows) if number % 3]}
for name, part in parts.items():
    with open(f"{sys.argv[1]}/{name}.json", "w", encoding="utf-8") as file:
        json.dump(part, file)
END
fi
QUESTIONS=${QUESTIONS:-$folder/questions.json}
if [ -z "$ADAPTER" ]; then
  stage "1 of 6: an adapter to begin with"
  ADAPTER=$folder/start
  alpaca-lora finetune --base_model "$BASE" --data "$folder/learned.json" --output_dir "$ADAPTER" --resume auto \
    --max_steps "$START_STEPS" --batch_size 10 --learning_rate 5e-4 --lora_target_modules all-linear --val_set_size 0
fi

stage "2 of 6: $ADAPTER and $OTHER answer $QUESTIONS"
answers "$ADAPTER" "$QUESTIONS" "$folder/mine.json"
answers "$OTHER" "$QUESTIONS" "$folder/other.json"

stage "3 of 6: $JUDGE says which answer is better"
judged "$folder/mine.json" "$folder/other.json" "$folder/verdicts"

stage "4 of 6: DPO on its verdicts"
for setting in "batch_size 8" "num_epochs 3" "learning_rate 1e-4" "lora_dropout 0" "val_set_size 0.1"; do
  if [[ " $* " != *" --${setting% *}"[\ =]* ]]; then
    set -- "$@" "--${setting% *}" "${setting#* }"
  fi
done
alpaca-lora finetune --adapter "$ADAPTER" --objective dpo --data "$folder/verdicts" --output_dir "$folder/better" \
  --resume auto "$@"

stage "5 of 6: before and after answer $HELD_OUT"
answers "$ADAPTER" "$HELD_OUT" "$folder/before.json"
answers "$folder/better" "$HELD_OUT" "$folder/after.json"

stage "6 of 6: $JUDGE says which of those is better"
judged "$folder/after.json" "$folder/before.json" "$folder/after-vs-before"
