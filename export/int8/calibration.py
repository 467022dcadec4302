"""What the tensors between the layers hold: seen on calibration texts, in eager PyTorch."""

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch

from encort.export.graph.description import Encoder, Linear
from encort.export.int8.quantization import Activations, QuantizedGroup
from encort.export.source.export_source import ExportSource
from encort.export.verification.oracle import Case, Oracle
from encort.runtime.common.arrays import FloatArray
from encort.runtime.common.errors import InputError
from encort.runtime.text.token_batch import Text, TokenBatch
from encort.runtime.text.tokenizer import Tokenizer
from encort.runtime.text.validation import check_texts

log = logging.getLogger("encort")

LEAST_TEXTS, MOST_TEXTS = 8, 1024
"""Calibration texts: fewer are refused, of more so many are taken, evenly."""
ROWS = 1024
"""Rows of a tensor that quantization is tried on."""
_TOKENS_PER_CASE = 512


@dataclass(frozen=True, eq=False, kw_only=True)
class Calibration:
    """Texts that ranges are chosen on, and others that the choice is judged by."""

    seen: TokenBatch
    judged: TokenBatch

    @classmethod
    def tokenize(cls, trained: ExportSource, tokenizer: Tokenizer, texts: Sequence[Text] | None) -> "Calibration":
        """Hold every fifth text back.

        Beside the user's texts, the built-in samples are seen, so that a kind of text that the user forgot saturates
        less.

        Args:
            texts: None takes the built-in samples, of which a fifth is held back too, with a warning.
        """
        if texts is None:
            log.warning(
                "int8 is calibrated on %d built-in texts; give a few hundred of your own with --calibration for "
                "vectors nearer to full precision",
                len(trained.samples),
            )
        own = list(dict.fromkeys(trained.samples if texts is None else texts))
        picked = [own[index] for index in np.unique(np.linspace(0, len(own) - 1, MOST_TEXTS).astype(int))]
        kept = [text for index, text in enumerate(picked) if index % 5]
        return cls(
            seen=tokenizer(kept if texts is None else [*kept, *trained.samples], reverse=trained.is_pairwise),
            judged=tokenizer(picked[::5], reverse=trained.is_pairwise),
        )


def check_calibration(texts: Sequence[Text]) -> None:
    """Refuse texts that say too little of what will be served.

    Raises:
        InputError: There are too few.
        InputTypeError: One is neither a text nor a pair.
    """
    check_texts(texts)
    different = len(set(texts))
    if different < LEAST_TEXTS:
        raise InputError(f"calibration needs {LEAST_TEXTS} different texts, better a few hundred; got {different}")


def groups(encoders: Sequence[Encoder]) -> dict[str, tuple[Linear, ...]]:
    """Layers that read one tensor, by the name of their first."""
    found = [
        group
        for encoder in encoders
        for layer in encoder.layers
        for group in (
            (layer.query, layer.key, layer.value),
            (layer.attention_output,),
            (layer.intermediate,),
            (layer.output,),
        )
    ]
    return {group[0].name: group for group in found}


def cases(batch: TokenBatch) -> list[Case]:
    """Every text once, those of one length together, nothing padded."""
    lengths, result = batch.lengths, []
    for length in np.unique(lengths):
        same = np.flatnonzero(lengths == length)
        texts_a_case = max(1, _TOKENS_PER_CASE // int(length))
        parts = np.array_split(same, math.ceil(len(same) / texts_a_case))
        result += [Case(f"{len(part)} texts of {length} tokens", batch.rows(part)) for part in parts]
    return result


def observe(oracle: Oracle, texts: Sequence[Case], names: Sequence[str]) -> dict[str, Activations]:
    """What the layers of those names read while the oracle runs the texts."""
    model = oracle.checkpoints[0].model
    seen = {name: _Seen() for name in names}
    handles = [model.get_submodule(name).register_forward_pre_hook(noting.hook) for name, noting in seen.items()]
    try:
        for case in texts:
            oracle(case)
    finally:
        for handle in handles:
            handle.remove()
    return {name: noting.activations() for name, noting in seen.items()}


@contextmanager
def simulated(oracle: Oracle, quantized: Mapping[str, QuantizedGroup]) -> Iterator[None]:
    """Within, the oracle's first checkpoint computes the groups' products as their quantized form would."""
    model = oracle.checkpoints[0].model
    with ExitStack() as stack:
        for group in quantized.values():
            shared = _Shared(group)
            for index, layer in enumerate(group.layers):
                module = model.get_submodule(layer.name)
                module.forward = shared.forward(index)
                stack.callback(delattr, module, "forward")
        yield


class _Shared:
    """The products of a group, computed once for all of its layers, by torch as in the rest of the oracle."""

    def __init__(self, group: QuantizedGroup) -> None:
        self._group = group
        self._divisor = torch.ones(1) if group.divisor is None else torch.from_numpy(group.divisor)
        self._weight = torch.from_numpy(group.weight)
        self._biases = [torch.from_numpy(layer.bias) for layer in group.layers]
        self._input: torch.Tensor | None = None
        self._products: Sequence[torch.Tensor] = ()

    def forward(self, index: int) -> Callable[[torch.Tensor], torch.Tensor]:
        def products(x: torch.Tensor) -> torch.Tensor:
            if x is not self._input:
                zero, scale = self._group.zero_point, self._group.scale
                steps = torch.round(x / self._divisor / scale).add_(zero).clamp_(0, 255)
                product = steps.sub_(zero).mul_(scale) @ self._weight
                self._input, self._products = x, torch.split(product, [len(bias) for bias in self._biases], dim=-1)
            return self._products[index] + self._biases[index]

        return products


@dataclass
class _Seen:
    """One tensor's range, and rows picked at random from all batches."""

    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    low: FloatArray | None = None
    high: FloatArray | None = None
    rows: list[FloatArray] = field(default_factory=list)

    def hook(self, _module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        rows = inputs[0].flatten(0, -2).numpy()
        low, high = rows.min(axis=0), rows.max(axis=0)
        self.low = low if self.low is None else np.minimum(self.low, low)
        self.high = high if self.high is None else np.maximum(self.high, high)
        self.rows.append(rows[self.random.permutation(len(rows))[: max(1, ROWS // 32)]])

    def activations(self) -> Activations:
        assert self.low is not None
        assert self.high is not None
        rows = np.concatenate(self.rows)
        return Activations(low=self.low, high=self.high, sample=rows[self.random.permutation(len(rows))[:ROWS]])
