"""sentence-transformers, on PyTorch or ONNX Runtime: `SentenceTransformer.encode`, which sorts texts by length."""

from pathlib import Path
from typing import Any

import onnxruntime
import torch
from protocol import BATCH, Embed, main, max_length
from sentence_transformers import SentenceTransformer, export_dynamic_quantized_onnx_model

FILES = {"onnx-fp32": "onnx/model.onnx", "onnx-int8": "onnx/model_qint8_avx512_vnni.onnx"}
"""Files in the prepared folder, as its own exporters name them."""


def prepare(variant: str, checkpoint: Path, folder: Path, _: list[str]) -> None:
    """Export with its ONNX backend, and quantize with its preset for dynamic 8-bit quantization."""
    if variant not in FILES:
        return
    model = SentenceTransformer(str(checkpoint), backend="onnx", device="cpu", model_kwargs={"export": True})
    model.save_pretrained(str(folder))
    if variant == "onnx-int8":
        export_dynamic_quantized_onnx_model(model, "avx512_vnni", str(folder))


def load(variant: str, checkpoint: Path, folder: Path, threads: int) -> Embed:
    """Variants: torch-fp32, torch-bf16, onnx-fp32, onnx-int8."""
    torch.set_num_threads(threads)
    if variant in FILES:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        settings = {"provider": "CPUExecutionProvider", "session_options": options, "file_name": FILES[variant]}
        model = SentenceTransformer(str(folder), backend="onnx", device="cpu", model_kwargs=settings)
    else:
        dtype = {"torch-fp32": torch.float32, "torch-bf16": torch.bfloat16}[variant]
        model = SentenceTransformer(str(checkpoint), device="cpu", model_kwargs={"dtype": dtype})
    model.max_seq_length = max_length(checkpoint)

    size = 2 * BATCH if variant == "torch-bf16" else BATCH

    def embed(texts: list[str]) -> Any:
        return model.encode(texts, batch_size=size, normalize_embeddings=True, show_progress_bar=False)

    return embed


if __name__ == "__main__":
    main(load, packages=("sentence-transformers", "torch", "transformers", "onnxruntime"), prepare=prepare)
