"""CTranslate2, with its encoder in float32 or 8 bits and Hugging Face's tokenizers; texts are sorted by tokens."""

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from ctranslate2 import Encoder
from protocol import Embed, fast_tokenizer, in_batches, main, mean_pooled

TYPES = {"fp32": "float32", "int8": "int8"}
SIZE = 8
"""Most texts per batch; of 4, 8, 16 and 32 this was the fastest, or within 5 % of it."""


def prepare(variant: str, checkpoint: Path, folder: Path, _: list[str]) -> None:
    """Convert the checkpoint, with weights of the variant's type."""
    from ctranslate2.converters import TransformersConverter

    TransformersConverter(str(checkpoint)).convert(str(folder / "model"), quantization=TYPES[variant], force=True)


def load(variant: str, checkpoint: Path, folder: Path, threads: int) -> Embed:
    """Variants: fp32, int8."""
    tokenizer = fast_tokenizer(checkpoint)
    # Many texts are faster with one batch per thread than with all threads on one batch. One text is faster with all
    # threads in fp32; in int8 short texts are faster with one thread.
    one_thread = {"compute_type": TYPES[variant], "inter_threads": threads, "intra_threads": 1}
    together = Encoder(str(folder / "model"), **one_thread)
    all_threads = one_thread | {"inter_threads": 1, "intra_threads": threads}
    alone = Encoder(str(folder / "model"), **all_threads) if variant == "fp32" else together
    pool = ThreadPoolExecutor(threads)

    def run(encodings: list[Any], encoder: Encoder = together) -> Any:
        ids = [encoding.ids for encoding in encodings]
        hidden = np.asarray(encoder.forward_batch(ids).last_hidden_state)  # without token types it takes 0
        mask = np.arange(hidden.shape[1]) < np.array([len(text) for text in ids])[:, None]
        return mean_pooled(hidden, mask.astype(np.float32))

    def embed(texts: list[str]) -> Any:
        encodings = tokenizer.encode_batch_fast(texts)
        if len(texts) == 1:
            return run(encodings, alone)
        size = min(SIZE, math.ceil(len(texts) / threads))
        return in_batches(encodings, size, run, lengths=[len(encoding) for encoding in encodings], over=pool.map)

    return embed


if __name__ == "__main__":
    main(load, packages=("ctranslate2", "tokenizers"), prepare=prepare)
