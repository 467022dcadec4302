"""One large matrix product, which shows the limit of the machine: in ONNX Runtime, and for bf16 in PyTorch."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper
from protocol import Embed, main

SIZE = 2048
"""Rows and columns of both matrices; a product takes `2 * SIZE**3` operations."""


def load(variant: str, _: Path, __: Path, threads: int) -> Embed:
    """Variants: fp32, bf16, int8 (unsigned by signed bytes, as in ONNX Runtime's 8-bit kernels)."""
    if variant == "bf16":
        return _load_bf16(threads)
    session = onnxruntime.InferenceSession(_graph(variant), _options(threads), providers=["CPUExecutionProvider"])
    draw = np.random.default_rng(13)
    matrix = (
        draw.random((SIZE, SIZE), np.float32) if variant == "fp32" else draw.integers(0, 255, (SIZE, SIZE), np.uint8)
    )

    def embed(texts: list[str]) -> Any:
        session.run(None, {"x": matrix})
        return np.zeros((len(texts), 1), np.float32)

    return embed


def _load_bf16(threads: int) -> Embed:
    """ONNX Runtime has no product of bf16 on x86, so PyTorch's is taken."""
    import torch

    torch.set_num_threads(threads)
    matrix = torch.randn(SIZE, SIZE, dtype=torch.bfloat16)

    def embed(texts: list[str]) -> Any:
        torch.mm(matrix, matrix)
        return np.zeros((len(texts), 1), np.float32)

    return embed


def _graph(variant: str) -> bytes:
    operators = {"fp32": (TensorProto.FLOAT, np.float32, "MatMul", TensorProto.FLOAT)}
    operators["int8"] = (TensorProto.UINT8, np.int8, "MatMulInteger", TensorProto.INT32)
    input_type, weight_type, operator, output_type = operators[variant]
    weight = np.random.default_rng(14).integers(-127, 127, (SIZE, SIZE)).astype(weight_type)
    graph = helper.make_graph(
        [helper.make_node(operator, ["x", "weight"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", input_type, [SIZE, SIZE])],
        [helper.make_tensor_value_info("y", output_type, [SIZE, SIZE])],
        [onnx.numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return bytes(model.SerializeToString())


def _options(threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return options


if __name__ == "__main__":
    main(load, packages=("onnxruntime", "torch"))
