"""Optimum's ORTModel: the graph that Optimum exports, on ONNX Runtime.

Texts come in their own order, or sorted by tokens.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from optimum.onnxruntime import ORTModelForFeatureExtraction
from protocol import BATCH, Embed, fast_tokenizer, in_batches, main, mean_pooled, padded


def prepare(_: str, checkpoint: Path, folder: Path, __: list[str]) -> None:
    """Export as Optimum does by default."""
    ORTModelForFeatureExtraction.from_pretrained(checkpoint, export=True).save_pretrained(folder)


def load(variant: str, checkpoint: Path, folder: Path, threads: int) -> Embed:
    """Variants: fp32, fp32-sorted."""
    tokenizer = fast_tokenizer(checkpoint)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    model = ORTModelForFeatureExtraction.from_pretrained(
        folder, provider="CPUExecutionProvider", session_options=options
    )

    def run(encodings: list[Any]) -> Any:
        inputs = padded(encodings)
        hidden = model(**inputs).last_hidden_state
        return mean_pooled(hidden, inputs["attention_mask"].astype(np.float32))

    def embed(texts: list[str]) -> Any:
        encodings = tokenizer.encode_batch_fast(texts)
        lengths = [len(encoding) for encoding in encodings] if variant.endswith("sorted") else None
        return in_batches(encodings, BATCH, run, lengths=lengths)

    return embed


if __name__ == "__main__":
    main(load, packages=("optimum-onnx", "onnxruntime", "tokenizers"), prepare=prepare)
