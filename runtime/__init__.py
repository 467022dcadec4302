"""Bundle to embeddings and predictions, with numpy, onnxruntime, tokenizers and click alone.

The walk of the data, a file a step: `tokenizer` → `tokens` → `planner` → `session` → `results`, held together
by `model`. `bundle`, `manifest` and `schema` read the folder; `cli`, `commands`, `inputs` and `outputs` are
the shell's side; `golden` checks a bundle on the machine that serves, `cores` counts what a container may use.
`errors`, `extras`, `folders` and `tables` are common ground that the other rooms use too.
"""
