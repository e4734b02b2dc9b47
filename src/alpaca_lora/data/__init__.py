"""Data: any source in, packs of token ids out.

    sources -> records -> tokens -> packs -> plan -> step_dataset

sources/         what `data` may be, and the rows in it: files, folders, the hub
records/         rows to records, or to preferences: read, checked, split; what would be lost is told
  record.py        a record            columns.py  which key is which field        key_names.py  what others call them
tokens/          records to token ids: encoder, examples, cache
packs.py         examples laid out in one row of tokens     pack_counts.py   what a pack costs
plan.py          which examples a step holds, in which packs     step_dataset.py  the plan, as a dataset
preview.py       what training would see: `inspect`
lint/            what is wrong with records: `lint`
similarity.py    ROUGE-L of a text against many
seeds.jsonl      the 175 packaged records    probe.jsonl, probe.py   50 questions on known limits
"""
