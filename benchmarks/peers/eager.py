"""Eager PyTorch, as transformers runs it: float32 or bfloat16, as texts come or sorted by length, or compiled."""

from pathlib import Path
from typing import Any

import torch
import transformers
from protocol import BATCH, Embed, in_batches, main, max_length, mean_pooled


def load(variant: str, checkpoint: Path, _: Path, threads: int) -> Embed:
    """Variants: fp32, fp32-sorted, bf16, bf16-sorted, compiled-sorted."""
    torch.set_num_threads(threads)
    limit = max_length(checkpoint)
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    dtype = torch.bfloat16 if variant.startswith("bf16") else torch.float32
    model = transformers.AutoModel.from_pretrained(checkpoint, dtype=dtype).eval()
    forward = torch.compile(model, dynamic=True) if variant.startswith("compiled") else model

    @torch.inference_mode()
    def run(texts: list[str]) -> Any:
        inputs = tokenizer(texts, padding=True, truncation=True, max_length=limit, return_tensors="pt")
        hidden = forward(**inputs).last_hidden_state.float()
        return mean_pooled(hidden, inputs["attention_mask"].float()).numpy()

    def embed(texts: list[str]) -> Any:
        lengths = [len(text) for text in texts] if variant.endswith("sorted") else None
        return in_batches(texts, BATCH, run, lengths=lengths)

    return embed


if __name__ == "__main__":
    main(load, packages=("torch", "transformers"))
