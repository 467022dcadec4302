"""Settings of sentence embeddings, from a checkpoint's sentence-transformers files.

In reading order:
1. `module_list`: `modules.json`, the list of the modules and their folders.
2. `poolings`: the folder of the pooling.
3. `prompts`: `config_sentence_transformers.json`, with the prompts, the similarity and the number of dimensions.
4. `settings`: all of it together.
"""
