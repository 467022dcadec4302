"""Captured graphs, with the CPU provider in place of a GPU: dummy texts change no result, buffers are reused safely."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from encort.export.verification.cpu_attention import cpu_attention_session
from encort.runtime.bundle.bundle import Bundle
from encort.runtime.bundle.manifest import Variant
from encort.runtime.common.arrays import FloatArray
from encort.runtime.common.errors import EncortError
from encort.runtime.cuda.cuda_graphs import CapturedSession, Shape, capture_shapes, fill_up
from encort.runtime.cuda.packing import Packing, packed_specs
from encort.runtime.cuda.workers import PackedRunner
from encort.runtime.engine.session import Session

MAX_LENGTH = 64
NAMES = ["sentence_embedding", "last_hidden_state", "logits"]

Inputs = dict[str, NDArray[Any]]
Run = Callable[[PackedRunner, Sequence[str], Inputs], list[FloatArray]]


def packed(lengths: Sequence[int]) -> Inputs:
    """Return packed inputs of texts of these lengths."""
    mask = np.arange(max(lengths)) < np.array(lengths)[:, None]
    ids = np.random.default_rng(sum(lengths)).integers(5, 90, mask.shape)
    rows = {"input_ids": ids, "token_type_ids": ids % 2, "attention_mask": mask * 1}
    return Packing(mask).pack(rows | {"prompt_length": np.arange(len(lengths))})


@pytest.mark.parametrize("max_length", [1, 24, 128, 512, 8192])
def test_no_dummy_text_is_longer_than_a_text_may_be(max_length: int) -> None:
    shapes = capture_shapes(max_length)
    assert all(shape.tokens <= max_length for shape in shapes)
    assert shapes == sorted(shapes, key=lambda shape: shape.tokens)


@given(st.lists(st.integers(1, 20), min_size=1, max_size=16), st.sampled_from(capture_shapes(512)))
def test_dummy_texts_have_a_token_each_and_leave_the_texts_as_they_are(lengths: list[int], shape: Shape) -> None:
    inputs = packed(lengths)
    if not shape.fits(len(lengths), sum(lengths)):
        return
    full = fill_up(inputs, shape)
    assert full["cu_seqlens"][: len(lengths) + 1].tolist() == inputs["cu_seqlens"].tolist()
    assert full["cu_seqlens"][-1] == shape.tokens
    assert (np.diff(full["cu_seqlens"]) >= 1).all()
    assert len(full["cu_seqlens"]) == shape.rows + 1
    for name in ("input_ids", "token_type_ids", "position_ids"):
        assert full[name].shape == (shape.tokens,)
        assert full[name][: sum(lengths)].tolist() == inputs[name].tolist()
        assert full[name].dtype == np.int64
    assert full["prompt_length"].tolist() == [*range(len(lengths)), *[0] * (shape.rows - len(lengths))]
    offsets = full["token_offset"]
    assert offsets.shape == (shape.rows, shape.tokens)
    assert sorted(offsets.ravel().tolist()) == list(range(offsets.size))
    rows = np.repeat(np.arange(shape.rows), np.diff(full["cu_seqlens"]))
    assert (offsets.ravel()[: shape.tokens] // shape.tokens).tolist() == rows.tolist()


@given(st.integers(1, 40), st.integers(1, 600))
def test_a_shape_that_fits_has_room_for_its_dummy_texts(rows: int, tokens: int) -> None:
    fitting = [shape for shape in capture_shapes(512) if shape.fits(rows, tokens)]
    assert all(shape.rows > rows and shape.tokens - tokens >= shape.rows - rows for shape in fitting)
    assert bool(fitting) == (rows < 17 and tokens + next(n for n in (2, 5, 17) if n > rows) - rows <= 384)


@pytest.fixture(scope="module")
def session(cuda_bundle: Path) -> tuple[Session, Variant]:
    bundle = Bundle.open(cuda_bundle)
    variant = next(variant for variant in bundle.manifest.variants if variant.name == "cuda-fp32")
    return cpu_attention_session(bundle, variant), variant


@pytest.fixture
def captured(session: tuple[Session, Variant]) -> CapturedSession:
    plain, variant = session
    captured = CapturedSession(plain, variant, max_length=MAX_LENGTH, device="cpu", number=0)
    captured.capture()
    return captured


@pytest.fixture
def run(session: tuple[Session, Variant]) -> Run:
    """`run(session, names, inputs)` returns what the session writes to new memory."""
    _, variant = session

    def write(session: PackedRunner, names: Sequence[str], inputs: Inputs) -> list[FloatArray]:
        rows, sequence = inputs["token_offset"].shape
        _, outputs = packed_specs(variant, rows=rows, tokens=len(inputs["input_ids"]), sequence=sequence)
        arrays = {name: np.full(outputs[name][0], np.nan, outputs[name][1]) for name in names}
        session.run_into(arrays, inputs)
        return list(arrays.values())

    return write


@pytest.mark.parametrize("lengths", [[1], [16], [22, 1], [3, 9, 1, 20], [40], [60], [9] * 12])
def test_a_captured_graph_returns_the_results_of_an_ordinary_run(
    session: tuple[Session, Variant], captured: CapturedSession, run: Run, lengths: list[int]
) -> None:
    inputs = packed(lengths)
    for _ in range(2):
        for result, expected in zip(run(captured, NAMES, inputs), run(session[0], NAMES, inputs), strict=True):
            np.testing.assert_allclose(result, expected, atol=1e-5)


def test_results_stay_valid_when_the_graph_runs_again(captured: CapturedSession, run: Run) -> None:
    (first,) = run(captured, ["sentence_embedding"], packed([5]))
    copy = first.copy()
    run(captured, ["sentence_embedding"], packed([6]))
    np.testing.assert_array_equal(first, copy)


def test_shapes_are_captured_once_and_only_on_request(
    session: tuple[Session, Variant], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, variant = session
    graph_ids: list[int] = []
    bound = type(plain).bound

    def record(self: Session, *arguments: Any, graph: int, **options: Any) -> Any:
        graph_ids.append(graph)
        return bound(self, *arguments, graph=graph, **options)

    monkeypatch.setattr(type(plain), "bound", record)
    captured = CapturedSession(plain, variant, max_length=MAX_LENGTH, device="cpu", number=0)
    run(captured, NAMES, packed([5]))
    assert graph_ids == []
    captured.capture()
    captured.capture()
    assert graph_ids == list(range(1, 1 + len(capture_shapes(MAX_LENGTH))))


def test_a_run_takes_the_smallest_shape_that_fits(
    captured: CapturedSession, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    replayed: list[Shape] = []
    for shape, graph in captured._graphs.items():
        monkeypatch.setattr(graph, "run", lambda *_, shape=shape: replayed.append(shape) or [np.zeros((shape.rows, 1))])
    for lengths in ([5], [23], [24], [5, 5], [5, 5, 5, 5]):
        run(captured, ["logits"], packed(lengths))
    assert replayed == [Shape(2, 24), Shape(2, 24), Shape(2, 48), Shape(5, 48), Shape(5, 48)]


def test_an_error_names_the_shapes_of_the_inputs(captured: CapturedSession, run: Run) -> None:
    inputs = packed([5]) | {"position_ids": np.full(5, 10**6)}
    with pytest.raises(EncortError, match=r"ONNX Runtime failed on .*input_ids \(24,\)"):
        run(captured, NAMES, inputs)


def test_a_shape_needs_a_row_and_tokens_for_dummy_texts() -> None:
    assert Shape(2, 24).fits(1, 23)
    assert not Shape(2, 24).fits(1, 24)
    assert not Shape(2, 48).fits(2, 20)
