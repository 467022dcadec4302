"""From a bundle to embeddings and predictions, with numpy, onnxruntime, tokenizers and click alone.

The walk of the data: texts → token ids (`text`) → micro-batches and arrays (`engine`; on GPUs also `cuda`) → results
(`tasks`).

Reading order. Each folder imports only from those before it, and a test enforces the order:

1. `common`: errors, tables and checks that all packages share.
2. `text`: from texts to token ids.
3. `bundle`: the folder on disk.
4. `engine`: from token ids to arrays, by micro-batches.
5. `tasks`: from arrays to results. `cuda`: packed graphs on GPUs.
6. `serving`: concurrent callers. `monitoring`: stats for other systems. `verification`: golden vectors.
7. `options`, `sessions`, `task_runner`: what `load` and the tasks use. `text_methods`, `task_methods`, `model`: the
   methods of `Model` without the graph, those of its tasks, and `load` and `Model`, which hold all of it together.
8. `server`: HTTP. `cli`: the command line.
"""
