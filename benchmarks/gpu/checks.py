"""Check a model on a GPU: against eager PyTorch, each text alone against all together, and from several threads."""

import math
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import torch
import transformers

import encort
from encort.benchmarks.gpu.token_batches import part
from encort.benchmarks.results import Check
from encort.runtime.common.arrays import FloatArray
from encort.runtime.text.token_batch import TokenBatch
from encort.runtime.verification.tolerance import cosines

MIN_COSINE = {"fp16": 0.9995, "fp32": 0.99999}
MAX_DIFFERENCE = {"fp16": 2e-3, "fp32": 2e-6}
"""Largest distance of an element of an embedding of length 1 from that of the same text alone."""
MAX_CHANGED_LABELS = 0.005
"""As a share of all texts."""
THREADS = 8


@contextmanager
def record_failure(checks: list[Check], name: str) -> Iterator[None]:
    """Turn an error into a check that failed, so that the other measurements go on."""
    try:
        yield
    except Exception as error:
        traceback.print_exc()
        checks.append(Check(name=f"{name}: {type(error).__name__}", value=math.nan, least=1))


def check_model(
    model: encort.Model, batch: TokenBatch, expected: FloatArray, expected_labels: Sequence[str]
) -> list[Check]:
    """Check embeddings and labels of a text classifier.

    Args:
        model: Model on a GPU.
        batch: Texts to check with.
        expected: `(texts, dim)` float32, embeddings by eager PyTorch.
        expected_labels: Labels by eager PyTorch.
    """
    precision, name = model.variant.precision, model.variant.name
    together = model.embed(batch)
    similarity = cosines(together, expected)
    alone = np.concatenate([model.embed(part(batch, index, index + 1)) for index in range(len(batch))])
    labels = [result.label for result in model.classify(batch)]
    changed = sum(label != other for label, other in zip(labels, expected_labels, strict=True))
    return [
        Check(name=f"{name}: min cosine to eager PyTorch", value=float(similarity.min()), least=MIN_COSINE[precision]),
        Check(
            name=f"{name}: mean cosine to eager PyTorch", value=float(similarity.mean()), least=MIN_COSINE[precision]
        ),
        Check(name=f"{name}: changed labels, of {len(batch)}", value=changed, most=MAX_CHANGED_LABELS * len(batch)),
        Check(
            name=f"{name}: max difference to each text alone",
            value=_max_difference(together, alone),
            most=MAX_DIFFERENCE[precision],
        ),
        Check(
            name=f"{name}: max difference to each text alone, {THREADS} threads",
            value=_max_difference(_embed_from_threads(model, batch), alone),
            most=MAX_DIFFERENCE[precision],
        ),
    ]


def _embed_from_threads(model: encort.Model, batch: TokenBatch) -> FloatArray:
    parts = np.array_split(np.arange(len(batch)), 8 * THREADS)
    with ThreadPoolExecutor(THREADS) as pool:
        return np.concatenate(
            list(pool.map(lambda indices: model.embed(part(batch, indices[0], indices[-1] + 1)), parts))
        )


def _max_difference(vectors: FloatArray, expected: FloatArray) -> float:
    return float(np.abs(vectors - expected).max())


@torch.inference_mode()
def eager_labels(eager: transformers.BertForSequenceClassification, batch: TokenBatch) -> list[str]:
    """Return the label of each text by eager PyTorch, one text at a time."""
    labels = []
    for index in range(len(batch)):
        rows = batch.rows(np.array([index]))
        logits = eager(**{name: torch.from_numpy(array).to(eager.device) for name, array in rows.items()}).logits
        labels.append(eager.config.id2label[int(logits.argmax())])
    return labels
