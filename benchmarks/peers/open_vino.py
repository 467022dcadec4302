"""OpenVINO, by its own API, in float32, bfloat16, or 8 bits by NNCF's SmoothQuant; texts are sorted by tokens."""

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import openvino
from protocol import Embed, fast_tokenizer, in_batches, main, max_length, mean_pooled, padded

HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}
"""Precision of everything that is not in 8 bits.

For int8 OpenVINO itself would choose bfloat16 on machines with AMX. That is no faster, and with it OpenVINO 2026.4.1
was wrong on batches of 32 tokens (cosines of 0.93 alone, 0.73 padded)."""
SIZE = 16
"""Most texts per batch; of 8, 16 and 32 this was the fastest."""


def prepare(variant: str, checkpoint: Path, folder: Path, texts: list[str]) -> None:
    """Convert the model from PyTorch with dynamic shapes, and quantize it with ranges from the texts."""
    import nncf
    import transformers

    limit = max_length(checkpoint)
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    example = dict(tokenizer(["a text of some length", "another"], padding=True, return_tensors="pt"))
    model = openvino.convert_model(transformers.AutoModel.from_pretrained(checkpoint).eval(), example_input=example)
    if variant == "int8":
        inputs = [dict(tokenizer(text, truncation=True, max_length=limit, return_tensors="np")) for text in texts]
        model_type = nncf.ModelType.TRANSFORMER
        model = nncf.quantize(model, nncf.Dataset(inputs), model_type=model_type, subset_size=len(texts))
    openvino.save_model(model, folder / "model.xml", compress_to_fp16=False)


def load(variant: str, checkpoint: Path, folder: Path, threads: int) -> Embed:
    """Variants: fp32, bf16, int8."""
    tokenizer = fast_tokenizer(checkpoint)
    model = openvino.Core().read_model(folder / "model.xml")
    input_names = {name for node in model.inputs for name in node.names}
    alone, together = (_requests(model, HINTS[variant], threads, streams) for streams in (1, threads))
    pool = ThreadPoolExecutor(threads)

    def run(encodings: list[Any], requests: SimpleQueue[Any] = together) -> Any:
        inputs = padded(encodings)
        request = requests.get()
        feeds = {name: array for name, array in inputs.items() if name in input_names}
        hidden = request.infer(feeds, share_inputs=True, share_outputs=True)[0]
        # Before the request is given back: its next run writes to the same memory.
        embeddings = mean_pooled(hidden, inputs["attention_mask"].astype(np.float32))
        requests.put(request)
        return embeddings

    def embed(texts: list[str]) -> Any:
        encodings = tokenizer.encode_batch_fast(texts)
        if len(texts) == 1:
            return run(encodings, alone)
        size = min(SIZE, math.ceil(len(texts) / threads))
        return in_batches(encodings, size, run, lengths=[len(encoding) for encoding in encodings], over=pool.map)

    return embed


def _requests(model: Any, hint: str, threads: int, streams: int) -> SimpleQueue[Any]:
    """Return one request per stream. With one stream per thread, many texts are faster and a single text is slower."""
    settings = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": streams, "INFERENCE_PRECISION_HINT": hint}
    compiled = openvino.compile_model(model, "CPU", settings)
    requests: SimpleQueue[Any] = SimpleQueue()
    for _ in range(streams):
        requests.put(compiled.create_infer_request())
    return requests


if __name__ == "__main__":
    main(load, packages=("openvino", "nncf", "tokenizers"), prepare=prepare)
