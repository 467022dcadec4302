"""The judge itself, with a made-up model in place of eager PyTorch and of the graph."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from encort.export.oracle import Case
from encort.export.verify import verify
from encort.runtime.errors import FidelityError
from encort.runtime.manifest import TOLERANCES, Device, Layout, Output, Precision, Variant
from encort.runtime.tokens import TokenBatch

LIMIT, VOCABULARY = 40, 50
TOLERANCE = TOLERANCES[Precision.FP32]
SAMPLES = TokenBatch(
    ids=np.arange(12),
    type_ids=np.zeros(12, np.int64),
    cu_seqlens=np.array([0, 3, 5, 12]),
    truncated=np.zeros(3, np.bool_),
)


def model(case):
    """Outputs that depend on nothing but each text's own counted tokens."""
    hidden = np.stack([np.sin(case.ids), np.cos(case.ids + case.type_ids)], axis=2).astype(np.float32)
    counted = case.mask[:, :, None].astype(np.float32)
    sentence = (hidden * counted).sum(1) / counted.sum(1)
    # So close to each other that a label can flip within the tolerance.
    logits = sentence[:, :1] * np.array([1, -1], np.float32) * np.float32(TOLERANCE / 4)
    return {Output.LAST_HIDDEN_STATE: hidden, Output.SENTENCE_EMBEDDING: sentence, Output.LOGITS: logits}


@dataclass
class FakeSession:
    """Runs `model`, then `harm`s its outputs; remembers the cases."""

    harm: callable = lambda case, outputs: None  # noqa: ARG005
    cases: list[Case] = field(default_factory=list)

    def run(self, names, inputs):
        ids = inputs["input_ids"]
        case = Case("seen", ids, inputs["token_type_ids"], inputs.get("attention_mask", np.ones_like(ids)))
        self.cases.append(case)
        outputs = {name: array.copy() for name, array in model(case).items()}
        self.harm(case, outputs)
        return [outputs[name] for name in names]


def variant(layout, outputs=(Output.LAST_HIDDEN_STATE, Output.SENTENCE_EMBEDDING, Output.LOGITS)):
    return Variant(
        name=f"fake-{layout}",
        file="fake.onnx",
        weights_file=None,
        device=Device.CPU,
        precision=Precision.FP32,
        layout=layout,
        instruction_set=None,
        inputs={},
        outputs={name.value: [] for name in outputs},
        fidelity=None,
    )


def judge(session, layout=Layout.PADDED, *, samples=SAMPLES, limit=LIMIT, beside=(), **options):
    """The fidelity of one variant, measured together with those `beside` it."""
    variants = [*beside, (variant(layout, **options), session)]
    return verify(variants, model, samples, limit=limit, vocabulary=VOCABULARY, token_types=2)[-1]


def is_full(case):
    return bool(case.mask.all())


@pytest.mark.parametrize("layout", Layout)
def test_batches_are_one_and_many_and_lengths_one_to_the_limit(layout):
    session = FakeSession()
    judge(session, layout)
    shapes = {case.ids.shape for case in session.cases}
    assert {batch for batch, _ in shapes} >= {1, 3, 32}
    assert {length for batch, length in shapes if batch == 1} >= {1, 2, 3, 7, 33, LIMIT - 1, LIMIT}
    assert {length for batch, length in shapes if batch == 3} >= {1, 2, 3, 7, 33, LIMIT - 1, LIMIT}
    assert max(length for _, length in shapes) == LIMIT


@pytest.mark.parametrize("limit", [1, 2, 3, 8])
def test_no_length_passes_the_limit(limit):
    one_token = TokenBatch(
        ids=np.array([5]), type_ids=np.array([0]), cu_seqlens=np.array([0, 1]), truncated=np.array([False])
    )
    session = FakeSession()
    judge(session, samples=one_token, limit=limit)
    assert {case.ids.shape[1] for case in session.cases} >= {1, limit}
    assert max(case.ids.shape[1] for case in session.cases) == limit


def test_every_token_and_both_types_are_tried():
    session = FakeSession()
    judge(session)
    assert set(np.concatenate([case.ids.ravel() for case in session.cases])) == set(range(VOCABULARY))
    assert {0, 1} == set(np.concatenate([case.type_ids.ravel() for case in session.cases]))


def test_masks_have_holes_but_never_at_the_first_token():
    session = FakeSession()
    judge(session)
    assert any((np.diff(case.mask) > 0).any() for case in session.cases)
    assert all(case.mask[:, 0].all() for case in session.cases)


def test_the_equal_length_layout_is_never_given_a_masked_case():
    padded, equal_length = (judge(FakeSession(), layout) for layout in (Layout.PADDED, Layout.EQUAL_LENGTH))
    assert equal_length.cases < padded.cases


def test_every_sample_is_run_alone_and_all_of_them_padded():
    session = FakeSession()
    judge(session)
    alone = [case.ids[0].tolist() for case in session.cases if len(case.ids) == 1]
    for start, end in zip(SAMPLES.cu_seqlens, SAMPLES.cu_seqlens[1:], strict=False):
        assert SAMPLES.ids[start:end].tolist() in alone
    assert [[1, 1, 1, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0], [1] * 7] in [case.mask.tolist() for case in session.cases]


WRONG_WHEN = {
    "always": lambda case: True,  # noqa: ARG005
    "alone": lambda case: len(case.ids) == 1,
    "in a batch of three": lambda case: len(case.ids) == 3,
    "in a batch of 32": lambda case: len(case.ids) == 32,
    "one token": lambda case: case.ids.shape[1] == 1,
    "at the limit": lambda case: case.ids.shape[1] == LIMIT,
    "just below the limit": lambda case: case.ids.shape[1] == LIMIT - 1,
    "masked": lambda case: not is_full(case),
    "full": is_full,
    "second token type": lambda case: case.type_ids.any(),
    "last token of the vocabulary": lambda case: (case.ids == VOCABULARY - 1).any(),
}


@pytest.mark.parametrize("output", [Output.LAST_HIDDEN_STATE, Output.SENTENCE_EMBEDDING, Output.LOGITS])
@pytest.mark.parametrize("wrong", WRONG_WHEN.values(), ids=WRONG_WHEN)
def test_one_wrong_number_is_noticed(wrong, output):
    def harm(case, outputs):
        if wrong(case):
            outputs[output][-1, 0] += 2 * TOLERANCE

    with pytest.raises(FidelityError, match=f"fake-padded differs from eager PyTorch by 0.0002 in {output}"):
        judge(FakeSession(harm))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("output", [Output.LAST_HIDDEN_STATE, Output.SENTENCE_EMBEDDING, Output.LOGITS])
def test_numbers_that_are_not_finite_are_refused(output, value):
    def harm(_, outputs):
        outputs[output][0, 0] = value

    with pytest.raises(FidelityError, match=str(output)):
        judge(FakeSession(harm))


def test_an_error_within_the_tolerance_passes_and_is_measured():
    def harm(_, outputs):
        outputs[Output.SENTENCE_EMBEDDING] += np.float32(0.6 * TOLERANCE)

    errors = judge(FakeSession(harm)).max_abs_error
    assert errors[Output.SENTENCE_EMBEDDING] == pytest.approx(0.6 * TOLERANCE, rel=1e-2)
    assert errors[Output.LAST_HIDDEN_STATE] == errors[Output.LOGITS] == 0


def test_the_largest_error_of_all_cases_is_kept():
    def harm(case, outputs):
        if case.ids.shape == (1, 2):
            outputs[Output.SENTENCE_EMBEDDING] += np.float32(0.6 * TOLERANCE)

    assert judge(FakeSession(harm)).max_abs_error[Output.SENTENCE_EMBEDDING] > 0.5 * TOLERANCE


def test_hidden_states_of_masked_tokens_are_read_by_nobody():
    def harm(case, outputs):
        outputs[Output.LAST_HIDDEN_STATE][case.mask == 0] = np.nan

    assert judge(FakeSession(harm)).max_abs_error[Output.LAST_HIDDEN_STATE] == 0


def test_cosines_are_those_of_the_samples():
    exact = judge(FakeSession())
    assert exact.mean_cosine == pytest.approx(1)

    def harm(case, outputs):
        if case.ids.shape == (1, 7):
            outputs[Output.SENTENCE_EMBEDDING][:, 0] += np.float32(0.9 * TOLERANCE)

    bent = judge(FakeSession(harm))
    assert bent.min_cosine < bent.mean_cosine < exact.mean_cosine
    assert bent.texts == 3


def test_labels_that_flip_within_the_tolerance_are_counted():
    def harm(case, outputs):
        if case.ids.tolist() in ([[0, 1, 2]], [[3, 4]]):
            outputs[Output.LOGITS] *= -1

    assert judge(FakeSession(harm)).label_flips == 2


def test_right_logits_flip_no_label():
    assert judge(FakeSession()).label_flips == 0


def test_a_variant_that_lacks_an_output_is_refused():
    with pytest.raises(FidelityError, match="the same outputs: logits"):
        judge(FakeSession(), outputs=[Output.LAST_HIDDEN_STATE, Output.SENTENCE_EMBEDDING])


def test_what_neighbours_change_is_measured():
    def harm(case, outputs):
        outputs[Output.SENTENCE_EMBEDDING] += np.float32(0.5 * TOLERANCE * (len(case.ids) > 1))

    assert judge(FakeSession()).batch_difference == 0
    assert judge(FakeSession(harm)).batch_difference == pytest.approx(0.5 * TOLERANCE, rel=1e-2)


def test_one_wrong_variant_among_right_ones_is_named():
    def harm(_, outputs):
        outputs[Output.SENTENCE_EMBEDDING] += 1

    with pytest.raises(FidelityError, match="variant fake-padded"):
        judge(FakeSession(harm), beside=[(variant(Layout.EQUAL_LENGTH), FakeSession())])
