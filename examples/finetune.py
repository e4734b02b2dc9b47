"""Fine-tune the demo model on the built-in records for a few steps, look at the losses, and ask it something.

python examples/finetune.py OUTPUT_DIR
"""

import sys

from alpaca_lora import finetune

if len(sys.argv) != 2:
    sys.exit(__doc__)
run = finetune(
    base_model="demo",
    data="seeds",
    output_dir=sys.argv[1],
    batch_size=8,
    max_steps=3,
    val_set_size=8,
    learning_rate=1e-3,
)
for line in run.history:
    print(line)
print(run.generate("Name three fruits.", max_new_tokens=40))
