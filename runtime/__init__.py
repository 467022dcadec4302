"""Bundle to embeddings and predictions, with numpy, onnxruntime, tokenizers and click alone.

The walk of the data, a file a step: `texts` → `tokenizer` (→ `overflow`) → `tokens` → `planner` (by `costs`) →
`engine` → `session` → `tasks` → `results`, `spans`, `answers`, held together by `model` with its `options`;
on GPUs `cuda` stands between engine and session, with `packing`, `host_memory` and `captured`;
`parallel_tokenizer` has the engine's threads tokenize what comes next, work is `spread` over them, and what follows is
begun `ahead`. For concurrent callers
`serving` puts the queue of `scheduler` in front of the engine. `bundle`, `manifest` and `schema` read the folder;
`cli`, `commands`, `inputs`, `records` and `outputs` are the shell's side; `stats` counts, and `prometheus` and
`opentelemetry` pass it on; `golden` checks a bundle on the machine that serves, within `tolerance`; `cores` counts what
a container may use, `cpu` knows the processor. `errors`, `extras`, `folders`, `tables` and `corpora` are common
ground that the other rooms use too.
"""
