#!/usr/bin/env bash
# From seeds to an adapter in three commands: a model writes records, they are checked, another model is tuned on them.
#
#   OPENAI_API_KEY=... examples/self_instruct.sh FOLDER --model NAME --max_cost 5 --price_in 0.15 --price_out 0.6
#   OPENAI_BASE_URL=http://127.0.0.1:8000/v1 examples/self_instruct.sh FOLDER --model NAME    # any compatible server
#   examples/self_instruct.sh FOLDER --base_model demo --num_records 2 --concurrency 2        # no server: minutes
#
# What follows FOLDER goes to `self-instruct run`. BASE is tuned: a hub id, a folder, or the demo model if left out.
# The same command goes on where it ended.
set -euo pipefail
folder=$1
shift

if [[ " $* " != *" --num_records"* ]]; then
  set -- --num_records 200 "$@"
fi
alpaca-lora self-instruct run "$folder" "$@"
alpaca-lora self-instruct report "$folder"

rm -f "$folder"/clean.json "$folder"/clean.lint.json  # made anew, since there may be more records
alpaca-lora lint "$folder/records.jsonl" --fix "$folder/clean.json" \
  || echo "Some errors are left, which only reading mends: $folder/clean.lint.json has their numbers."

alpaca-lora finetune --data "$folder/clean.json" --base_model "${BASE:-demo}" --output_dir "$folder/adapter" \
  --batch_size 2 --val_set_size 0 --resume auto
