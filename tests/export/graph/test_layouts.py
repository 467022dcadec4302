"""The packed layout on a machine without a GPU: its one operator is written in numpy, everything else is ONNX's own
reference implementation."""

import math
from itertools import pairwise

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
LENGTHS = [[5, 1, 64, 17], [1], [64], [2, 2, 2], [64, 64], list(range(1, 12))]


class PackedMultiHeadAttention(OpRun):
    """As the operator's documentation has it; it refuses inputs that a kernel would misread."""

    op_domain = MICROSOFT

    def _run(self, query, key, value, bias, offsets, bounds, scores_bias=None, num_heads=None, **_):
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
        for begin, end in pairwise(bounds):
            q, k, v = (
                each[begin:end].reshape(end - begin, num_heads, -1).swapaxes(0, 1).astype(np.float32)
                for each in (query, key, value)
            )
            scores = q @ k.swapaxes(1, 2) / math.sqrt(q.shape[2])
            if scores_bias is not None:
                scores += scores_bias[0, :, : end - begin, : end - begin]
            weights = np.exp(scores - scores.max(axis=2, keepdims=True))
            mixed = weights / weights.sum(axis=2, keepdims=True) @ v
            context[begin:end] = mixed.swapaxes(0, 1).reshape(end - begin, -1)
        return (context,)


class SkipLayerNormalization(OpRun):
    op_domain = MICROSOFT

    def _run(self, x, skip, weight, bias, epsilon=None, **_):
        assert x.shape == skip.shape
        total = x.astype(np.float32) + skip
        deviation = total - total.mean(axis=-1, keepdims=True)
        normal = deviation / np.sqrt(np.square(deviation).mean(axis=-1, keepdims=True) + epsilon)
        return ((normal * weight + bias).astype(x.dtype),)


class Gelu(OpRun):
    op_domain = MICROSOFT

    def _run(self, x, **_):
        return ((x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))).astype(x.dtype),)


class FastGelu(OpRun):
    op_domain = MICROSOFT

    def _run(self, x, **_):
        return ((x * 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))).astype(x.dtype),)


def packed_inputs(lengths, ids, types):
    """What a packed graph reads for texts of these lengths; rows may be wider than the longest."""
    longest = max(lengths) + sum(lengths) % 3
    places = [row * longest + column for row, length in enumerate(lengths) for column in range(length)]
    rest = sorted({*range(len(lengths) * longest)} - {*places})
    return {
        "input_ids": np.array(ids, np.int64),
        "token_type_ids": np.array(types, np.int64),
        "position_ids": np.concatenate([np.arange(length) for length in lengths]),
        "token_offset": np.array([*places, *rest], np.int32).reshape(len(lengths), longest),
        "cu_seqlens": np.cumsum([0, *lengths]).astype(np.int32),
    }


def evaluate(model, inputs):
    evaluator = ReferenceEvaluator(
        onnx.load_model_from_string(ir.to_proto(model).SerializeToString()),
        new_ops=[PackedMultiHeadAttention, SkipLayerNormalization, Gelu, FastGelu],
    )
    names = [value.name for value in model.graph.outputs]
    wanted = {value.name for value in model.graph.inputs}
    return dict(zip(names, evaluator.run(names, {n: a for n, a in inputs.items() if n in wanted}), strict=True))


@pytest.mark.parametrize("pooling", Pooling)
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_a_packed_encoder_equals_eager_text_by_text(lengths, pooling, classifier_checkpoint, eager):
    source = ExportSource.open([str(classifier_checkpoint)], pooling=pooling, normalize=False)
    model = author(source.description, Layout.PACKED, embedding=source.embedding)
    random = np.random.default_rng(sum(lengths))
    ids, types = random.integers(0, 100, sum(lengths)), random.integers(0, 2, sum(lengths))
    found = evaluate(model, packed_inputs(lengths, ids, types))
    bounds = np.cumsum([0, *lengths])
    for row, (begin, end) in enumerate(pairwise(bounds)):
        text = {"input_ids": ids[None, begin:end], "token_type_ids": types[None, begin:end]}
        expected = eager(classifier_checkpoint, text | {"attention_mask": np.ones((1, end - begin), np.int64)})
        hidden = expected["last_hidden_state"][0]
        sentence = {
            Pooling.MEAN: hidden.mean(axis=0),
            Pooling.CLS: hidden[0],
            Pooling.POOLER: expected["pooler_output"][0],
        }[pooling]
        close = {"rtol": 0, "atol": 1e-4}
        np.testing.assert_allclose(found["last_hidden_state"][begin:end], hidden, **close)
        np.testing.assert_allclose(found["pooler_output"][row], expected["pooler_output"][0], **close)
        np.testing.assert_allclose(found["logits"][row], expected["logits"][0], **close)
        np.testing.assert_allclose(found["sentence_embedding"][row], sentence, **close)


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
def encoder(request):
    """An encoder of transformers, its biases and norms not the usual ones, and its description."""
    torch.manual_seed(3)
    model = transformers.AutoModel.from_config(CONFIGS[request.param], attn_implementation="eager").eval()
    for parameter in model.parameters():
        if parameter.dim() == 1:
            torch.nn.init.normal_(parameter, mean=float(parameter.detach().mean()), std=0.2)
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    return model, Description(encoders=(describe_encoder(model.config, weights),), heads=())


@pytest.mark.parametrize(("in_precision", "close"), [(lambda model: model, 1e-4), (to_float16, 0.05)])
@pytest.mark.parametrize("lengths", [[5, 1, 64, 17], [1], [2, 2, 2]], ids=str)
def test_every_encoder_equals_eager_as_the_runtime_packs_it(encoder, lengths, in_precision, close):
    model, description = encoder
    embedding = Embedding(pooling=Pooling.MEAN, normalize=True)
    graph = author(in_precision(description), Layout.PACKED, embedding=embedding)
    counts = np.arange(max(lengths)) < np.array(lengths)[:, None]
    # Padding tokens among them, which RoBERTa's positions leave out.
    ids = np.random.default_rng(sum(lengths)).integers(0, 90, counts.shape)
    rows = {"input_ids": ids, "token_type_ids": 0 * ids, "attention_mask": counts.astype(np.int64)}
    found = evaluate(graph, Packing(counts).pack(rows))
    for row, (begin, length) in enumerate(zip(np.cumsum([0, *lengths]), lengths, strict=False)):
        text = torch.from_numpy(ids[row : row + 1, :length])
        with torch.inference_mode():
            hidden = model(input_ids=text, attention_mask=torch.ones_like(text)).last_hidden_state[0].numpy()
        mean = hidden.mean(axis=0)
        np.testing.assert_allclose(found["last_hidden_state"][begin : begin + length], hidden, rtol=0, atol=2 * close)
        np.testing.assert_allclose(found["sentence_embedding"][row], mean / np.linalg.norm(mean), rtol=0, atol=close)
