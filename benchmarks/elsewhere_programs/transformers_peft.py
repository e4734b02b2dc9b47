"""transformers and peft as their documentation has it: a folder, or an adapter on its base.

    python transformers_peft.py JOB.json RESULT.json      # benchmarks/elsewhere.py says what is in the two

The tokenizer, with its chat template, is that of the adapter's folder.
"""

import json
import sys
from importlib.metadata import version
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def main() -> None:
    """One job."""
    with open(sys.argv[1], encoding="utf-8") as file:
        job = json.load(file)
    model: Any = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32)
    if job["adapters"]:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, job["adapters"][0])
    model.eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(job["tokenizer"])
    ends = model.generation_config.eos_token_id
    answers = []
    for request in job["requests"]:
        given = tokenizer.apply_chat_template(
            request["messages"], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        start = given["input_ids"].shape[1]
        with torch.no_grad():
            out = model.generate(**given, do_sample=False, max_new_tokens=job["max_new_tokens"])[0]
            whole = torch.tensor([request["prompt_ids"] + request["forced"]])
            count = len(request["forced"])
            logits = model(input_ids=whole).logits[0, -count - 1 : -1].float()
        values, ids = logits.log_softmax(-1).topk(job["top"], dim=-1)
        pairs = zip(ids.tolist(), values.tolist(), strict=True)
        made = out[start:].tolist()
        answers.append(
            {
                "prompt_ids": given["input_ids"][0].tolist(),
                "ids": made,
                "text": tokenizer.decode(made, skip_special_tokens=True),
                "stop": "stop" if made[-1] in (ends if isinstance(ends, list) else [ends]) else "length",
                "likely": [dict(zip(map(str, row), value, strict=True)) for row, value in pairs],
            }
        )
    versions = {name: version(name) for name in ("transformers", "peft", "torch")}
    with open(sys.argv[2], "w", encoding="utf-8") as file:
        json.dump({"versions": versions, "answers": answers}, file)


if __name__ == "__main__":
    main()
