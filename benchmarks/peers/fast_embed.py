"""FastEmbed, with its own tokenization, pooling and normalization on ONNX Runtime.

Texts come in their own order, or sorted by length.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from fastembed import TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType
from protocol import BATCH, Embed, in_batches, main, max_length

NAME = "race/model"


def prepare(_: str, checkpoint: Path, folder: Path, __: list[str]) -> None:
    """Save Optimum's graph, and a tokenizer with the limit in two settings, since FastEmbed takes the smaller one."""
    import transformers
    from optimum.onnxruntime import ORTModelForFeatureExtraction

    ORTModelForFeatureExtraction.from_pretrained(checkpoint, export=True).save_pretrained(folder)
    limit = max_length(checkpoint)
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint, model_max_length=limit, max_length=limit)
    tokenizer.save_pretrained(folder)


def load(variant: str, _: Path, folder: Path, threads: int) -> Embed:
    """Variants: fp32, fp32-sorted."""
    TextEmbedding.add_custom_model(
        model=NAME,
        pooling=PoolingType.MEAN,
        normalization=True,
        sources=ModelSource(hf=NAME),
        dim=json.loads((folder / "config.json").read_text(encoding="utf-8"))["hidden_size"],
        model_file="model.onnx",
    )
    model = TextEmbedding(NAME, threads=threads, specific_model_path=str(folder), providers=["CPUExecutionProvider"])

    def run(texts: list[str]) -> Any:
        return np.stack(list(model.embed(texts, batch_size=BATCH)))

    def embed(texts: list[str]) -> Any:
        lengths = [len(text) for text in texts] if variant.endswith("sorted") else None
        return in_batches(texts, BATCH, run, lengths=lengths)

    return embed


if __name__ == "__main__":
    main(load, packages=("fastembed", "onnxruntime", "tokenizers"), prepare=prepare)
