"""A session runs one graph, returns the outputs that are asked for, and refuses inputs that it cannot run."""

import dataclasses
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from encort.runtime.bundle.bundle import Bundle
from encort.runtime.bundle.manifest import LAST_HIDDEN_STATE, SENTENCE_EMBEDDING, Layout
from encort.runtime.common.arrays import FloatArray, Int64Array
from encort.runtime.common.errors import BundleFileChangedError, BundleFileMissingError, EncortError
from encort.runtime.engine.session import Session

IDS = np.array([[2, 10, 11, 12, 3], [2, 20, 21, 22, 3]])
LOGITS = "logits"

Sessions = Mapping[Layout, Session]


def inputs(ids: NDArray[Any] = IDS, mask: Int64Array | None = None) -> dict[str, NDArray[Any]]:
    """Return inputs of a graph. Without a mask no token is padding."""
    mask = np.ones_like(ids) if mask is None else mask
    return {"input_ids": ids, "token_type_ids": np.zeros_like(ids), "attention_mask": mask}


@pytest.fixture(scope="module")
def opened(classifier_bundle: Path) -> Bundle:
    return Bundle.open(classifier_bundle)


@pytest.fixture(scope="module")
def sessions(opened: Bundle) -> Sessions:
    """Return one session per layout."""
    return {variant.layout: Session(opened.graph(variant), variant, threads=1) for variant in opened.manifest.variants}


def test_outputs_come_in_the_order_of_their_names(sessions: Sessions) -> None:
    logits, embedding, hidden = sessions[Layout.EQUAL_LENGTH].run(
        [LOGITS, SENTENCE_EMBEDDING, LAST_HIDDEN_STATE], inputs()
    )
    assert (logits.shape, embedding.shape, hidden.shape) == ((2, 3), (2, 40), (2, 5, 40))
    assert {logits.dtype, embedding.dtype, hidden.dtype} == {np.dtype(np.float32)}


def test_both_layouts_give_the_same(sessions: Sessions) -> None:
    results = [
        sessions[layout].run([LOGITS, SENTENCE_EMBEDDING], inputs()) for layout in (Layout.EQUAL_LENGTH, Layout.RAGGED)
    ]
    for equal_length, padded in zip(*results, strict=True):
        np.testing.assert_allclose(equal_length, padded, atol=1e-5)


def test_ids_of_padding_do_not_change_the_results(sessions: Sessions) -> None:
    random = np.random.default_rng(0)
    padding = random.integers(0, 100, (2, 4))
    ids, mask = np.hstack([IDS, padding]), np.hstack([np.ones_like(IDS), np.zeros_like(padding)])
    (padded,) = sessions[Layout.RAGGED].run([SENTENCE_EMBEDDING], inputs(ids, mask))
    (expected,) = sessions[Layout.EQUAL_LENGTH].run([SENTENCE_EMBEDDING], inputs())
    np.testing.assert_allclose(padded, expected, atol=1e-5)


@pytest.mark.parametrize("layout", [Layout.EQUAL_LENGTH, Layout.RAGGED])
def test_only_a_ragged_graph_reads_the_mask(sessions: Sessions, layout: Layout) -> None:
    mask = np.array([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]])
    (whole,), (masked,) = (sessions[layout].run([LOGITS], feeds) for feeds in (inputs(), inputs(mask=mask)))
    assert (np.abs(whole - masked).max(axis=1) > 1e-3).tolist() == [layout is Layout.RAGGED, False]


def test_inputs_that_the_graph_does_not_have_are_left_out(sessions: Sessions) -> None:
    for session in sessions.values():
        (logits,) = session.run([LOGITS], inputs() | {"surprise": np.zeros(3), "reversed_input_ids": IDS})
        np.testing.assert_array_equal(logits, session.run([LOGITS], inputs())[0])


@pytest.mark.parametrize(
    "ids",
    [np.full((1, 5), 10_000), np.zeros((1, 65), np.int64), np.zeros((1, 5), np.int32), np.zeros(5, np.int64)],
    ids=["an unknown token", "more tokens than positions", "int32", "one axis"],
)
def test_an_error_of_onnx_runtime_names_the_shapes(sessions: Sessions, ids: NDArray[Any]) -> None:
    with pytest.raises(EncortError, match=r"failed on input_ids \(.*token_type_ids \(") as raised:
        sessions[Layout.EQUAL_LENGTH].run([LOGITS], inputs(ids))
    assert raised.value.__cause__ is not None


def test_a_failed_run_does_not_harm_the_next(sessions: Sessions) -> None:
    session = sessions[Layout.EQUAL_LENGTH]
    (before,) = session.run([LOGITS], inputs())
    with pytest.raises(EncortError):
        session.run([LOGITS], inputs(IDS + 10_000))
    (after,) = session.run([LOGITS], inputs())
    np.testing.assert_array_equal(before, after)


def test_threads_may_run_at_the_same_time(sessions: Sessions) -> None:
    session = sessions[Layout.EQUAL_LENGTH]

    def run(shift: int) -> FloatArray:
        return session.run([LOGITS], inputs(IDS + shift))[0]

    with ThreadPoolExecutor(8) as pool:
        for alone, concurrent in zip(map(run, range(40)), pool.map(run, range(40)), strict=True):
            np.testing.assert_array_equal(alone, concurrent)


@pytest.mark.parametrize(
    "change",
    [
        {"inputs": {"input_ids": ["batch", "sequence"]}},
        {"inputs": {"input_ids": ["batch", "sequence"], "token_type_ids": ["batch", "length"]}},
        {"outputs": {"logits": ["batch", "3"]}},
    ],
    ids=["a missing input", "another axis", "missing outputs"],
)
def test_names_and_axes_must_be_those_of_the_manifest(opened: Bundle, change: dict[str, Any]) -> None:
    variant = dataclasses.replace(opened.manifest.variants[0], **change)
    with pytest.raises(BundleFileChangedError, match=r"variant cpu-fp32: the graph's (in|out)puts are"):
        Session(opened.graph(variant), variant, threads=1)


@pytest.mark.parametrize("name", ["cpu-fp32.onnx", "cpu-fp32.weights"])
def test_a_missing_file_is_an_error(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    opened = Bundle.open(bundle)
    with pytest.raises(BundleFileMissingError, match=name):
        opened.graph(opened.manifest.variants[0])


def test_outputs_are_written_into_arrays_of_the_caller(sessions: Sessions) -> None:
    session = sessions[Layout.EQUAL_LENGTH]
    arrays = {
        name: np.full(shape, np.nan, np.float32) for name, shape in ((LOGITS, (2, 3)), ("pooler_output", (2, 40)))
    }
    session.run_into(arrays, inputs())
    for array, expected in zip(arrays.values(), session.run(list(arrays), inputs()), strict=True):
        np.testing.assert_array_equal(array, expected)


def test_an_array_of_another_shape_is_refused(sessions: Sessions) -> None:
    with pytest.raises(EncortError, match=r"failed on input_ids \(2, 5\)"):
        sessions[Layout.EQUAL_LENGTH].run_into({LOGITS: np.empty((3, 3), np.float32)}, inputs())


class _TimeLimitError(Exception):
    """Raised by the handler of a signal, in whatever code runs at that moment."""


def _interrupt(*_: Any, **__: Any) -> None:
    raise _TimeLimitError


def test_an_exception_of_a_signal_handler_is_no_error_of_the_bundle(
    opened: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    variant = opened.manifest.variants[0]
    monkeypatch.setattr("onnxruntime.InferenceSession.__init__", _interrupt)
    with pytest.raises(_TimeLimitError):
        Session(opened.graph(variant), variant, threads=1)


def test_an_exception_of_a_signal_handler_is_no_error_of_the_run(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxruntime.InferenceSession.run", _interrupt)
    with pytest.raises(_TimeLimitError):
        sessions[Layout.EQUAL_LENGTH].run([LOGITS], inputs())
