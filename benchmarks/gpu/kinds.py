"""Every kind of model that graphs for CUDA are authored for, small, on a GPU: all outputs against eager PyTorch.

Small runs are captured graphs, large ones are not; and memory that runs out is tried.
"""

import functools
import math
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers

import encort
from encort.benchmarks.machine import Machine
from encort.benchmarks.race.models import VOCABULARY, drawn
from encort.benchmarks.race.workload import mixed_texts
from encort.benchmarks.results import Check, Race
from encort.export.exporter import export_bundle, verify_against_checkpoint
from encort.export.variants import CUDA
from encort.runtime.bundle.bundle import Bundle
from encort.runtime.bundle.manifest import Variant
from encort.runtime.common.errors import DeviceError
from encort.runtime.cuda import workers as cuda
from encort.runtime.engine.cores import available_cores
from encort.runtime.verification.tolerance import COSINES, neighbour_limit
from encort.training.tasks.dual_encoder import DualEncoderConfig, DualEncoderForNextSentence

SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 256,
    # Weights wide enough that a wrong graph cannot hide below the tolerance.
    "initializer_range": 0.1,
    "num_labels": 5,
}
MEMORY = 2**24
"""Bytes: enough for the weights and for a few texts, and not for a whole run."""


def _model(kind: str, head: Any = transformers.AutoModel, **settings: Any) -> Any:
    return head.from_config(transformers.AutoConfig.for_model(kind, **{**SIZES, **settings}))


def _two_encoders() -> Any:
    encoder = {name: size for name, size in SIZES.items() if name != "num_labels"}
    return DualEncoderForNextSentence(DualEncoderConfig(encoder, {**encoder, "hidden_size": 64}))


KINDS: dict[str, Callable[[], Any]] = {
    "BERT, embeddings": functools.partial(_model, "bert"),
    "BERT, labels": functools.partial(_model, "bert", transformers.AutoModelForSequenceClassification),
    "BERT, tags": functools.partial(_model, "bert", transformers.AutoModelForTokenClassification),
    "RoBERTa, labels": functools.partial(
        _model, "roberta", transformers.AutoModelForSequenceClassification, max_position_embeddings=514
    ),
    "MPNet, labels": functools.partial(
        _model, "mpnet", transformers.AutoModelForSequenceClassification, max_position_embeddings=514
    ),
    "DistilBERT, answers": functools.partial(
        _model, "distilbert", transformers.AutoModelForQuestionAnswering, hidden_dim=256, num_labels=2
    ),
    "ELECTRA, tags": functools.partial(
        _model, "electra", transformers.AutoModelForTokenClassification, embedding_size=64
    ),
    "two encoders": _two_encoders,
}
"""Every architecture, every head, and the model of two encoders."""


def run(folder: Path) -> Race:
    """Check all of them.

    Args:
        folder: For their checkpoints and bundles.
    """
    texts = mixed_texts()
    checks: list[Check] = []
    for number, (name, make) in enumerate(KINDS.items()):
        with kept_going(checks, f"{name} is exported"):
            torch.manual_seed(13)
            target = folder / str(number)
            target.mkdir()
            checkpoint = drawn(_with_odd_biases(make()), target / "checkpoint", texts)
            bundle = export_bundle(checkpoint, target / "bundle", variants=list(CUDA))
            for variant in bundle.manifest.variants:
                with kept_going(checks, f"{name}, {variant.name} is checked"):
                    checks.extend(_checks(name, checkpoint, bundle, variant))
    with kept_going(checks, "memory runs out"):
        checks.append(_memory(folder / "0" / "bundle", texts))
    return Race(
        command=shlex.join(["python", "-m", "encort.benchmarks.gpu", *sys.argv[1:]]),
        machine=replace(Machine.here(), gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None),
        threads=available_cores(),
        model="small models of every kind (drawn weights)",
        workload="no workload",
        texts=0,
        tokens=0,
        outcomes=[],
        limits=[],
        checks=checks,
    )


@contextmanager
def kept_going(checks: list[Check], name: str) -> Iterator[None]:
    """An error is told as a check that failed, so that what else is measured is not lost."""
    try:
        yield
    except Exception as error:
        traceback.print_exc()
        checks.append(Check(name=f"{name}: {type(error).__name__}", found=math.nan, least=1))


def _checks(name: str, checkpoint: Path, bundle: Bundle, variant: Variant) -> list[Check]:
    alone = Bundle(bundle.folder, replace(bundle.manifest, variants=[variant]))
    with ExitStack() as opened:
        open_session = functools.partial(_opened, opened)
        ((_, found),) = verify_against_checkpoint(alone, checkpoint, open_session=open_session)
    limit = COSINES[variant.precision][1]
    most = neighbour_limit(variant.precision, variant.vector, bundle.manifest.embedding)
    about = f"{name}, {variant.name}"
    return [
        Check(name=f"{about}: least cosine to eager PyTorch", found=found.min_cosine, least=limit),
        Check(name=f"{about}: most apart from alone", found=found.batch_difference, most=most),
    ]


def _with_odd_biases(model: Any) -> Any:
    """Biases and norms start at exactly 0 and 1, where mistakes would not show."""
    for parameter in model.parameters():
        if parameter.dim() == 1:
            torch.nn.init.normal_(parameter, mean=float(parameter.detach().mean()), std=0.2)
    return model


def _opened(opened: ExitStack, bundle: Bundle, variant: Variant) -> cuda.DeviceSessions:
    longest = bundle.manifest.max_length
    devices = cuda.open_devices(bundle.graph(variant), variant, [0], {}, longest=longest)
    opened.callback(devices.close)
    devices.warm_up(longest)
    return devices


def _memory(bundle: Path, texts: Sequence[str]) -> Check:
    """Whether memory that runs out is an error that says so, after which the model goes on."""
    goes_on = False
    with encort.load(bundle, device="cuda", provider_options={"gpu_mem_limit": str(MEMORY)}) as model:
        try:
            model.embed(texts)
        except DeviceError:
            goes_on = len(model.embed(texts[:1])) == 1
    name = f"memory that runs out ({MEMORY} bytes) is an error, after which the model goes on"
    return Check(name=name, found=float(goes_on), least=1)
