"""Observe the inputs of linear layers on calibration texts, and simulate quantized layers, both in eager PyTorch."""

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch

from encort.export.graph.description import Encoder, Linear
from encort.export.int8.quantization import Activations, QuantizedGroup, QuantizedLinear
from encort.export.source.export_source import ExportSource
from encort.export.verification.oracle import Case, Oracle
from encort.export.verification.samples import texts_for
from encort.runtime.bundle.manifest import CalibrationTexts
from encort.runtime.common.arrays import FloatArray
from encort.runtime.common.errors import InputError
from encort.runtime.text.token_batch import Text, TokenBatch
from encort.runtime.text.tokenizer import Tokenizer
from encort.runtime.text.validation import check_texts

log = logging.getLogger("encort")

LEAST_TEXTS, MOST_TEXTS = 8, 640
"""Fewer calibration texts are refused. From more texts this many are drawn, spread over their lengths."""
MOST_TOKENS = 2**13
"""Tokens of the drawn texts. From long texts fewer are drawn, so that the time of an export has a limit."""
SEED = 0
ROWS = 1024
"""Rows of a tensor on which quantization settings are tried."""
_TOKENS_PER_CASE = 512


@dataclass(frozen=True, eq=False, kw_only=True)
class Calibration:
    """Tokenized calibration texts.

    Attributes:
        seen: Texts on which the ranges are chosen.
        judged: Held-back texts on which the result is judged.
        texts: Numbers of these texts, for the manifest.
    """

    seen: TokenBatch
    judged: TokenBatch
    texts: CalibrationTexts

    @classmethod
    def tokenize(cls, source: ExportSource, tokenizer: Tokenizer, texts: Sequence[Text] | None) -> "Calibration":
        """Draw some of the texts, tokenize them, and hold every fifth one back.

        The built-in samples are added to the seen texts, so that kinds of text which the user's texts lack saturate
        less.

        Args:
            source: Source of the export.
            tokenizer: Tokenizer of the bundle.
            texts: Texts of the user. None uses the built-in samples alone, and logs a warning.
        """
        samples = texts_for(source)
        if texts is None:
            log.warning(
                "int8 is calibrated on %d built-in texts; give a few hundred of your own with --calibration for "
                "vectors nearer to full precision",
                len(samples),
            )
        distinct = list(dict.fromkeys(samples if texts is None else texts))
        drawn = _draw_tokens(draw(distinct, MOST_TEXTS), tokenizer)
        if len(drawn) < len(distinct):
            log.warning(
                "int8 is calibrated on %s of %s different texts, drawn over their lengths (seed %d)",
                *(f"{len(drawn):,}", f"{len(distinct):,}", SEED),
            )
        kept = [text for index, text in enumerate(drawn) if index % 5]
        return cls(
            seen=source.tokenize(tokenizer, kept if texts is None else [*kept, *samples]),
            judged=source.tokenize(tokenizer, drawn[::5]),
            texts=CalibrationTexts(given=len(distinct), seen=len(kept), judged=len(drawn[::5]), seed=SEED),
        )


def draw(texts: Sequence[Text], count: int) -> list[Text]:
    """Return at most `count` texts from the shortest to the longest: one at random of each part of equal size."""
    random = np.random.default_rng(SEED)
    lengths = [len(text) if isinstance(text, str) else sum(map(len, text)) for text in texts]
    parts = np.array_split(np.argsort(lengths, kind="stable"), min(count, len(texts)))
    return [texts[int(random.choice(part))] for part in parts]


def _draw_tokens(texts: Sequence[Text], tokenizer: Tokenizer) -> list[Text]:
    """Return texts with about `MOST_TOKENS` tokens in all, evenly spaced."""
    tokens = int(tokenizer(texts).lengths.sum())
    count = max(LEAST_TEXTS, len(texts) * MOST_TOKENS // max(tokens, 1))
    return draw(texts, count)


def check_calibration(texts: Sequence[Text]) -> None:
    """Refuse calibration texts that are too few or invalid.

    Raises:
        InputError: There are too few different texts.
        InputTypeError: An element is neither a text nor a pair.
    """
    check_texts(texts)
    different = len(set(texts))
    if different < LEAST_TEXTS:
        raise InputError(f"calibration needs {LEAST_TEXTS} different texts, better a few hundred; got {different}")


def groups(encoders: Sequence[Encoder]) -> dict[str, tuple[Linear, ...]]:
    """Return the groups of layers that read the same tensor, by the name of each group's first layer."""
    layers = [group for encoder in encoders for layer in encoder.layers for group in layer.linear_groups]
    return {group[0].name: group for group in layers}


def cases(batch: TokenBatch) -> list[Case]:
    """Return cases that hold every text once, without padding: each case holds texts of one length."""
    lengths, result = batch.lengths, []
    for length in np.unique(lengths):
        same_length = np.flatnonzero(lengths == length)
        texts_per_case = max(1, _TOKENS_PER_CASE // int(length))
        parts = np.array_split(same_length, math.ceil(len(same_length) / texts_per_case))
        result += [Case(f"{len(part)} texts of {length} tokens", batch.rows(part)) for part in parts]
    return result


def observe(oracle: Oracle, texts: Sequence[Case], layers: Mapping[str, Sequence[Linear]]) -> dict[str, Activations]:
    """Return the values that each group of layers reads while the oracle runs the texts, by the name of the group."""
    model = oracle.checkpoints[0].model
    observers = {name: _Observer() for name in layers}
    handles = [
        model.get_submodule(group[0].module).register_forward_pre_hook(observers[name].hook)
        for name, group in layers.items()
    ]
    try:
        for case in texts:
            oracle(case)
    finally:
        for handle in handles:
            handle.remove()
    return {name: observer.activations() for name, observer in observers.items()}


@contextmanager
def simulated(oracle: Oracle, quantized: Mapping[str, QuantizedGroup]) -> Iterator[None]:
    """Let the oracle's first checkpoint compute the layers of these groups as in int8, inside the `with` block."""
    model = oracle.checkpoints[0].model
    with ExitStack() as stack:
        for group in quantized.values():
            for name in dict.fromkeys(layer.module for layer in group.layers):
                module = model.get_submodule(name)
                layers = [layer for layer in group.layers if layer.module == name]
                # This attribute hides the method of the class until it is deleted.
                module.forward = _simulated_forward(group, sorted(layers, key=lambda layer: layer.index))
                stack.callback(delattr, module, "forward")
        yield


def _simulated_forward(
    group: QuantizedGroup, layers: Sequence[QuantizedLinear]
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a function that rounds its input to the steps of the group and multiplies it by the rounded weights.

    Args:
        group: Group of the layers.
        layers: All layers of the group that one module holds, in the module's order.
    """
    divisor = torch.ones(1) if group.divisor is None else torch.from_numpy(group.divisor)
    weight = torch.from_numpy(np.concatenate([layer.dequantized for layer in layers], axis=1))
    bias = torch.from_numpy(np.concatenate([layer.bias for layer in layers]))

    def forward(x: torch.Tensor) -> torch.Tensor:
        # The first division makes a copy, so that the other steps can work in place, which is faster.
        steps = (x / divisor).div_(group.scale).round_().add_(group.zero_point).clamp_(0, 255)
        rounded = steps.sub_(group.zero_point).mul_(group.scale)
        return (rounded @ weight).add_(bias)

    return forward


@dataclass
class _Observer:
    """Notes the range of one tensor, and rows picked at random from all cases."""

    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    low: FloatArray | None = None
    high: FloatArray | None = None
    rows: list[FloatArray] = field(default_factory=list)

    def hook(self, _module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        """Note the input of a layer; torch calls this before the layer's `forward`."""
        rows = inputs[0].flatten(0, -2).numpy()
        low, high = rows.min(axis=0), rows.max(axis=0)
        self.low = low if self.low is None else np.minimum(self.low, low)
        self.high = high if self.high is None else np.maximum(self.high, high)
        self.rows.append(rows[self.random.permutation(len(rows))[: max(1, ROWS // 32)]])

    def activations(self) -> Activations:
        """Return the range, and at most `ROWS` of the picked rows."""
        assert self.low is not None
        assert self.high is not None
        rows = np.concatenate(self.rows)
        return Activations(low=self.low, high=self.high, sample=rows[self.random.permutation(len(rows))[:ROWS]])
