"""llama.cpp, through its own server inside the package xllamacpp: answers of a GGUF file, and what it finds likely.

    python llama_cpp.py JOB.json RESULT.json      # benchmarks/elsewhere.py says what is in the two

Messages go in as a chat client sends them: the file's own template and tokenizer make the prompt. `exact` in the job
keeps keys and values in float32; llama.cpp's default is half precision.
"""

import json
import sys
import urllib.request
from importlib.metadata import version
from typing import Any

import xllamacpp as llama

GREEDY = {"temperature": 0, "repeat_penalty": 1, "cache_prompt": False}


def server_for(job: dict[str, Any]) -> Any:
    """A server of the job's file, for one request at a time."""
    params = llama.CommonParams()
    params.model.path = job["model"]
    params.n_ctx, params.n_parallel, params.warmup, params.verbosity = job["context"], 1, False, -1
    if job.get("threads"):
        params.cpuparams.n_threads = job["threads"]
    if job.get("exact"):
        params.cache_type_k = params.cache_type_v = llama.ggml_type.GGML_TYPE_F32
        params.flash_attn_type = llama.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    return llama.Server(params)


def posted(server: Any, path: str, body: dict[str, Any]) -> Any:
    """What the server's own address answers to a request."""
    request = urllib.request.Request(
        server.listening_address + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def answer(server: Any, messages: list[dict[str, str]], limit: int) -> dict[str, Any]:
    """Prompt and greedy answer to a conversation."""
    prompt = posted(server, "/apply-template", {"messages": messages})["prompt"]
    ids = posted(server, "/tokenize", {"content": prompt, "add_special": True, "parse_special": True})["tokens"]
    told = posted(server, "/v1/chat/completions", {"messages": messages, "max_tokens": limit, **GREEDY})
    assert told["usage"]["prompt_tokens"] == len(ids), "its template gives other tokens than it was asked with"
    # Only this path tells ids, of tokens that are a part of a character too.
    again = posted(server, "/completion", {"prompt": ids, "n_predict": limit, "return_tokens": True, **GREEDY})
    choice = told["choices"][0]
    assert again["content"].strip() == choice["message"]["content"].strip(), "a conversation is answered otherwise"
    return {
        "prompt_ids": ids,
        "ids": again["tokens"],
        "text": choice["message"]["content"],
        "stop": choice["finish_reason"],
    }


def likely(server: Any, prompt: list[int], forced: list[int], top: int, plain: int) -> list[dict[str, float]]:
    """Logarithms of the `top` largest probabilities in front of each forced token, by id.

    Of EOS and of half a character the server tells nothing, so that a plain token is forced in its place; what is told
    is before the force.
    """
    found = []
    for at in range(len(forced)):
        body = {**GREEDY, "prompt": prompt + forced[:at], "n_predict": 1, "n_probs": top, "cache_prompt": True}
        told = server.handle_completions({**body, "logit_bias": [[plain, 1000]]})
        first = told["choices"][0]["logprobs"]["content"][0]
        found.append({str(entry["id"]): entry["logprob"] for entry in first["top_logprobs"]})
    return found


def main() -> None:
    """One job."""
    with open(sys.argv[1], encoding="utf-8") as file:
        job = json.load(file)
    server = server_for(job)
    result: dict[str, Any] = {"versions": {"xllamacpp (llama.cpp)": version("xllamacpp")}, "answers": []}
    for request in job["requests"]:
        said = answer(server, request["messages"], job["max_new_tokens"]) if request.get("messages") else {}
        if "forced" in request:
            given = (request["prompt_ids"], request["forced"])
            said["likely"] = likely(server, *given, job["top"], job["plain"])
        result["answers"].append(said)
    with open(sys.argv[2], "w", encoding="utf-8") as file:
        json.dump(result, file)


if __name__ == "__main__":
    main()
