"""Graphs of a few shapes: what fills them up changes nothing, and the places on a device are the CPU's here."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encort.export.verification.cpu_attention import cpu_attention_session
from encort.runtime.bundle.bundle import Bundle
from encort.runtime.common.errors import EncortError
from encort.runtime.cuda.cuda_graphs import CapturedSession, Shape, filled, grid
from encort.runtime.cuda.packing import Packing, packed_specs

LONGEST = 64
NAMES = ["sentence_embedding", "last_hidden_state", "logits"]


def packed(lengths):
    """Inputs of texts of these lengths."""
    counts = np.arange(max(lengths)) < np.array(lengths)[:, None]
    ids = np.random.default_rng(sum(lengths)).integers(5, 90, counts.shape)
    return Packing(counts).inputs({"input_ids": ids, "token_type_ids": ids % 2, "attention_mask": counts * 1})


@pytest.mark.parametrize("longest", [1, 24, 128, 512, 8192])
def test_no_filling_is_longer_than_a_text(longest):
    assert all(shape.tokens <= longest for shape in grid(longest))
    assert grid(longest) == sorted(grid(longest), key=lambda shape: shape.tokens)


@given(st.lists(st.integers(1, 20), min_size=1, max_size=16), st.sampled_from(grid(512)))
def test_a_filling_has_a_token_a_row_and_touches_nothing(lengths, shape):
    inputs = packed(lengths)
    if not shape.fits(len(lengths), sum(lengths)):
        return
    full = filled(inputs, shape)
    assert full["cu_seqlens"][: len(lengths) + 1].tolist() == inputs["cu_seqlens"].tolist()
    assert full["cu_seqlens"][-1] == shape.tokens
    assert (np.diff(full["cu_seqlens"]) >= 1).all()
    assert len(full["cu_seqlens"]) == shape.rows + 1
    for name in ("input_ids", "token_type_ids", "position_ids"):
        assert full[name].shape == (shape.tokens,)
        assert full[name][: sum(lengths)].tolist() == inputs[name].tolist()
        assert full[name].dtype == np.int64
    places = full["token_offset"]
    assert places.shape == (shape.rows, shape.tokens)
    assert sorted(places.ravel().tolist()) == list(range(places.size))
    rows = np.repeat(np.arange(shape.rows), np.diff(full["cu_seqlens"]))
    assert (places.ravel()[: shape.tokens] // shape.tokens).tolist() == rows.tolist()


@given(st.integers(1, 40), st.integers(1, 600))
def test_the_smallest_shape_that_fits_leaves_room_for_a_filling(rows, tokens):
    fitting = [shape for shape in grid(512) if shape.fits(rows, tokens)]
    assert all(shape.rows > rows and shape.tokens - tokens >= shape.rows - rows for shape in fitting)
    assert bool(fitting) == (rows < 17 and tokens + next(n for n in (2, 5, 17) if n > rows) - rows <= 384)


@pytest.fixture(scope="module")
def session(cuda_bundle):
    bundle = Bundle.open(cuda_bundle)
    variant = next(each for each in bundle.manifest.variants if each.name == "cuda-fp32")
    return cpu_attention_session(bundle, variant), variant


@pytest.fixture
def captured(session):
    plain, variant = session
    made = CapturedSession(plain, variant, longest=LONGEST, device="cpu", number=0)
    made.capture()
    return made


@pytest.fixture
def run(session):
    """`run(session, names, inputs)`: what it writes to new memory."""
    _, variant = session

    def write(session, names, inputs):
        rows, sequence = inputs["token_offset"].shape
        _, outputs = packed_specs(variant, rows=rows, tokens=len(inputs["input_ids"]), sequence=sequence)
        arrays = {name: np.full(outputs[name][0], np.nan, outputs[name][1]) for name in names}
        session.run_into(arrays, inputs)
        return list(arrays.values())

    return write


@pytest.mark.parametrize("lengths", [[1], [16], [22, 1], [3, 9, 1, 20], [40], [60], [9] * 12])
def test_what_is_captured_is_what_is_run(session, captured, run, lengths):
    inputs = packed(lengths)
    for _ in range(2):
        for found, expected in zip(run(captured, NAMES, inputs), run(session[0], NAMES, inputs), strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-5)


def test_results_stay_when_their_places_are_used_again(captured, run):
    (first,) = run(captured, ["sentence_embedding"], packed([5]))
    kept = first.copy()
    run(captured, ["sentence_embedding"], packed([6]))
    np.testing.assert_array_equal(first, kept)


def test_shapes_are_captured_once_and_only_when_asked(session, run, monkeypatch):
    (plain, variant), numbers = session, []
    bound = type(plain).bound

    def count(self, *arguments, graph, **options):
        numbers.append(graph)
        return bound(self, *arguments, graph=graph, **options)

    monkeypatch.setattr(type(plain), "bound", count)
    captured = CapturedSession(plain, variant, longest=LONGEST, device="cpu", number=0)
    run(captured, NAMES, packed([5]))
    assert numbers == []
    captured.capture()
    captured.capture()
    assert numbers == list(range(1, 1 + len(grid(LONGEST))))


def test_the_smallest_shape_that_fits_is_run(captured, run, monkeypatch):
    ran = []
    for shape, graph in captured._graphs.items():
        monkeypatch.setattr(graph, "run", lambda *_, shape=shape: ran.append(shape) or [np.zeros((shape.rows, 1))])
    for lengths in ([5], [23], [24], [5, 5], [5, 5, 5, 5]):
        run(captured, ["logits"], packed(lengths))
    assert ran == [Shape(2, 24), Shape(2, 24), Shape(2, 48), Shape(5, 48), Shape(5, 48)]


def test_an_error_names_the_shapes(captured, run):
    inputs = packed([5]) | {"position_ids": np.full(5, 10**6)}
    with pytest.raises(EncortError, match=r"ONNX Runtime failed on .*input_ids \(24,\)"):
        run(captured, NAMES, inputs)


def test_shapes_are_told_apart():
    assert Shape(2, 24).fits(1, 23)
    assert not Shape(2, 24).fits(1, 24)
    assert not Shape(2, 48).fits(2, 20)
