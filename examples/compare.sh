#!/usr/bin/env bash
# Two models, or two files of their answers, compared blind: by people in a browser, or by a judge.
#
#   examples/compare.sh FOLDER runs/mine demo                 # both answer; people open the address that is printed
#   examples/compare.sh FOLDER mine.json other.json           # answers that are there already
#   examples/compare.sh FOLDER runs/mine demo --judge NAME --base_url http://127.0.0.1:8000/v1   # key: OPENAI_API_KEY
#
# Models answer the packaged probe, or the file that INSTRUCTIONS names. What follows the two goes to `compare`.
# The same command goes on where it ended; FOLDER/report has the report, of people and judges both.
set -euo pipefail
folder=${1:?usage: examples/compare.sh FOLDER A B [options of compare]} first=${2:?and A} second=${3:?and B}
shift 3
mkdir -p "$folder"

if [[ $first != *.json ]]; then
  alpaca-lora answer "$first" "${INSTRUCTIONS:-probe}" "$folder/a.json"
  first=$folder/a.json
fi
if [[ $second != *.json ]]; then
  alpaca-lora answer "$second" "${INSTRUCTIONS:-probe}" "$folder/b.json"
  second=$folder/b.json
fi
if [ $# = 0 ]; then
  set -- --rate
fi
alpaca-lora compare "$first" "$second" --out "$folder/report" "$@"
