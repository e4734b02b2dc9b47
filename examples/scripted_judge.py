"""A judge that prefers the shorter of two answers, behind an OpenAI-compatible address on this machine: a stand-in.

python examples/scripted_judge.py

It prints its address and serves until it is ended. Whatever model is asked for, each question of `alpaca-lora compare
--judge NAME --base_url ADDRESS` is answered by counting words; two answers of as many words are a tie.
"""

import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def verdict(question: str) -> str:
    """What is said of a question; its answers stand between lines that `evaluation/judge_prompt.py` writes."""
    found = re.search(r"^---- answer 1 (\w+)\n(.*)\n---- answer 2 \1\n(.*)\n---- end \1$", question, re.DOTALL | re.M)
    if found is None:
        return "There are no two answers to compare."
    first, second = (len(text.split()) for text in found.groups()[1:])
    winner = "tie" if first == second else "1" if first < second else "2"
    return f"{first} words and {second} words.\nVerdict: {winner}"


class Judge(BaseHTTPRequestHandler):
    """One request; connections are kept."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Answer a chat completion."""
        asked = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        said = {"role": "assistant", "content": verdict(asked["messages"][-1]["content"])}
        choice = {"index": 0, "message": said, "finish_reason": "stop"}
        reply = {
            "id": "judged",
            "object": "chat.completion",
            "created": 0,
            "model": asked["model"],
            "choices": [choice],
        }
        body = json.dumps(reply).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *values: object) -> None:
        """Nothing: the client has a journal."""


if __name__ == "__main__":
    with ThreadingHTTPServer(("127.0.0.1", 0), Judge) as server:
        print(f"http://127.0.0.1:{server.server_port}/v1", flush=True)
        server.serve_forever()
