"""Eager PyTorch, the baseline of every bundle: the checkpoint as transformers runs it, in float32."""

import inspect
from collections.abc import Sequence

import numpy as np
import torch
import transformers

from encort.benchmarks.bundle.inputs import serving_overflow
from encort.export.source.checkpoint import Checkpoint
from encort.runtime.bundle.bundle import Bundle
from encort.runtime.bundle.manifest import TOKENIZER_FILE
from encort.runtime.common.checkpoints.quiet import quiet
from encort.runtime.common.errors import CheckpointError
from encort.runtime.engine.cores import available_cores
from encort.runtime.text.token_batch import Text
from encort.runtime.text.tokenizer import Tokenizer

BATCH = 32
"""Texts per batch; batches keep the order of the texts and are padded to their longest text."""


class Eager:
    """Runs a checkpoint on texts, and drops its outputs.

    The tokenizer is the bundle's, which is faster than transformers' own.
    """

    def __init__(self, bundle: Bundle, checkpoint: str | None, *, threads: int) -> None:
        """Load the checkpoint.

        Args:
            bundle: Bundle that was exported from it.
            checkpoint: Folder or hub id; None takes the checkpoint that was exported.
            threads: Threads of PyTorch.

        Raises:
            CheckpointError: The checkpoint is missing, or cannot be loaded.
        """
        source = bundle.manifest.sources[0]
        name = checkpoint or source.model
        try:
            opened = Checkpoint.open(name, revision=None if checkpoint else source.revision)
        except CheckpointError as error:
            raise CheckpointError(f"{error}; name the checkpoint with --checkpoint, or leave --against out") from error
        model = opened.model
        if isinstance(model, transformers.PreTrainedModel):
            # `Checkpoint` loads the attention that is easiest to compare with; this is the one transformers prefers.
            with quiet(transformers):
                model = type(model).from_pretrained(opened.folder, dtype=torch.float32)
        self._model = model.float().eval()
        self._tokenizer = Tokenizer(bundle.read(TOKENIZER_FILE), max_length=bundle.manifest.max_length)
        self._overflow, self._all_cores = serving_overflow(bundle), threads >= available_cores()
        self._reverse = any(variant.reads_reversed for variant in bundle.manifest.variants)
        self._input_names = set(inspect.signature(model.forward).parameters)
        if getattr(model.config, "type_vocab_size", 2) == 1:
            self._input_names.discard("token_type_ids")
        torch.set_num_threads(threads)

    @torch.inference_mode()
    def __call__(self, texts: Sequence[Text]) -> None:
        """Run all texts."""
        for start in range(0, len(texts), BATCH):
            batch = self._tokenizer(
                texts[start : start + BATCH], overflow=self._overflow, reverse=self._reverse, all_cores=self._all_cores
            )
            rows = batch.rows(np.arange(len(batch)))
            self._model(**{name: torch.from_numpy(array) for name, array in rows.items() if name in self._input_names})
