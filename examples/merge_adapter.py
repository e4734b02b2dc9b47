"""Merge any adapter into its base, named by the adapter itself: a plain transformers folder.

python examples/merge_adapter.py ADAPTER_DIR OUT_DIR
"""

import sys

from alpaca_lora import merge

if len(sys.argv) != 3:
    sys.exit(__doc__)
print("merged into", merge(adapter=sys.argv[1], out=sys.argv[2]))
