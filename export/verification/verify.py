"""Compare variants with eager PyTorch, and measure their fidelity."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import repeat

import numpy as np
from tqdm import tqdm

from encort.export.verification.oracle import Case, Oracle, TokenRange, padded_case
from encort.runtime.bundle.cpu import cpu_name
from encort.runtime.bundle.manifest import (
    MASK_POSITION,
    PORTABLE,
    PROMPT_LENGTH,
    Fidelity,
    HeadInfo,
    Layout,
    Task,
    Variant,
)
from encort.runtime.common.arrays import FloatArray, Int64Array
from encort.runtime.common.errors import FidelityError
from encort.runtime.engine.cores import available_cores
from encort.runtime.engine.session import Runner
from encort.runtime.text.token_batch import TokenBatch, pad_rows
from encort.runtime.verification.masked_rows import has_token_rows, run_rows
from encort.runtime.verification.tolerance import COSINES, cosines, error_limit, neighbour_limit

BATCH = 32
NEIGHBOURS = 4
MOST_TOKENS = 2**13
"""Most tokens of a random case. Several texts of 8,192 tokens would take minutes, and gigabytes for each layer."""


def verify(
    variants: Sequence[tuple[Variant, Runner]],
    oracle: Oracle,
    samples: TokenBatch,
    *,
    tokens: TokenRange,
    progress: bool = False,
) -> list[Fidelity]:
    """Compare variants with eager PyTorch on real texts, random ids and random masks.

    The oracle runs each case once. Every variant whose layout can hold the case runs it too.

    Args:
        variants: Variants with their sessions.
        oracle: Eager PyTorch, which gives the expected outputs.
        samples: Tokenized sample texts.
        tokens: Range of the random inputs.
        progress: Show a progress bar on stderr.

    Returns:
        The measured fidelity of each variant.

    Raises:
        FidelityError: An output of a variant differs by more than the tolerance of its precision, or a text's vector
            depends on its neighbours.
    """
    measurements = [_Measurement(variant, session, oracle) for variant, session in variants]
    inputs = list(samples.rows(np.array([0])))
    cases = [*_sample_cases(samples), *_random_cases(tokens, inputs)]
    # A session uses one thread, so that variants can run side by side.
    with ThreadPoolExecutor(available_cores()) as workers:
        for case in tqdm(cases, desc="verify", unit="batch", disable=None if progress else True):
            list(workers.map(_Measurement.compare, measurements, repeat(case), repeat(oracle(case))))
        return list(workers.map(_Measurement.fidelity, measurements, repeat(samples), repeat(tokens)))


def run(session: Runner, variant: Variant, case: Case, heads: Sequence[HeadInfo] = ()) -> dict[str, FloatArray]:
    """Return every output of the variant for one case, by name."""
    names = list(variant.outputs)
    return dict(zip(names, run_rows(session, variant, names, case.inputs, heads), strict=True))


def _sample_cases(samples: TokenBatch) -> Iterator[Case]:
    """Yield every sample text alone, then many texts together, padded."""
    alone = [samples.rows(np.array([index])) for index in range(len(samples))]
    for index, rows in enumerate(alone):
        yield Case(f"sample {index} alone", rows, is_sample=True)
    for start in range(0, len(alone), BATCH):
        yield padded_case(f"samples from {start} padded", alone[start : start + BATCH])


def _random_cases(tokens: TokenRange, inputs: Sequence[str]) -> Iterator[Case]:
    """Yield unmasked shapes from one token to the limit, then random masks, then texts of random lengths."""
    random, limit = np.random.default_rng(0), tokens.length
    lengths = sorted({min(length, limit) for length in (1, 2, 3, 7, 33, limit - 1, limit)} - {0})
    products = [*itertools.product((1, 3), lengths), (BATCH, min(17, limit))]
    shapes = [*dict.fromkeys((max(1, min(rows, MOST_TOKENS // length)), length) for rows, length in products)]
    for masked in (False, True):
        for shape in shapes:
            if not masked or min(shape) > 1:
                name = f"{shape[0]} x {shape[1]} random ids, {'random' if masked else 'no'} mask"
                mask = random.integers(0, 2, shape) if masked else np.ones(shape, np.int64)
                # The first token is never masked, because no encoder defines a result for a text without tokens.
                mask[:, 0] = 1
                yield Case(name, _random(random, mask, tokens, inputs))
    for shape in [(3, min(limit, MOST_TOKENS // 3)), shapes[-1]]:
        ends = random.integers(1, shape[1] + 1, (shape[0], 1))
        ends[-1] = shape[1]
        mask = (np.arange(shape[1]) < ends).astype(np.int64)
        yield Case(f"{shape[0]} texts of 1 to {shape[1]} random ids", _random(random, mask, tokens, inputs))


def _random(
    random: np.random.Generator, mask: Int64Array, tokens: TokenRange, inputs: Sequence[str]
) -> dict[str, Int64Array]:
    """Return random ids, and random lengths of prompts if they are an input, for a mask `(batch, sequence)`."""
    rows = {
        name: random.integers(0, tokens.types if name.endswith("type_ids") else tokens.ids, mask.shape)
        for name in inputs
    }
    rows["attention_mask"] = mask
    if PROMPT_LENGTH in inputs:
        rows[PROMPT_LENGTH] = _prompt_lengths(random, mask)
    if MASK_POSITION in inputs:
        rows[MASK_POSITION] = np.array([random.choice(np.flatnonzero(row)) for row in mask])
    return rows


def _prompt_lengths(random: np.random.Generator, mask: Int64Array) -> Int64Array:
    """Return a random number of leading tokens for each row, which leaves at least the last token, `(batch,)`."""
    last = mask.shape[1] - 1 - mask[:, ::-1].argmax(axis=1)
    lengths: Int64Array = random.integers(0, last + 1)
    return lengths


@dataclass
class _Measurement:
    """Measurements of one variant so far."""

    variant: Variant
    session: Runner
    oracle: Oracle
    max_abs_error: dict[str, float] = field(default_factory=dict)
    sample_cosines: list[float] = field(default_factory=list)
    label_flips: int = 0
    cases: int = 0

    def compare(self, case: Case, expected: Mapping[str, FloatArray]) -> None:
        """Run one case, unless the variant's layout cannot hold it, and note the differences.

        Raises:
            FidelityError: The outputs differ by more than the tolerance, or are not the expected ones.
        """
        layout = self.variant.layout
        if (case.is_masked and layout is Layout.EQUAL_LENGTH) or (case.has_holes and layout is Layout.PACKED):
            return
        self.cases += 1
        outputs = run(self.session, self.variant, case, self.oracle.heads)
        self._check_names(outputs, expected)
        for name, array in outputs.items():
            self._note_error(case, name, array, expected[name])
        if case.is_sample:
            vector = self.variant.vector
            self.sample_cosines += cosines(outputs[vector], expected[vector]).tolist()
            self.label_flips += sum(_flips(head, outputs, expected) for head in self.oracle.heads)

    def _check_names(self, outputs: Mapping[str, FloatArray], expected: Mapping[str, FloatArray]) -> None:
        extra, missing = outputs.keys() - expected.keys(), expected.keys() - outputs.keys()
        if extra or (missing and self.variant.name != PORTABLE):
            names = ", ".join(sorted(extra | missing))
            raise FidelityError(f"variant {self.variant.name} and the checkpoint do not give the same outputs: {names}")

    def _note_error(self, case: Case, name: str, output: FloatArray, expected: FloatArray) -> None:
        if output.shape != expected.shape:
            raise FidelityError(f"variant {self.variant.name}: {name} is {output.shape}, expected {expected.shape}")
        difference = np.abs(output - expected)
        if has_token_rows(self.variant, name, self.oracle.heads) and self.variant.layout is not Layout.EXPANDED:
            # The results of masked tokens are undefined, and no caller reads them.
            difference = difference[case.mask == 1]
        error = float(difference.max())
        limit = error_limit(self.variant.precision, name, self.oracle.embedding)
        if not error <= limit:  # NaN must fail too
            raise FidelityError(
                f"variant {self.variant.name} differs from eager PyTorch by {error:.2g} in {name} ({case.name}); "
                f"the limit is {limit:g}; do not serve it, and please report it with the checkpoint's config.json"
            )
        self.max_abs_error[name] = max(error, self.max_abs_error.get(name, 0.0))

    def fidelity(self, samples: TokenBatch, tokens: TokenRange) -> Fidelity:
        """Return the measurements.

        Raises:
            FidelityError: A text's vector depends on its neighbours, or its direction differs from the expected one,
                by more than the tolerance.
        """
        difference = self._checked_batch_difference(samples, tokens)
        mean, smallest = self._checked_cosines()
        return Fidelity(
            max_abs_error=self.max_abs_error,
            mean_cosine=mean,
            min_cosine=smallest,
            label_flips=self.label_flips if any(_decides(head) for head in self.oracle.heads) else None,
            batch_difference=difference,
            texts=len(samples),
            cases=self.cases,
            metric=None,
            cpu=cpu_name(),
        )

    def _checked_cosines(self) -> tuple[float, float]:
        mean, smallest = float(np.mean(self.sample_cosines)), float(np.min(self.sample_cosines))
        mean_limit, smallest_limit = COSINES[self.variant.precision]
        if not (mean >= mean_limit and smallest >= smallest_limit):
            raise FidelityError(
                f"variant {self.variant.name}: the cosines of {self.variant.vector} to eager PyTorch are {mean:.4f} on "
                f"average and {smallest:.4f} at least; below {mean_limit} and {smallest_limit} a graph is broken"
            )
        return mean, smallest

    def _checked_batch_difference(self, samples: TokenBatch, tokens: TokenRange) -> float:
        difference = self._batch_difference(samples, tokens)
        limit = neighbour_limit(self.variant.precision, self.variant.vector, self.oracle.embedding)
        if not difference <= limit:  # NaN must fail too
            raise FidelityError(
                f"variant {self.variant.name}: a text's {self.variant.vector} changes by {difference:.2g} with its "
                f"neighbours; the limit is {limit:g}"
            )
        return difference

    def _batch_difference(self, samples: TokenBatch, tokens: TokenRange) -> float:
        """Return the largest change of a text's vector between a run alone and a run with neighbours.

        The neighbours are longer than the text if the layout allows it, else as long.
        """
        random, largest = np.random.default_rng(1), 0.0
        for index in range(len(samples)):
            rows = samples.rows(np.array([index]))
            length = rows["input_ids"].shape[1]
            if self.variant.layout is not Layout.EQUAL_LENGTH:
                length = min(2 * length, tokens.length)
            neighbours = _random(random, np.ones((NEIGHBOURS, length), np.int64), tokens, list(rows))
            alone = self._first_vector(rows)
            # Where the vector has a row per token, it is as long as the longest neighbour.
            together = self._first_vector(pad_rows([rows, neighbours]))[: len(alone)]
            largest = max(largest, float(np.abs(alone - together).max()))
        return largest

    def _first_vector(self, rows: Mapping[str, Int64Array]) -> FloatArray:
        vectors: FloatArray = self.session.run([self.variant.vector], rows)[0]
        first: FloatArray = vectors[0]
        return first


def _decides(head: HeadInfo) -> bool:
    """Return whether the head's logits decide between labels, not on a number or on an answer."""
    return bool(head.labels) and head.task is not Task.TEXT_REGRESSION


def _flips(head: HeadInfo, outputs: Mapping[str, FloatArray], expected: Mapping[str, FloatArray]) -> int:
    """Return the number of decisions that differ: per text, per token, or per label of a multi-label task."""
    if not _decides(head) or head.outputs[0] not in outputs:
        return 0
    logits, expected_logits = outputs[head.outputs[0]], expected[head.outputs[0]]
    if head.task is Task.MULTI_LABEL_CLASSIFICATION:
        cut = math.log(head.threshold / (1 - head.threshold))
        return int(((logits >= cut) != (expected_logits >= cut)).sum())
    return int((logits.argmax(-1) != expected_logits.argmax(-1)).sum())
