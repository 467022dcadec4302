"""Optimum's ORTModel: the graph that Optimum exports, on ONNX Runtime, in the order of arrival or sorted by length."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import transformers
from optimum.onnxruntime import ORTModelForFeatureExtraction
from protocol import BATCH, Embed, in_batches, main, max_length, mean_pooled


def prepare(_: str, checkpoint: Path, folder: Path, __: list[str]) -> None:
    """Export as Optimum does by default."""
    ORTModelForFeatureExtraction.from_pretrained(checkpoint, export=True).save_pretrained(folder)


def load(variant: str, checkpoint: Path, folder: Path, threads: int) -> Embed:
    """Variants: fp32, fp32-sorted."""
    limit = max_length(checkpoint)
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    model = ORTModelForFeatureExtraction.from_pretrained(
        folder, provider="CPUExecutionProvider", session_options=options
    )

    def run(texts: list[str]) -> Any:
        inputs = tokenizer(texts, padding=True, truncation=True, max_length=limit, return_tensors="np")
        hidden = model(**inputs).last_hidden_state
        return mean_pooled(hidden, inputs["attention_mask"].astype(np.float32))

    def embed(texts: list[str]) -> Any:
        lengths = [len(text) for text in texts] if variant.endswith("sorted") else None
        return in_batches(texts, BATCH, run, lengths=lengths)

    return embed


if __name__ == "__main__":
    main(load, packages=("optimum-onnx", "onnxruntime", "transformers"), prepare=prepare)
