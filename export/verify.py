"""Is a variant the model that was trained? Measured against eager PyTorch, never assumed."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from tqdm import tqdm

from encort.export.description import FloatArray
from encort.export.oracle import Case, Oracle, cosines
from encort.runtime.errors import FidelityError
from encort.runtime.manifest import TOLERANCES, Fidelity, Layout, Output, Variant
from encort.runtime.session import Session, graph_inputs
from encort.runtime.tokens import Int64Array, TokenBatch

BATCH = 32
NEIGHBOURS = 4


def verify(
    variants: list[tuple[Variant, Session]],
    oracle: Oracle,
    samples: TokenBatch,
    *,
    limit: int,
    vocabulary: int,
    token_types: int,
    progress: bool = False,
) -> list[Fidelity]:
    """Compare variants with eager PyTorch on real texts, random ids and random masks.

    Each case is run once by the oracle and once by every variant whose layout can hold it.

    Args:
        samples: Real texts, tokenized.
        limit: Most tokens of one input.
        vocabulary: Number of token ids.
        token_types: Number of token type ids.
        progress: Show a bar on stderr.

    Returns:
        The measured fidelity of each variant.

    Raises:
        FidelityError: An output of a variant differs by more than its precision's tolerance.
    """
    measurements = [_Measurement(variant, session) for variant, session in variants]
    cases = [*_sample_cases(samples), *_random_cases(limit, vocabulary, token_types)]
    for case in tqdm(cases, desc="verify", unit="batch", disable=None if progress else True):
        expected = oracle(case)
        for measurement in measurements:
            measurement.compare(case, expected)
    return [measurement.fidelity(samples, vocabulary) for measurement in measurements]


def _sample_cases(samples: TokenBatch) -> Iterator[Case]:
    """Every real text alone, then many together, padded."""
    for index in range(len(samples)):
        ids, type_ids = samples.rows(np.array([index]))
        yield Case(f"sample {index} alone", ids, type_ids, np.ones_like(ids), is_sample=True)
    for start in range(0, len(samples), BATCH):
        yield _padded(samples, np.arange(start, min(start + BATCH, len(samples))))


def _random_cases(limit: int, vocabulary: int, token_types: int) -> Iterator[Case]:
    """Shapes from one token to the limit, then masks with holes."""
    random = np.random.default_rng(0)
    lengths = sorted({min(length, limit) for length in (1, 2, 3, 7, 33, limit - 1, limit)} - {0})
    shapes = [*itertools.product((1, 3), lengths), (BATCH, min(17, limit))]
    for shape in shapes:
        yield _random(random, shape, (vocabulary, token_types), masked=False)
    for shape in shapes:
        if min(shape) > 1:
            yield _random(random, shape, (vocabulary, token_types), masked=True)


def _padded(samples: TokenBatch, indices: Int64Array) -> Case:
    shape = (len(indices), int(samples.lengths[indices].max()))
    ids, type_ids, mask = (np.zeros(shape, np.int64) for _ in range(3))
    for row, index in enumerate(indices):
        (ids[row, : samples.lengths[index]],), (type_ids[row, : samples.lengths[index]],) = samples.rows(
            np.array([index])
        )
        mask[row, : samples.lengths[index]] = 1
    return Case(f"samples {indices[0]} to {indices[-1]} padded", ids, type_ids, mask)


def _random(random: np.random.Generator, shape: tuple[int, int], sizes: tuple[int, int], *, masked: bool) -> Case:
    vocabulary, token_types = sizes
    mask = random.integers(0, 2, shape) if masked else np.ones(shape, np.int64)
    # The first token always counts: no encoder gives a meaning to a text without tokens.
    mask[:, 0] = 1
    name = f"{shape[0]} x {shape[1]} random ids, {'random' if masked else 'no'} mask"
    return Case(name, random.integers(0, vocabulary, shape), random.integers(0, token_types, shape), mask)


@dataclass
class _Measurement:
    """What has been seen of one variant so far."""

    variant: Variant
    session: Session
    max_abs_error: dict[Output, float] = field(default_factory=dict)
    sample_cosines: list[float] = field(default_factory=list)
    label_flips: int = 0
    cases: int = 0

    def compare(self, case: Case, expected: Mapping[Output, FloatArray]) -> None:
        if case.is_masked and self.variant.layout is not Layout.PADDED:
            return
        found = run(self.session, self.variant, case)
        self.cases += 1
        if different := found.keys() ^ expected.keys():
            raise FidelityError(
                f"variant {self.variant.name} and the checkpoint do not give the same outputs: {', '.join(different)}"
            )
        for name, array in found.items():
            self._note_error(case, name, array, expected[name])
        if case.is_sample:
            embeddings = found[Output.SENTENCE_EMBEDDING], expected[Output.SENTENCE_EMBEDDING]
            self.sample_cosines += cosines(*embeddings).tolist()
            if Output.LOGITS in found:
                flipped = found[Output.LOGITS].argmax(1) != expected[Output.LOGITS].argmax(1)
                self.label_flips += int(flipped.sum())

    def _note_error(self, case: Case, name: Output, found: FloatArray, expected: FloatArray) -> None:
        difference = np.abs(found - expected)
        if name is Output.LAST_HIDDEN_STATE:
            # What stands at a masked token is read by nobody.
            difference = difference[case.mask == 1]
        error = float(difference.max())
        limit = TOLERANCES[self.variant.precision]
        if not error <= limit:  # NaN must fail too
            raise FidelityError(
                f"variant {self.variant.name} differs from eager PyTorch by {error:.2g} in {name} ({case.name}); "
                f"the limit is {limit:g}; do not serve it, and please report it with the checkpoint's config.json"
            )
        self.max_abs_error[name] = max(error, self.max_abs_error.get(name, 0.0))

    def fidelity(self, samples: TokenBatch, vocabulary: int) -> Fidelity:
        """What was measured.

        Raises:
            FidelityError: A text's embedding depends on its neighbours by more than the tolerance.
        """
        difference, limit = self._batch_difference(samples, vocabulary), TOLERANCES[self.variant.precision]
        if not difference <= limit:
            raise FidelityError(
                f"variant {self.variant.name}: a text's embedding changes by {difference:.2g} with its neighbours; "
                f"the limit is {limit:g}"
            )
        return Fidelity(
            max_abs_error={name.value: error for name, error in self.max_abs_error.items()},
            mean_cosine=float(np.mean(self.sample_cosines)),
            min_cosine=float(np.min(self.sample_cosines)),
            label_flips=self.label_flips if Output.LOGITS in self.max_abs_error else None,
            batch_difference=difference,
            texts=len(samples),
            cases=self.cases,
        )

    def _batch_difference(self, samples: TokenBatch, vocabulary: int) -> float:
        """Largest change of a text's sentence embedding when other texts of its length run beside it."""
        random, largest = np.random.default_rng(1), 0.0
        for index in range(len(samples)):
            ids, type_ids = samples.rows(np.array([index]))
            others = random.integers(0, vocabulary, (NEIGHBOURS, ids.shape[1]))
            crowd = np.concatenate([ids, others])
            alone = self._embed(ids, type_ids)
            among = self._embed(crowd, np.broadcast_to(type_ids, crowd.shape))
            largest = max(largest, float(np.abs(alone[0] - among[0]).max()))
        return largest

    def _embed(self, ids: Int64Array, type_ids: Int64Array) -> FloatArray:
        inputs = graph_inputs(self.variant.layout, ids, type_ids, np.ones_like(ids))
        return self.session.run([Output.SENTENCE_EMBEDDING], inputs)[0]


def run(session: Session, variant: Variant, case: Case) -> dict[Output, FloatArray]:
    """Every output of the variant for one case."""
    names = [Output(name) for name in variant.outputs]
    inputs = graph_inputs(variant.layout, case.ids, case.type_ids, case.mask)
    return dict(zip(names, session.run(names, inputs), strict=True))
