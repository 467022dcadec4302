"""Check a small model of every kind on a GPU: all outputs of its CUDA graphs against eager PyTorch.

Small runs use captured graphs, large ones do not. One check lets the memory of the GPU run out.
"""

import functools
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers

import encort
from encort.benchmarks.gpu.checks import record_failure
from encort.benchmarks.machine import Machine
from encort.benchmarks.race.models import VOCABULARY, save_with_tokenizer
from encort.benchmarks.race.workload import mixed_texts
from encort.benchmarks.results import Check, Race
from encort.export.exporter import export_bundle
from encort.export.verification.against_checkpoint import verify_against_checkpoint
from encort.runtime.bundle.bundle import Bundle
from encort.runtime.bundle.manifest import Variant
from encort.runtime.common.errors import DeviceError
from encort.runtime.cuda import workers as cuda
from encort.runtime.engine.cores import available_cores
from encort.runtime.verification.tolerance import COSINES, neighbour_limit
from encort.training.dual_encoder import DualEncoderConfig, DualEncoderForNextSentence

SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 256,
    # With the usual small weights the error of a wrong graph could be below the tolerance.
    "initializer_range": 0.1,
    "num_labels": 5,
}
MEMORY = 2**24
"""Bytes: enough for the weights and a few texts, and too little for a whole run."""


def _model(model_type: str, head: Any = transformers.AutoModel, **settings: Any) -> Any:
    return head.from_config(transformers.AutoConfig.for_model(model_type, **{**SIZES, **settings}))


def _dual_encoder() -> Any:
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
    "ALBERT, labels": functools.partial(
        _model, "albert", transformers.AutoModelForSequenceClassification, embedding_size=64, num_hidden_groups=2
    ),
    "ModernBERT, labels": functools.partial(
        _model,
        "modernbert",
        transformers.AutoModelForSequenceClassification,
        **dict.fromkeys(["pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"], 0),
        max_position_embeddings=512,
        local_attention=32,
        num_hidden_layers=3,
    ),
    "DeBERTa, labels": functools.partial(
        _model,
        "deberta-v2",
        transformers.AutoModelForSequenceClassification,
        relative_attention=True,
        position_buckets=64,
        share_att_key=True,
        norm_rel_ebd="layer_norm",
        position_biased_input=False,
        pos_att_type=["p2c", "c2p"],
    ),
    "dual encoder": _dual_encoder,
}
"""Functions that make a model: every architecture, every head, and the dual encoder."""


def run(folder: Path) -> Race:
    """Check all kinds; an error becomes a check that failed.

    Args:
        folder: Folder for the checkpoints and bundles.
    """
    texts = mixed_texts()
    checks: list[Check] = []
    for number, (name, make) in enumerate(KINDS.items()):
        with record_failure(checks, f"{name} is exported"):
            torch.manual_seed(13)
            target = folder / str(number)
            target.mkdir()
            checkpoint = save_with_tokenizer(_with_random_biases(make()), target / "checkpoint", texts)
            bundle = export_bundle(checkpoint, target / "bundle", variants=["cuda-fp16", "cuda-fp32"])
            for variant in bundle.manifest.variants:
                with record_failure(checks, f"{name}, {variant.name} is checked"):
                    checks.extend(_check_variant(name, checkpoint, bundle, variant))
    with record_failure(checks, "memory runs out"):
        checks.append(_check_out_of_memory(folder / "0" / "bundle", texts))
    return Race(
        command=shlex.join(["python", "-m", "encort.benchmarks.gpu", *sys.argv[1:]]),
        machine=replace(Machine.here(), gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None),
        threads=available_cores(),
        model="small models of every kind (random weights)",
        workload="no workload",
        texts=0,
        tokens=0,
        outcomes=[],
        limits=[],
        checks=checks,
    )


def _check_variant(name: str, checkpoint: Path, bundle: Bundle, variant: Variant) -> list[Check]:
    one_variant = Bundle(bundle.folder, replace(bundle.manifest, variants=[variant]))
    with ExitStack() as stack:
        open_session = functools.partial(_open_on_gpu, stack)
        ((_, fidelity),) = verify_against_checkpoint(one_variant, checkpoint, open_session=open_session)
    min_cosine = COSINES[variant.precision][1]
    max_difference = neighbour_limit(variant.precision, variant.vector, bundle.manifest.embedding)
    title = f"{name}, {variant.name}"
    return [
        Check(name=f"{title}: min cosine to eager PyTorch", value=fidelity.min_cosine, least=min_cosine),
        Check(name=f"{title}: max difference to each text alone", value=fidelity.batch_difference, most=max_difference),
    ]


def _with_random_biases(model: Any) -> Any:
    """Give biases and norms random values; their initial 0 and 1 would hide mistakes."""
    for parameter in model.parameters():
        if parameter.dim() == 1:
            torch.nn.init.normal_(parameter, mean=float(parameter.detach().mean()), std=0.2)
    return model


def _open_on_gpu(stack: ExitStack, bundle: Bundle, variant: Variant) -> cuda.GpuWorkers:
    max_length = bundle.manifest.max_length
    workers = cuda.open_devices(bundle.graph(variant), variant, [0], {}, max_length=max_length)
    stack.callback(workers.close)
    workers.warm_up(max_length)
    return workers


def _check_out_of_memory(bundle: Path, texts: Sequence[str]) -> Check:
    """Check that a run without enough memory raises DeviceError, and that the model goes on afterwards."""
    goes_on = False
    with encort.load(bundle, device="cuda", provider_options={"gpu_mem_limit": str(MEMORY)}) as model:
        try:
            model.embed(texts)
        except DeviceError:
            goes_on = len(model.embed(texts[:1])) == 1
    name = f"a run that exceeds the memory ({MEMORY} bytes) is an error, and the model goes on"
    return Check(name=name, value=float(goes_on), least=1)
