"""Is a variant the model that was trained? Measured against eager PyTorch, never assumed."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import repeat

import numpy as np
from tqdm import tqdm

from encort.export.verification.oracle import Case, Oracle, TokenRange, padded_case
from encort.runtime.bundle.cpu import cpu_name
from encort.runtime.bundle.manifest import PORTABLE, Fidelity, HeadInfo, Layout, Task, Variant
from encort.runtime.common.arrays import FloatArray, Int64Array
from encort.runtime.common.errors import FidelityError
from encort.runtime.engine.cores import available_cores
from encort.runtime.engine.session import Runner
from encort.runtime.text.token_batch import TokenBatch, padded
from encort.runtime.verification.tolerance import COSINES, cosines, error_limit, neighbour_limit

BATCH = 32
NEIGHBOURS = 4


def verify(
    variants: Sequence[tuple[Variant, Runner]],
    oracle: Oracle,
    samples: TokenBatch,
    *,
    tokens: TokenRange,
    progress: bool = False,
) -> list[Fidelity]:
    """Compare variants with eager PyTorch on real texts, random ids and random masks.

    Each case is run once by the oracle and once by every variant whose layout can hold it.

    Args:
        samples: Real texts, tokenized.
        tokens: What random inputs are drawn from.
        progress: Show a bar on stderr.

    Returns:
        The measured fidelity of each variant.

    Raises:
        FidelityError: An output of a variant differs by more than its precision's tolerance, or a text's vector
            depends on its neighbours.
    """
    measurements = [_Measurement(variant, session, oracle) for variant, session in variants]
    inputs = list(samples.rows(np.array([0])))
    cases = [*_sample_cases(samples), *_random_cases(tokens, inputs)]
    # A run on CPUs has one thread, as when many are served, so variants can run side by side.
    with ThreadPoolExecutor(available_cores()) as workers:
        for case in tqdm(cases, desc="verify", unit="batch", disable=None if progress else True):
            list(workers.map(_Measurement.compare, measurements, repeat(case), repeat(oracle(case))))
        return list(workers.map(_Measurement.fidelity, measurements, repeat(samples), repeat(tokens)))


def _sample_cases(samples: TokenBatch) -> Iterator[Case]:
    """Every real text alone, then many together, padded."""
    alone = [samples.rows(np.array([index])) for index in range(len(samples))]
    for index, rows in enumerate(alone):
        yield Case(f"sample {index} alone", rows, is_sample=True)
    for start in range(0, len(alone), BATCH):
        yield padded_case(f"samples from {start} padded", alone[start : start + BATCH])


def _random_cases(tokens: TokenRange, inputs: Sequence[str]) -> Iterator[Case]:
    """Shapes from one token to the limit, then masks with holes, then texts that end anywhere."""
    random, limit = np.random.default_rng(0), tokens.length
    lengths = sorted({min(length, limit) for length in (1, 2, 3, 7, 33, limit - 1, limit)} - {0})
    shapes = [*itertools.product((1, 3), lengths), (BATCH, min(17, limit))]
    for masked in (False, True):
        for shape in shapes:
            if not masked or min(shape) > 1:
                name = f"{shape[0]} x {shape[1]} random ids, {'random' if masked else 'no'} mask"
                yield Case(name, _random(random, shape, tokens, inputs, masked=masked))
    for shape in [(3, limit), shapes[-1]]:
        rows = _random(random, shape, tokens, inputs, masked=False)
        ends = random.integers(1, shape[1] + 1, (shape[0], 1))
        ends[-1] = shape[1]
        mask = (np.arange(shape[1]) < ends).astype(np.int64)
        yield Case(f"{shape[0]} texts of 1 to {shape[1]} random ids", {**rows, "attention_mask": mask})


def _random(
    random: np.random.Generator, shape: tuple[int, int], tokens: TokenRange, inputs: Sequence[str], *, masked: bool
) -> dict[str, Int64Array]:
    mask = random.integers(0, 2, shape) if masked else np.ones(shape, np.int64)
    # The first token always counts: no encoder gives a meaning to a text without tokens.
    mask[:, 0] = 1
    rows = {
        name: random.integers(0, tokens.types if name.endswith("type_ids") else tokens.ids, shape) for name in inputs
    }
    return rows | {"attention_mask": mask}


@dataclass
class _Measurement:
    """What has been seen of one variant so far."""

    variant: Variant
    session: Runner
    oracle: Oracle
    max_abs_error: dict[str, float] = field(default_factory=dict)
    sample_cosines: list[float] = field(default_factory=list)
    label_flips: int = 0
    cases: int = 0

    def compare(self, case: Case, expected: Mapping[str, FloatArray]) -> None:
        layout = self.variant.layout
        if (case.is_masked and layout is Layout.EQUAL_LENGTH) or (case.has_holes and layout is Layout.PACKED):
            return
        self.cases += 1
        found = run(self.session, self.variant, case)
        extra, missing = found.keys() - expected.keys(), expected.keys() - found.keys()
        if extra or (missing and self.variant.name != PORTABLE):
            names = ", ".join(sorted(extra | missing))
            raise FidelityError(f"variant {self.variant.name} and the checkpoint do not give the same outputs: {names}")
        for name, array in found.items():
            self._note_error(case, name, array, expected[name])
        if case.is_sample:
            vector = self.variant.vector
            self.sample_cosines += cosines(found[vector], expected[vector]).tolist()
            self.label_flips += sum(_flips(head, found, expected) for head in self.oracle.heads)

    def _note_error(self, case: Case, name: str, found: FloatArray, expected: FloatArray) -> None:
        if found.shape != expected.shape:
            raise FidelityError(f"variant {self.variant.name}: {name} is {found.shape}, expected {expected.shape}")
        difference = np.abs(found - expected)
        if self.variant.is_tokenwise(name):
            # What stands at a masked token is read by nobody.
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
        """What was measured.

        Raises:
            FidelityError: A text's vector depends on its neighbours by more than the tolerance, or points elsewhere.
        """
        difference = self._batch_difference(samples, tokens)
        limit = neighbour_limit(self.variant.precision, self.variant.vector, self.oracle.embedding)
        if not difference <= limit:
            raise FidelityError(
                f"variant {self.variant.name}: a text's {self.variant.vector} changes by {difference:.2g} with its "
                f"neighbours; the limit is {limit:g}"
            )
        mean, least = float(np.mean(self.sample_cosines)), float(np.min(self.sample_cosines))
        mean_limit, least_limit = COSINES[self.variant.precision]
        if not (mean >= mean_limit and least >= least_limit):
            raise FidelityError(
                f"variant {self.variant.name}: the cosines of {self.variant.vector} to eager PyTorch are {mean:.4f} on "
                f"average and {least:.4f} at least; below {mean_limit} and {least_limit} a graph is broken"
            )
        return Fidelity(
            max_abs_error=self.max_abs_error,
            mean_cosine=mean,
            min_cosine=least,
            label_flips=self.label_flips if any(_decides(head) for head in self.oracle.heads) else None,
            batch_difference=difference,
            texts=len(samples),
            cases=self.cases,
            metric=None,
            cpu=cpu_name(),
        )

    def _batch_difference(self, samples: TokenBatch, tokens: TokenRange) -> float:
        """Largest change of a text's vector when others run beside it: of its length, or where it may be, longer."""
        random, largest = np.random.default_rng(1), 0.0
        for index in range(len(samples)):
            rows = samples.rows(np.array([index]))
            length = rows["input_ids"].shape[1]
            if self.variant.layout is not Layout.EQUAL_LENGTH:
                length = min(2 * length, tokens.length)
            others = _random(random, (NEIGHBOURS, length), tokens, list(rows), masked=False)
            crowd = padded([rows, others])
            alone = self._vector(rows)[0]
            # A vector of tokens is as long as the longest text of the crowd.
            among = self._vector(crowd)[0][: len(alone)]
            largest = max(largest, float(np.abs(alone - among).max()))
        return largest

    def _vector(self, rows: Mapping[str, Int64Array]) -> FloatArray:
        return self.session.run([self.variant.vector], rows)[0]


def run(session: Runner, variant: Variant, case: Case) -> dict[str, FloatArray]:
    """Every output of the variant for one case."""
    names = list(variant.outputs)
    return dict(zip(names, session.run(names, case.inputs), strict=True))


def _decides(head: HeadInfo) -> bool:
    """Whether its logits are a decision and not a number or a place."""
    return bool(head.labels) and head.task is not Task.TEXT_REGRESSION


def _flips(head: HeadInfo, found: Mapping[str, FloatArray], expected: Mapping[str, FloatArray]) -> int:
    """Texts, tokens, or labels of a text, that are decided otherwise."""
    if not _decides(head) or head.outputs[0] not in found:
        return 0
    first, second = found[head.outputs[0]], expected[head.outputs[0]]
    if head.task is Task.MULTI_LABEL_CLASSIFICATION:
        return int(((first > 0) != (second > 0)).sum())
    return int((first.argmax(-1) != second.argmax(-1)).sum())
