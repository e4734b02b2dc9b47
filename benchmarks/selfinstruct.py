"""Self-instruct under fire: 2,000 records and 30 kills, and a budget through 10 kills, against a misbehaving server.

    python benchmarks/selfinstruct.py [SEED]

Every check of tests/selfinstruct/test_kills.py is made; the figures are printed. Takes some four minutes.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import tempfile
import time
from pathlib import Path

_PATH = Path(__file__).parents[1] / "tests" / "selfinstruct" / "test_kills.py"
_SPEC = importlib.util.spec_from_file_location("kills", _PATH)
assert _SPEC and _SPEC.loader
kills = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(kills)

seed = int(sys.argv[1]) if len(sys.argv) > 1 else 1
for name, settings in {
    "2,000 records, 30 kills": {"num_records": 2000, "kills": 30, "concurrency": 4, "answer_seconds": 0.7},
    "a budget of 400,000 tokens, 10 kills": {
        **{"num_records": 10**6, "kills": 10, "concurrency": 8, "answer_seconds": 0.3},
        "token_budget": 400_000,
    },
}.items():
    with tempfile.TemporaryDirectory() as scratch:
        started = time.monotonic()
        figures = kills.run_with_kills(Path(scratch), seed=seed, **settings)
        print(f"{name}: {time.monotonic() - started:.0f} s\n{json.dumps(figures, indent=2)}", flush=True)
