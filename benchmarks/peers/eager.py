"""PyTorch as transformers runs it: eager or compiled, in float32 or bfloat16.

Texts come in their own order, or sorted by tokens.
"""

from pathlib import Path
from typing import Any

import torch
import transformers
from protocol import BATCH, Embed, fast_tokenizer, in_batches, main, mean_pooled, padded

BATCHES = {torch.float32: BATCH, torch.bfloat16: 2 * BATCH}
"""Texts per batch."""


def load(variant: str, checkpoint: Path, _: Path, threads: int) -> Embed:
    """Variants: fp32, fp32-sorted, bf16, bf16-sorted, compiled-sorted."""
    torch.set_num_threads(threads)
    tokenizer = fast_tokenizer(checkpoint)
    dtype = torch.bfloat16 if variant.startswith("bf16") else torch.float32
    model = transformers.AutoModel.from_pretrained(checkpoint, dtype=dtype).eval()
    forward = torch.compile(model, dynamic=True) if variant.startswith("compiled") else model

    @torch.inference_mode()
    def run(encodings: list[Any]) -> Any:
        inputs = {name: torch.from_numpy(array) for name, array in padded(encodings).items()}
        hidden = forward(**inputs).last_hidden_state.float()
        return mean_pooled(hidden, inputs["attention_mask"].float()).numpy()

    def embed(texts: list[str]) -> Any:
        encodings = tokenizer.encode_batch_fast(texts)
        lengths = [len(encoding) for encoding in encodings] if variant.endswith("sorted") else None
        return in_batches(encodings, BATCHES[dtype], run, lengths=lengths)

    return embed


if __name__ == "__main__":
    main(load, packages=("torch", "transformers", "tokenizers"))
