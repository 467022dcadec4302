"""A session runs one graph, gives what is asked for, and says what it cannot run."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from encort.runtime.bundle import Bundle
from encort.runtime.errors import BundleFileChangedError, BundleFileMissingError, EncortError
from encort.runtime.manifest import Device, Layout, Output
from encort.runtime.session import Session, graph_inputs

IDS = np.array([[2, 10, 11, 12, 3], [2, 20, 21, 22, 3]])
TYPES = np.zeros_like(IDS)


@pytest.fixture(scope="module")
def opened(classifier_bundle):
    return Bundle.open(classifier_bundle)


@pytest.fixture(scope="module")
def sessions(opened):
    return {layout: Session(opened, opened.variant(Device.CPU, None, layout), threads=1) for layout in Layout}


def test_outputs_come_in_the_order_asked(sessions):
    logits, embedding, hidden = sessions[Layout.EQUAL_LENGTH].run(
        [Output.LOGITS, Output.SENTENCE_EMBEDDING, Output.LAST_HIDDEN_STATE],
        graph_inputs(Layout.EQUAL_LENGTH, IDS, TYPES),
    )
    assert (logits.shape, embedding.shape, hidden.shape) == ((2, 3), (2, 40), (2, 5, 40))
    assert {logits.dtype, embedding.dtype, hidden.dtype} == {np.dtype(np.float32)}


def test_both_layouts_give_the_same(sessions):
    outputs = [Output.LOGITS, Output.SENTENCE_EMBEDDING]
    results = [session.run(outputs, graph_inputs(layout, IDS, TYPES)) for layout, session in sessions.items()]
    for equal_length, padded in zip(*results, strict=True):
        np.testing.assert_allclose(equal_length, padded, atol=1e-5)


def test_what_stands_at_padding_changes_nothing(sessions):
    random = np.random.default_rng(0)
    padding = random.integers(0, 100, (2, 4))
    ids, mask = np.hstack([IDS, padding]), np.hstack([np.ones_like(IDS), np.zeros_like(padding)])
    padded = graph_inputs(Layout.PADDED, ids, np.zeros_like(ids), mask)
    (found,) = sessions[Layout.PADDED].run([Output.SENTENCE_EMBEDDING], padded)
    (expected,) = sessions[Layout.EQUAL_LENGTH].run(
        [Output.SENTENCE_EMBEDDING], graph_inputs(Layout.EQUAL_LENGTH, IDS, TYPES)
    )
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_only_a_padded_graph_is_fed_a_mask():
    assert list(graph_inputs(Layout.EQUAL_LENGTH, IDS, TYPES)) == ["input_ids", "token_type_ids"]
    assert graph_inputs(Layout.PADDED, IDS, TYPES)["attention_mask"].tolist() == np.ones_like(IDS).tolist()
    mask = np.array([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]])
    assert graph_inputs(Layout.PADDED, IDS, TYPES, mask)["attention_mask"] is mask


@pytest.mark.parametrize(
    "ids",
    [np.full((1, 5), 10_000), np.zeros((1, 65), np.int64), np.zeros((1, 5), np.int32), np.zeros(5, np.int64)],
    ids=["an unknown token", "more tokens than positions", "int32", "one axis"],
)
def test_what_onnx_runtime_refuses_is_an_error_with_the_shapes(sessions, ids):
    with pytest.raises(EncortError, match=r"failed on input_ids \(.*token_type_ids \(") as raised:
        sessions[Layout.EQUAL_LENGTH].run([Output.LOGITS], graph_inputs(Layout.EQUAL_LENGTH, ids, np.zeros_like(ids)))
    assert raised.value.__cause__ is not None


def test_a_failed_run_does_not_harm_the_next(sessions):
    session, inputs = sessions[Layout.EQUAL_LENGTH], graph_inputs(Layout.EQUAL_LENGTH, IDS, TYPES)
    (before,) = session.run([Output.LOGITS], inputs)
    with pytest.raises(EncortError):
        session.run([Output.LOGITS], graph_inputs(Layout.EQUAL_LENGTH, IDS + 10_000, TYPES))
    (after,) = session.run([Output.LOGITS], inputs)
    np.testing.assert_array_equal(before, after)


def test_threads_may_run_at_the_same_time(sessions):
    session = sessions[Layout.EQUAL_LENGTH]

    def run(shift):
        return session.run([Output.LOGITS], graph_inputs(Layout.EQUAL_LENGTH, IDS + shift, TYPES))[0]

    with ThreadPoolExecutor(8) as pool:
        for alone, among in zip(map(run, range(40)), pool.map(run, range(40)), strict=True):
            np.testing.assert_array_equal(alone, among)


@pytest.mark.parametrize(
    "change",
    [
        {"inputs": {"input_ids": ["batch", "sequence"]}},
        {"inputs": {"input_ids": ["batch", "sequence"], "token_type_ids": ["batch", "length"]}},
        {"outputs": {"logits": ["batch", "3"]}},
    ],
    ids=["an input less", "another axis", "outputs less"],
)
def test_names_and_axes_are_the_manifests(opened, change):
    variant = dataclasses.replace(opened.variant(Device.CPU, None, Layout.EQUAL_LENGTH), **change)
    with pytest.raises(BundleFileChangedError, match=r"variant cpu-fp32: the graph's (in|out)puts are"):
        Session(opened, variant, threads=1)


@pytest.mark.parametrize("name", ["cpu-fp32.onnx", "cpu-fp32.weights"])
def test_a_missing_file_is_an_error(bundle, name):
    (bundle / name).unlink()
    opened = Bundle.open(bundle)
    with pytest.raises(BundleFileMissingError, match=name):
        Session(opened, opened.manifest.variants[0], threads=1)
