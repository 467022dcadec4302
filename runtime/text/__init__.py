"""From texts to token ids.

In reading order: `validation` checks what a caller gives, `tokenizer` makes token ids of it, `windows` cuts what is
too long, and `token_batch` is the ragged result.
"""
