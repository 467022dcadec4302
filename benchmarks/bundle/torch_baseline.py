"""Eager PyTorch, what every bundle is measured against: the checkpoint as transformers runs it, in float32."""

import inspect
from collections.abc import Sequence

import numpy as np
import torch
import transformers

from encort.benchmarks.bundle.inputs import overflow_of
from encort.export.source.checkpoint import Checkpoint
from encort.runtime.bundle.bundle import Bundle
from encort.runtime.bundle.manifest import TOKENIZER_FILE
from encort.runtime.common.errors import CheckpointError
from encort.runtime.engine.cores import available_cores
from encort.runtime.text.token_batch import Text
from encort.runtime.text.tokenizer import Tokenizer

BATCH = 32
"""Texts a batch, in the order in which they come, padded to the longest."""


class Eager:
    """A checkpoint with the bundle's tokenizer, which is faster than transformers'; nothing is made of the logits."""

    def __init__(self, bundle: Bundle, checkpoint: str | None, *, threads: int) -> None:
        """Load it.

        Args:
            checkpoint: Folder or hub id; None takes what the bundle was made of.

        Raises:
            CheckpointError: It is not there any more, or cannot be loaded.
        """
        source = bundle.manifest.sources[0]
        name = checkpoint or source.model
        try:
            opened = Checkpoint.open(name, revision=None if checkpoint else source.revision)
        except CheckpointError as error:
            raise CheckpointError(f"{error}; name the checkpoint with --checkpoint, or leave --against out") from error
        model = opened.model
        if isinstance(model, transformers.PreTrainedModel):
            # With the attention that transformers prefers, and not the one that is easiest to compare with.
            model = type(model).from_pretrained(opened.folder)
        self._model = model.float().eval()
        self._tokenizer = Tokenizer(bundle.path(TOKENIZER_FILE), max_length=bundle.manifest.max_length)
        self._overflow, self._all_cores = overflow_of(bundle), threads >= available_cores()
        self._reverse = any(variant.reads_reversed for variant in bundle.manifest.variants)
        self._wanted = set(inspect.signature(model.forward).parameters)
        if getattr(model.config, "type_vocab_size", 2) == 1:
            self._wanted.discard("token_type_ids")
        torch.set_num_threads(threads)

    @torch.inference_mode()
    def __call__(self, texts: Sequence[Text]) -> None:
        """Run all of them."""
        for start in range(0, len(texts), BATCH):
            batch = self._tokenizer(
                texts[start : start + BATCH], overflow=self._overflow, reverse=self._reverse, all_cores=self._all_cores
            )
            rows = batch.rows(np.arange(len(batch)))
            self._model(**{name: torch.from_numpy(array) for name, array in rows.items() if name in self._wanted})
