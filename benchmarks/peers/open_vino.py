"""OpenVINO: its own API, in float32, bfloat16, or 8 bits by NNCF's SmoothQuant, sorted by tokens."""

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import openvino
from protocol import Embed, fast_tokenizer, in_batches, main, max_length, mean_pooled, padded

HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}
"""Precision of what is not in 8 bits. Its own choice beside int8, bfloat16 where the machine has AMX, is no faster, and
with it OpenVINO 2026.4.1 was wrong on batches of 32 tokens (cosines of .93 alone, .73 padded)."""
SIZE = 16
"""Texts a batch at most; of 8, 16 and 32 the fastest."""


def prepare(variant: str, checkpoint: Path, folder: Path, texts: list[str]) -> None:
    """Convert from PyTorch with dynamic shapes, and quantize with ranges from the texts."""
    import nncf
    import transformers

    limit = max_length(checkpoint)
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    example = dict(tokenizer(["a text of some length", "another"], padding=True, return_tensors="pt"))
    model = openvino.convert_model(transformers.AutoModel.from_pretrained(checkpoint).eval(), example_input=example)
    if variant == "int8":
        inputs = [dict(tokenizer(text, truncation=True, max_length=limit, return_tensors="np")) for text in texts]
        kind = nncf.ModelType.TRANSFORMER
        model = nncf.quantize(model, nncf.Dataset(inputs), model_type=kind, subset_size=len(texts))
    openvino.save_model(model, folder / "model.xml", compress_to_fp16=False)


def load(variant: str, checkpoint: Path, folder: Path, threads: int) -> Embed:
    """Variants: fp32, bf16, int8."""
    tokenizer = fast_tokenizer(checkpoint)
    model = openvino.Core().read_model(folder / "model.xml")
    taken = {name for each in model.inputs for name in each.names}
    alone, together = (_requests(model, HINTS[variant], threads, streams) for streams in (1, threads))
    pool = ThreadPoolExecutor(threads)

    def run(encodings: list[Any], requests: SimpleQueue[Any] = together) -> Any:
        inputs = padded(encodings)
        request = requests.get()
        fed = {name: array for name, array in inputs.items() if name in taken}
        hidden = request.infer(fed, share_inputs=True, share_outputs=True)[0]
        found = mean_pooled(hidden, inputs["attention_mask"].astype(np.float32))
        requests.put(request)
        return found

    def embed(texts: list[str]) -> Any:
        encodings = tokenizer.encode_batch_fast(texts)
        if len(texts) == 1:
            return run(encodings, alone)
        size = min(SIZE, math.ceil(len(texts) / threads))
        return in_batches(encodings, size, run, lengths=[len(each) for each in encodings], over=pool.map)

    return embed


def _requests(model: Any, hint: str, threads: int, streams: int) -> SimpleQueue[Any]:
    """One request a stream. With a stream a thread many texts are faster, and one is slower."""
    settings = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": streams, "INFERENCE_PRECISION_HINT": hint}
    compiled = openvino.compile_model(model, "CPU", settings)
    requests: SimpleQueue[Any] = SimpleQueue()
    for _ in range(streams):
        requests.put(compiled.create_infer_request())
    return requests


if __name__ == "__main__":
    main(load, packages=("openvino", "nncf", "tokenizers"), prepare=prepare)
