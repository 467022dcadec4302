"""The files of a checkpoint in Hugging Face layout, as export and training both read them.

Nothing here imports transformers: what the installed version knows is an argument.
"""
