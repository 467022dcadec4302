"""Bundle to embeddings and predictions, with numpy, onnxruntime, tokenizers and click alone.

The walk of the data, a file a step: `tokenizer` → `tokens` → `planner` → `session` → `results`, `spans`,
`answers`, held together by `model`. `bundle`, `manifest` and `schema` read the folder; `cli`, `commands`,
`inputs`, `records` and `outputs` are the shell's side; `golden` checks a bundle on the machine that serves,
within `tolerance`; `cores` counts what a container may use, `cpu` knows the processor. `errors`, `extras`,
`folders` and `tables` are common ground that the other rooms use too.
"""
