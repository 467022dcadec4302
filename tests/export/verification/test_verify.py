"""`verify` itself, with a fake model in place of eager PyTorch and of the graph."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encort.export.verification.oracle import Case, Oracle
from encort.export.verification.verify import TokenRange, verify
from encort.runtime.bundle.manifest import (
    LAST_HIDDEN_STATE,
    PORTABLE,
    SENTENCE_EMBEDDING,
    Device,
    Embedding,
    Fidelity,
    HeadInfo,
    Layout,
    Pooling,
    Precision,
    Task,
    Variant,
)
from encort.runtime.common.errors import FidelityError
from encort.runtime.text.token_batch import TokenBatch
from encort.runtime.verification.tolerance import error_limit

LIMIT, VOCABULARY = 40, 50
Arrays = dict[str, np.ndarray]
LOGITS = "logits"
TOLERANCE = error_limit(Precision.FP32, LOGITS, None)
SAMPLES = TokenBatch(
    ids=np.arange(12),
    type_ids=np.zeros(12, np.int64),
    cu_seqlens=np.array([0, 3, 5, 12]),
    truncated=np.zeros(3, np.bool_),
)
AXES = {
    LAST_HIDDEN_STATE: ["batch", "sequence", "2"],
    SENTENCE_EMBEDDING: ["batch", "2"],
    LOGITS: ["batch", "2"],
}
RAW = Embedding(pooling=[Pooling.MEAN], normalize=False)
UNIT = Embedding(pooling=[Pooling.MEAN], normalize=True)
HEAD = HeadInfo(name="head", task=Task.TEXT_CLASSIFICATION, labels=["a", "b"], outputs=[LOGITS])


@dataclass(frozen=True)
class FakeOracle(Oracle):
    """Gives outputs that depend only on the unmasked tokens of each text."""

    checkpoints: tuple[()] = ()
    heads: tuple[HeadInfo, ...] = (HEAD,)
    embedding: Embedding = RAW

    def __call__(self, case: Case) -> Arrays:
        hidden = np.stack([np.sin(ids(case)), np.cos(ids(case) + types(case))], axis=2).astype(np.float32)
        counted = case.mask[:, :, None].astype(np.float32)
        sentence = (hidden * counted).sum(1) / counted.sum(1)
        # Both logits are so close to each other that a label can flip within the tolerance.
        logits = sentence[:, :1] * np.array([1, -1], np.float32) * np.float32(TOLERANCE / 4)
        return {LAST_HIDDEN_STATE: hidden, SENTENCE_EMBEDDING: sentence, LOGITS: logits}


@dataclass
class FakeSession:
    """Runs the same model, changes its outputs with `harm`, and remembers the cases."""

    harm: Callable[[Case, Arrays], None] = lambda case, outputs: None  # noqa: ARG005
    cases: list[Case] = field(default_factory=list)

    def run(self, names: Sequence[str], inputs: Arrays) -> list[np.ndarray]:
        case = Case("seen", inputs)
        self.cases.append(case)
        outputs = {name: array.copy() for name, array in FakeOracle()(case).items()}
        self.harm(case, outputs)
        return [outputs[name] for name in names]


def ids(case: Case) -> np.ndarray:
    return case.inputs["input_ids"]


def types(case: Case) -> np.ndarray:
    return case.inputs["token_type_ids"]


def variant(layout: Layout, outputs: Sequence[str] = tuple(AXES), name: str | None = None) -> Variant:
    return Variant(
        name=name or f"fake-{layout}",
        file="fake.onnx",
        weights_file=None,
        device=Device.CPU,
        precision=Precision.FP32,
        layout=layout,
        instruction_set=None,
        inputs={},
        outputs={name: AXES[name] for name in outputs},
        fidelity=None,
    )


def judge(
    session: "FakeSession",
    layout: Layout = Layout.RAGGED,
    *,
    oracle: Oracle | None = None,
    samples: TokenBatch = SAMPLES,
    limit: int = LIMIT,
    beside: Sequence[tuple[Variant, FakeSession]] = (),
    **options: Any,
) -> Fidelity:
    """Return the fidelity of one variant, measured together with the variants `beside` it."""
    variants = [*beside, (variant(layout, **options), session)]
    tokens = TokenRange(length=limit, ids=VOCABULARY, types=2)
    return verify(variants, oracle or FakeOracle(), samples, tokens=tokens)[-1]


def is_full(case: Case) -> bool:
    return bool(case.mask.all())


@pytest.mark.parametrize("layout", Layout)
def test_cases_cover_batches_of_one_and_many_and_lengths_up_to_the_limit(layout: Layout) -> None:
    session = FakeSession()
    judge(session, layout)
    shapes = {ids(case).shape for case in session.cases}
    assert {batch for batch, _ in shapes} >= {1, 3, 32}
    assert {length for batch, length in shapes if batch == 1} >= {1, 2, 3, 7, 33, LIMIT - 1, LIMIT}
    assert {length for batch, length in shapes if batch == 3} >= {1, 2, 3, 7, 33, LIMIT - 1, LIMIT}
    assert max(length for _, length in shapes) == LIMIT


@pytest.mark.parametrize("limit", [1, 2, 3, 8])
def test_no_case_is_longer_than_the_limit(limit: int) -> None:
    one_token = TokenBatch(
        ids=np.array([5]), type_ids=np.array([0]), cu_seqlens=np.array([0, 1]), truncated=np.array([False])
    )
    session = FakeSession()
    judge(session, samples=one_token, limit=limit)
    assert {ids(case).shape[1] for case in session.cases} >= {1, limit}
    assert max(ids(case).shape[1] for case in session.cases) == limit


def test_long_limits_are_tried_with_one_text_and_shorter_neighbours() -> None:
    session = FakeSession()
    judge(session, limit=8192)
    shapes = [ids(case).shape for case in session.cases]
    assert {(1, 8191), (1, 8192)} <= set(shapes)
    assert max(batch * length for batch, length in shapes) == 8192
    assert any(length > 2000 and not is_full(case) for case, (_, length) in zip(session.cases, shapes, strict=True))


def test_every_token_and_both_types_are_tried() -> None:
    session = FakeSession()
    judge(session)
    assert set(np.concatenate([ids(case).ravel() for case in session.cases])) == set(range(VOCABULARY))
    assert {0, 1} == set(np.concatenate([types(case).ravel() for case in session.cases]))


def test_masks_have_holes_but_never_at_the_first_token() -> None:
    session = FakeSession()
    judge(session)
    assert any((np.diff(case.mask) > 0).any() for case in session.cases)
    assert all(case.mask[:, 0].all() for case in session.cases)


def test_the_equal_length_layout_is_never_given_a_masked_case() -> None:
    padded, equal_length = FakeSession(), FakeSession()
    assert judge(equal_length, Layout.EQUAL_LENGTH).cases < judge(padded, Layout.RAGGED).cases
    assert all(map(is_full, equal_length.cases))
    assert not all(map(is_full, padded.cases))


def test_every_sample_is_run_alone_and_all_of_them_padded() -> None:
    session = FakeSession()
    judge(session)
    alone = [ids(case)[0].tolist() for case in session.cases if len(ids(case)) == 1]
    for start, end in zip(SAMPLES.cu_seqlens, SAMPLES.cu_seqlens[1:], strict=False):
        assert SAMPLES.ids[start:end].tolist() in alone
    assert [[1, 1, 1, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0], [1] * 7] in [case.mask.tolist() for case in session.cases]


WRONG_WHEN = {
    "always": lambda case: True,  # noqa: ARG005
    "alone": lambda case: len(ids(case)) == 1,
    "in a batch of three": lambda case: len(ids(case)) == 3,
    "in a batch of 32": lambda case: len(ids(case)) == 32,
    "one token": lambda case: ids(case).shape[1] == 1,
    "at the limit": lambda case: ids(case).shape[1] == LIMIT,
    "just below the limit": lambda case: ids(case).shape[1] == LIMIT - 1,
    "masked": lambda case: not is_full(case),
    "full": is_full,
    "second token type": lambda case: types(case).any(),
    "last token of the vocabulary": lambda case: (ids(case) == VOCABULARY - 1).any(),
}


@pytest.mark.parametrize("output", AXES)
@pytest.mark.parametrize("wrong", WRONG_WHEN.values(), ids=WRONG_WHEN)
def test_one_wrong_number_is_noticed(wrong: Callable[[Case], bool], output: Path) -> None:
    def harm(case: Case, outputs: Arrays) -> None:
        if wrong(case):
            outputs[output][-1, 0] += 2 * TOLERANCE

    with pytest.raises(FidelityError, match=f"fake-ragged differs from eager PyTorch by 0.0002 in {output}"):
        judge(FakeSession(harm))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("output", AXES)
def test_numbers_that_are_not_finite_are_refused(output: Path, value: float) -> None:
    def harm(_: Case, outputs: Arrays) -> None:
        outputs[output][0, 0] = value

    with pytest.raises(FidelityError, match=output):
        judge(FakeSession(harm))


def test_an_error_within_the_tolerance_passes_and_is_measured() -> None:
    def harm(_: Case, outputs: Arrays) -> None:
        outputs[SENTENCE_EMBEDDING] += np.float32(0.6 * TOLERANCE)

    errors = judge(FakeSession(harm)).max_abs_error
    assert errors[SENTENCE_EMBEDDING] == pytest.approx(0.6 * TOLERANCE, rel=1e-2)
    assert errors[LAST_HIDDEN_STATE] == errors[LOGITS] == 0


def test_normalized_embeddings_have_a_stricter_limit() -> None:
    def harm(_: Case, outputs: Arrays) -> None:
        outputs[SENTENCE_EMBEDDING] += np.float32(0.6 * TOLERANCE)

    with pytest.raises(FidelityError, match=r"sentence_embedding .* the limit is 1e-05"):
        judge(FakeSession(harm), oracle=FakeOracle(embedding=UNIT))


def test_the_largest_error_of_all_cases_is_kept() -> None:
    def harm(case: Case, outputs: Arrays) -> None:
        if ids(case).shape == (1, 2):
            outputs[SENTENCE_EMBEDDING] += np.float32(0.6 * TOLERANCE)

    assert judge(FakeSession(harm)).max_abs_error[SENTENCE_EMBEDDING] > 0.5 * TOLERANCE


def test_hidden_states_of_masked_tokens_are_not_compared() -> None:
    def harm(case: Case, outputs: Arrays) -> None:
        outputs[LAST_HIDDEN_STATE][case.mask == 0] = np.nan

    assert judge(FakeSession(harm)).max_abs_error[LAST_HIDDEN_STATE] == 0


def test_cosines_are_measured_on_the_samples() -> None:
    exact = judge(FakeSession())
    assert exact.mean_cosine == pytest.approx(1)

    def harm(case: Case, outputs: Arrays) -> None:
        if ids(case).shape == (1, 7):
            outputs[SENTENCE_EMBEDDING][:, 0] += np.float32(0.9 * TOLERANCE)

    bent = judge(FakeSession(harm))
    assert bent.min_cosine < bent.mean_cosine < exact.mean_cosine
    assert bent.texts == 3


def test_labels_that_flip_within_the_tolerance_are_counted() -> None:
    def harm(case: Case, outputs: Arrays) -> None:
        if ids(case).tolist() in ([[0, 1, 2]], [[3, 4]]):
            outputs[LOGITS] *= -1

    assert judge(FakeSession(harm)).label_flips == 2


def test_exact_logits_flip_no_label() -> None:
    assert judge(FakeSession()).label_flips == 0


@dataclass(frozen=True)
class Headless(FakeOracle):
    def __call__(self, case: Case) -> Arrays:
        return {name: array for name, array in FakeOracle.__call__(self, case).items() if name != LOGITS}


@pytest.mark.parametrize("outputs", [list(AXES), [SENTENCE_EMBEDDING, LOGITS]], ids=" ".join)
@pytest.mark.parametrize("name", ["cpu-fp32", PORTABLE])
def test_a_variant_with_an_output_that_the_checkpoint_lacks_is_refused(name: str, outputs: Sequence[str]) -> None:
    with pytest.raises(FidelityError, match=rf"{name} and the checkpoint do not give the same outputs: .*{LOGITS}"):
        judge(FakeSession(), oracle=Headless(), name=name, outputs=outputs)


def test_a_variant_that_lacks_an_output_is_refused() -> None:
    with pytest.raises(FidelityError, match=f"fake-ragged and the checkpoint do not give the same outputs: {LOGITS}"):
        judge(FakeSession(), outputs=[LAST_HIDDEN_STATE, SENTENCE_EMBEDDING])


def test_the_portable_variant_may_lack_outputs() -> None:
    fidelity = judge(FakeSession(), name=PORTABLE, outputs=[LAST_HIDDEN_STATE, SENTENCE_EMBEDDING])
    assert set(fidelity.max_abs_error) == {LAST_HIDDEN_STATE, SENTENCE_EMBEDDING}


def test_an_output_of_another_shape_is_refused() -> None:
    def harm(_: Case, outputs: Arrays) -> None:
        outputs[LOGITS] = outputs[LOGITS][:, :1]

    with pytest.raises(FidelityError, match=r"logits is .*, expected"):
        judge(FakeSession(harm))


def test_the_effect_of_neighbours_is_measured() -> None:
    def harm(case: Case, outputs: Arrays) -> None:
        outputs[SENTENCE_EMBEDDING] += np.float32(0.5 * TOLERANCE * (len(ids(case)) > 1))

    assert judge(FakeSession()).batch_difference == 0
    assert judge(FakeSession(harm)).batch_difference == pytest.approx(0.5 * TOLERANCE, rel=1e-2)


def test_a_vector_that_depends_on_its_neighbours_is_refused() -> None:
    def harm(case: Case, outputs: Arrays) -> None:
        outputs[SENTENCE_EMBEDDING] += np.float32(0.6 * TOLERANCE * (1 if len(ids(case)) > 1 else -1))

    with pytest.raises(FidelityError, match=r"sentence_embedding changes by 0\.00012 with its neighbours"):
        judge(FakeSession(harm))


def test_one_wrong_variant_among_right_ones_is_named() -> None:
    def harm(_: Case, outputs: Arrays) -> None:
        outputs[SENTENCE_EMBEDDING] += 1

    with pytest.raises(FidelityError, match="variant fake-ragged"):
        judge(FakeSession(harm), beside=[(variant(Layout.EQUAL_LENGTH), FakeSession())])
