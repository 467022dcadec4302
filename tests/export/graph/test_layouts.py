"""The packed layout without a GPU: ONNX's reference implementation runs it, with the contrib operators in numpy."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
import transformers
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from encort.export.graph.architectures import describe_encoder
from encort.export.graph.description import Description
from encort.export.graph.float16 import to_float16
from encort.export.graph.heads import author
from encort.export.source.export_source import ExportSource
from encort.runtime.bundle.manifest import Embedding, Layout, Pooling
from encort.runtime.cuda.packing import Packing

MICROSOFT = "com.microsoft"
Arrays = dict[str, np.ndarray]
LENGTHS = [[5, 1, 64, 17], [1], [64], [2, 2, 2], [64, 64], list(range(1, 12))]


class PackedMultiHeadAttention(OpRun):
    """The operator as documented; it refuses inputs that a kernel would misread."""

    op_domain = MICROSOFT

    def _run(
        self,
        query: np.ndarray,
        key: np.ndarray,
        value: np.ndarray,
        bias: np.ndarray | None,
        offsets: np.ndarray,
        bounds: np.ndarray,
        scores_bias: np.ndarray | None = None,
        num_heads: int | None = None,
        **_: Any,
    ) -> tuple[np.ndarray]:
        assert bias is None
        assert offsets.dtype == bounds.dtype == np.int32
        batch, longest = offsets.shape
        lengths = np.diff(bounds)
        assert len(lengths) == batch
        assert lengths.max() <= longest
        assert bounds[0] == 0
        assert bounds[-1] == len(query) == len(key) == len(value)
        real = np.concatenate([row * longest + np.arange(length) for row, length in enumerate(lengths)])
        assert offsets.ravel()[: len(real)].tolist() == real.tolist()
        assert sorted(offsets.ravel().tolist()) == list(range(batch * longest))
        context = np.empty_like(value)
        for start, end in pairwise(bounds):
            q, k, v = (
                projection[start:end].reshape(end - start, num_heads, -1).swapaxes(0, 1).astype(np.float32)
                for projection in (query, key, value)
            )
            scores = q @ k.swapaxes(1, 2) / math.sqrt(q.shape[2])
            if scores_bias is not None:
                scores += scores_bias[0, :, : end - start, : end - start]
            weights = np.exp(scores - scores.max(axis=2, keepdims=True))
            mixed = weights / weights.sum(axis=2, keepdims=True) @ v
            context[start:end] = mixed.swapaxes(0, 1).reshape(end - start, -1)
        return (context,)


class SkipLayerNormalization(OpRun):
    op_domain = MICROSOFT

    def _run(
        self,
        x: np.ndarray,
        skip: np.ndarray,
        weight: np.ndarray,
        bias: np.ndarray | None,
        epsilon: float | None = None,
        **_: Any,
    ) -> tuple[np.ndarray]:
        assert x.shape == skip.shape
        total = x.astype(np.float32) + skip
        deviation = total - total.mean(axis=-1, keepdims=True)
        normal = deviation / np.sqrt(np.square(deviation).mean(axis=-1, keepdims=True) + epsilon)
        return ((normal * weight + bias).astype(x.dtype),)


class Gelu(OpRun):
    op_domain = MICROSOFT

    def _run(self, x: np.ndarray, **_: Any) -> tuple[np.ndarray]:
        return ((x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))).astype(x.dtype),)


class FastGelu(OpRun):
    op_domain = MICROSOFT

    def _run(self, x: np.ndarray, **_: Any) -> tuple[np.ndarray]:
        return ((x * 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))).astype(x.dtype),)


def packed_inputs(lengths: Sequence[int], ids: np.ndarray, types: np.ndarray) -> Arrays:
    """Return the inputs of a packed graph for texts of these lengths; its rows may be wider than the longest text."""
    longest = max(lengths) + sum(lengths) % 3
    indices = [row * longest + column for row, length in enumerate(lengths) for column in range(length)]
    padding = sorted({*range(len(lengths) * longest)} - {*indices})
    return {
        "input_ids": np.array(ids, np.int64),
        "token_type_ids": np.array(types, np.int64),
        "position_ids": np.concatenate([np.arange(length) for length in lengths]),
        "token_offset": np.array([*indices, *padding], np.int32).reshape(len(lengths), longest),
        "cu_seqlens": np.cumsum([0, *lengths]).astype(np.int32),
    }


def evaluate(model: ir.Model, inputs: Arrays) -> Arrays:
    evaluator = ReferenceEvaluator(
        onnx.load_model_from_string(ir.to_proto(model).SerializeToString()),
        new_ops=[PackedMultiHeadAttention, SkipLayerNormalization, Gelu, FastGelu],
    )
    names = [value.name for value in model.graph.outputs]
    wanted = {value.name for value in model.graph.inputs}
    return dict(zip(names, evaluator.run(names, {n: a for n, a in inputs.items() if n in wanted}), strict=True))


@pytest.mark.parametrize("pooling", Pooling)
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_a_packed_encoder_equals_eager_text_by_text(
    lengths: Sequence[int], pooling: Pooling, classifier_checkpoint: Path, eager: Callable[..., Any]
) -> None:
    source = ExportSource.open([str(classifier_checkpoint)], pooling=[pooling], normalize=False)
    model = author(source.description, Layout.PACKED, embedding=source.embedding)
    random = np.random.default_rng(sum(lengths))
    ids, types = random.integers(0, 100, sum(lengths)), random.integers(0, 2, sum(lengths))
    outputs = evaluate(model, packed_inputs(lengths, ids, types))
    bounds = np.cumsum([0, *lengths])
    for row, (start, end) in enumerate(pairwise(bounds)):
        text = {"input_ids": ids[None, start:end], "token_type_ids": types[None, start:end]}
        expected = eager(classifier_checkpoint, text | {"attention_mask": np.ones((1, end - start), np.int64)})
        hidden = expected["last_hidden_state"][0]
        sentence = {
            Pooling.MEAN: hidden.mean(axis=0),
            Pooling.CLS: hidden[0],
            Pooling.POOLER: expected["pooler_output"][0],
            Pooling.MAX: hidden.max(axis=0),
            Pooling.MEAN_SQRT_LEN: hidden.sum(axis=0) / np.sqrt(len(hidden)),
            Pooling.WEIGHTED_MEAN: np.average(hidden, axis=0, weights=1 + np.arange(len(hidden))),
            Pooling.LAST_TOKEN: hidden[-1],
        }[pooling]
        close = {"rtol": 0, "atol": 1e-4}
        np.testing.assert_allclose(outputs["last_hidden_state"][start:end], hidden, **close)
        np.testing.assert_allclose(outputs["pooler_output"][row], expected["pooler_output"][0], **close)
        np.testing.assert_allclose(outputs["logits"][row], expected["logits"][0], **close)
        np.testing.assert_allclose(outputs["sentence_embedding"][row], sentence, **close)


SIZES = {
    "vocab_size": 90,
    "hidden_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 5,
    "intermediate_size": 56,
    "max_position_embeddings": 70,
    "initializer_range": 0.3,
}
CONFIGS = {
    "bert": transformers.BertConfig(**SIZES, hidden_act="gelu_new"),
    "roberta": transformers.RobertaConfig(**SIZES, type_vocab_size=1),
    "distilbert": transformers.DistilBertConfig(vocab_size=90, dim=40, n_layers=2, n_heads=5, hidden_dim=56),
    "electra": transformers.ElectraConfig(**SIZES, embedding_size=24),
    "mpnet": transformers.MPNetConfig(**SIZES, hidden_act="gelu_new"),
}


@pytest.fixture(params=CONFIGS)
def encoder(request: pytest.FixtureRequest) -> tuple[Any, Description]:
    """A transformers encoder with random biases and norms, and its description."""
    torch.manual_seed(3)
    model = transformers.AutoModel.from_config(CONFIGS[request.param], attn_implementation="eager").eval()
    for parameter in model.parameters():
        if parameter.dim() == 1:
            torch.nn.init.normal_(parameter, mean=float(parameter.detach().mean()), std=0.2)
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    return model, Description(encoders=(describe_encoder(model.config, weights),), heads=())


@pytest.mark.parametrize(("in_precision", "close"), [(lambda model: model, 1e-4), (to_float16, 0.05)])
@pytest.mark.parametrize("lengths", [[5, 1, 64, 17], [1], [2, 2, 2]], ids=str)
def test_every_encoder_equals_eager_with_inputs_packed_by_the_runtime(
    encoder: tuple[Any, Description],
    lengths: Sequence[int],
    in_precision: Callable[[Description], Description],
    close: float,
) -> None:
    model, description = encoder
    embedding = Embedding(pooling=[Pooling.MEAN], normalize=True)
    graph = author(in_precision(description), Layout.PACKED, embedding=embedding)
    counts = np.arange(max(lengths)) < np.array(lengths)[:, None]
    # Some ids are padding tokens; RoBERTa's positions leave them out.
    ids = np.random.default_rng(sum(lengths)).integers(0, 90, counts.shape)
    rows = {"input_ids": ids, "token_type_ids": 0 * ids, "attention_mask": counts.astype(np.int64)}
    outputs = evaluate(graph, Packing(counts).pack(rows))
    for row, (start, length) in enumerate(zip(np.cumsum([0, *lengths]), lengths, strict=False)):
        text = torch.from_numpy(ids[row : row + 1, :length])
        with torch.inference_mode():
            hidden = model(input_ids=text, attention_mask=torch.ones_like(text)).last_hidden_state[0].numpy()
        mean = hidden.mean(axis=0)
        np.testing.assert_allclose(outputs["last_hidden_state"][start : start + length], hidden, rtol=0, atol=2 * close)
        np.testing.assert_allclose(outputs["sentence_embedding"][row], mean / np.linalg.norm(mean), rtol=0, atol=close)
