"""Measure how time and memory grow with the length of one text, beside eager PyTorch.

python benchmarks/studies/long_inputs.py

The model has the sizes of ModernBERT-base and random weights. Each measurement is a process of its own, so that its
peak of memory is its own too. The time is that of one run on one core, the least of several.
"""

import argparse
import math
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime
import torch
import transformers

from encort.export.graph.architectures import describe_encoder
from encort.export.graph.builder import save_sharing_weights
from encort.export.graph.description import Description
from encort.export.graph.heads import author
from encort.runtime.bundle.manifest import Embedding, Layout, Pooling
from encort.runtime.common.arrays import Int64Array
from encort.runtime.common.output.markdown import table

LENGTHS = (512, 1024, 2048, 4096, 8192)
LAYOUTS = (Layout.EQUAL_LENGTH, Layout.RAGGED)
ATTENTIONS = ("eager", "sdpa")
"""Implementations of attention in transformers."""
Run = Callable[[Int64Array], Any]


def main(lengths: list[int], layers: int, rounds: int) -> None:
    """Print a table with the seconds and the peak of memory of every system and length."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        _in_process(write_graphs, folder, layers)
        systems: dict[str, tuple[Any, ...]] = {
            f"encort, {layout}": (open_graph, folder / f"{layout}.onnx") for layout in LAYOUTS
        }
        systems |= {f"PyTorch, {attention}": (open_torch, attention, layers) for attention in ATTENTIONS}
        rows = [
            [system, *(_in_process(measure, length, rounds, *opener) for length in lengths)]
            for system, opener in systems.items()
        ]
    print("\n".join(table(["system", *(f"{length:,} tokens" for length in lengths)], rows)))


def model(layers: int, attention: str = "eager") -> Any:
    """Return an encoder of the sizes of ModernBERT-base with random weights."""
    torch.manual_seed(0)
    config = transformers.ModernBertConfig(num_hidden_layers=layers)
    return transformers.AutoModel.from_config(config, attn_implementation=attention).eval()


def write_graphs(folder: Path, layers: int) -> None:
    """Write the graph of each layout."""
    encoder = model(layers)
    weights = {name: tensor.numpy() for name, tensor in encoder.state_dict().items()}
    description = Description(encoders=(describe_encoder(encoder.config, weights),), heads=())
    embedding = Embedding(pooling=[Pooling.MEAN], normalize=True)
    graphs = {f"{layout}.onnx": author(description, layout, embedding=embedding) for layout in LAYOUTS}
    save_sharing_weights(graphs, folder, "weights")


def open_graph(file: Path) -> Run:
    """Return a run of a graph on one core."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    names = {node.name for node in session.get_inputs()}

    def run(ids: Int64Array) -> Any:
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        return session.run(None, {name: inputs[name] for name in names})

    return run


def open_torch(attention: str, layers: int) -> Run:
    """Return a run of the model in eager PyTorch on one core."""
    torch.set_num_threads(1)
    encoder = model(layers, attention)

    def run(ids: Int64Array) -> Any:
        with torch.inference_mode():
            return encoder(torch.from_numpy(ids))

    return run


def measure(length: int, rounds: int, opener: Callable[..., Run], *arguments: Any) -> str:
    """Return the seconds of one run, and the peak of memory of the process."""
    run, seconds = opener(*arguments), math.inf
    ids = np.random.default_rng(0).integers(1000, 40_000, (1, length))
    for _ in range(rounds):
        start = time.perf_counter()
        run(ids)
        seconds = min(seconds, time.perf_counter() - start)
    return f"{seconds:.2f} s, {peak_mib():,.0f} MiB"


def peak_mib() -> float:
    """Return the peak of memory of this process, on Linux; `getrusage` would count the parent process too."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def _in_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return the function's result from a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--layers", type=int, default=22, help="layers of the model; 22 as ModernBERT-base")
    parser.add_argument("--rounds", type=int, default=2, help="runs, of which the shortest counts")
    chosen = parser.parse_args()
    main(chosen.lengths, chosen.layers, chosen.rounds)
