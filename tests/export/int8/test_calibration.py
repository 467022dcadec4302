"""The inputs of the layers are observed, and quantized layers simulated, without lasting changes to the model."""

import itertools
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from encort.export.graph.description import Linear
from encort.export.int8 import calibration
from encort.export.int8.calibration import Calibration, cases, check_calibration, draw, groups, observe, simulated
from encort.export.int8.quantization import Activations, quantize
from encort.export.source.export_source import ExportSource
from encort.export.verification.oracle import Case, Oracle
from encort.export.verification.samples import sample_pairs, sample_texts, texts_for
from encort.runtime.bundle.manifest import CalibrationTexts
from encort.runtime.common.errors import CheckpointError, InputError, InputTypeError
from encort.runtime.text.token_batch import TokenBatch
from encort.runtime.text.tokenizer import Tokenizer

TEXTS = ["my card is lost", "hello", "change my pin", "the card is lost", ("hello", "my pin"), "안녕하세요", "pin"]


@pytest.fixture(scope="module")
def source(encoder_checkpoint: Path) -> ExportSource:
    return ExportSource.open([str(encoder_checkpoint)])


@pytest.fixture(scope="module")
def oracle(source: ExportSource) -> Oracle:
    return Oracle.of(source)


@pytest.fixture(scope="module")
def tokenizer(encoder_checkpoint: Path) -> Tokenizer:
    return Tokenizer((encoder_checkpoint / "tokenizer.json").read_bytes(), max_length=64)


@pytest.fixture(scope="module")
def layers(source: ExportSource) -> dict[str, tuple[Linear, ...]]:
    return groups(source.description.encoders)


@pytest.fixture(scope="module")
def seen(oracle: Oracle, tokenizer: Tokenizer, layers: dict[str, tuple[Linear, ...]]) -> dict[str, Activations]:
    return observe(oracle, cases(tokenizer(TEXTS)), layers)


def batch_of(lengths: Sequence[int]) -> TokenBatch:
    """Return texts of these lengths; each token id is the number of the token, so that a test can recognize it."""
    tokens = sum(lengths)
    ids = np.arange(tokens)
    ends = np.cumsum([0, *lengths])
    return TokenBatch(ids=ids, type_ids=ids % 2, cu_seqlens=ends, truncated=np.zeros(len(lengths), bool))


def hooks_of(source: ExportSource) -> list[Any]:
    modules = source.checkpoints[0].model.modules()
    return [hook for module in modules for hook in (*module._forward_pre_hooks, *module._forward_hooks)]


# Groups of layers that read the same tensor.


def test_every_linear_layer_is_in_the_group_of_its_input(
    source: ExportSource, layers: dict[str, tuple[Linear, ...]]
) -> None:
    names_of_groups = [[linear.name.removeprefix("encoder.") for linear in group] for group in layers.values()]
    block = [
        ["attention.self.query", "attention.self.key", "attention.self.value"],
        ["attention.output.dense"],
        ["intermediate.dense"],
        ["output.dense"],
    ]
    assert names_of_groups == [[f"layer.{number}.{name}" for name in names] for number in range(3) for names in block]
    assert list(layers) == [group[0].name for group in layers.values()]
    assert all(source.checkpoints[0].model.get_submodule(name) for name in layers)


# Batches of calibration texts.


@pytest.mark.parametrize("lengths", [[4], [3, 5, 3, 3], [2] * 600, [300] * 3 + [512] * 2, [1, 512, 511]])
def test_every_text_is_in_one_case_and_nothing_is_padded(lengths: Sequence[int]) -> None:
    rows = [row.tolist() for case in cases(batch_of(lengths)) for row in case.inputs["input_ids"]]
    ends = np.cumsum([0, *lengths])
    expected = [list(range(start, end)) for start, end in itertools.pairwise(ends)]
    assert sorted(rows) == expected
    assert not any(case.is_masked for case in cases(batch_of(lengths)))


def test_a_case_holds_few_tokens() -> None:
    assert max(case.inputs["input_ids"].size for case in cases(batch_of([64] * 100))) <= 2 * 512


@pytest.mark.parametrize("lengths", [[1024], [768, 768]])
def test_texts_longer_than_a_case_are_cases_of_their_own(lengths: Sequence[int]) -> None:
    assert [case.inputs["input_ids"].shape for case in cases(batch_of(lengths))] == [(1, size) for size in lengths]


# Observed values of a tensor.


@torch.inference_mode()
def test_ranges_equal_those_seen_by_plain_hooks(
    encoder_checkpoint: Path, layers: dict[str, tuple[Linear, ...]], seen: dict[str, Activations]
) -> None:
    model = transformers.AutoModel.from_pretrained(encoder_checkpoint, attn_implementation="eager").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(encoder_checkpoint)
    inputs = {name: [] for name in layers}
    for name, noted in inputs.items():
        model.get_submodule(name).register_forward_pre_hook(lambda _, x, noted=noted: noted.append(x[0][0].numpy()))
    for text in TEXTS:
        model(**tokenizer(*([text] if isinstance(text, str) else text), return_tensors="pt"))
    for name, noted in inputs.items():
        rows = np.concatenate(noted)
        np.testing.assert_allclose(seen[name].low, rows.min(axis=0), atol=1e-4)
        np.testing.assert_allclose(seen[name].high, rows.max(axis=0), atol=1e-4)
        # All rows of so few texts are kept.
        order, expected_order = np.lexsort(seen[name].sample.T.round(3)), np.lexsort(rows.T.round(3))
        np.testing.assert_allclose(seen[name].sample[order], rows[expected_order], atol=1e-3)


def test_a_sample_is_limited_and_has_rows_of_every_case(
    oracle: Oracle, tokenizer: Tokenizer, layers: dict[str, tuple[Linear, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "ROWS", 64)
    name, batch = "encoder.layer.0.attention.self.query", tokenizer([*TEXTS, "the card " * 60])
    sample = observe(oracle, cases(batch), {name: layers[name]})[name].sample
    assert len(sample) <= 64
    assert len(np.unique(sample, axis=0)) > 2 * (len(cases(batch)) - 1)


def test_no_hook_stays_on_the_model(
    source: ExportSource,
    oracle: Oracle,
    tokenizer: Tokenizer,
    layers: dict[str, tuple[Linear, ...]],
    seen: dict[str, Activations],
) -> None:
    assert seen
    assert hooks_of(source) == []
    broken = Case("no such token", {name: rows + 10_000 for name, rows in tokenizer(["a"]).rows(np.array([0])).items()})
    with pytest.raises(CheckpointError, match="eager PyTorch cannot run"):
        observe(oracle, [broken], layers)
    assert hooks_of(source) == []


# The oracle with simulated layers.


def test_simulation_changes_the_oracle_only_inside_the_with_block(
    source: ExportSource,
    oracle: Oracle,
    tokenizer: Tokenizer,
    layers: dict[str, tuple[Linear, ...]],
    seen: dict[str, Activations],
) -> None:
    quantized = {name: quantize(group, seen[name], weight_bits=8) for name, group in layers.items()}
    (case, *_) = cases(tokenizer(TEXTS))
    before = oracle(case)
    with simulated(oracle, quantized):
        inside = oracle(case)
    with pytest.raises(ZeroDivisionError), simulated(oracle, quantized):
        _ = 1 / 0
    after = oracle(case)
    assert not any("forward" in vars(module) for module in source.checkpoints[0].model.modules())
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array)
        assert 1e-5 < np.abs(inside[name] - array).max() < 1


def test_simulated_layers_give_the_products_of_their_group(
    source: ExportSource, oracle: Oracle, layers: dict[str, tuple[Linear, ...]], seen: dict[str, Activations]
) -> None:
    name = "encoder.layer.1.attention.self.query"
    group = quantize(layers[name], seen[name], weight_bits=8, strengths=(0.75,))
    rows = seen[name].sample
    with torch.inference_mode(), simulated(oracle, {name: group}):
        model, x = source.checkpoints[0].model, torch.from_numpy(rows)
        outputs = [model.get_submodule(layer.name)(x).numpy() for layer in group.layers]
        other = model.get_submodule(name)(-x).numpy()
    bias = np.concatenate([layer.bias for layer in group.layers])
    np.testing.assert_allclose(np.concatenate(outputs, axis=1), group.products(rows) + bias, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(other, (group.products(-rows) + bias)[:, :40], rtol=1e-4, atol=1e-4)


# Calibration texts.


def test_every_fifth_text_is_held_back_and_the_samples_are_added(source: ExportSource, tokenizer: Tokenizer) -> None:
    texts = [f"text {number}" for number in range(10, 33)]
    split = Calibration.tokenize(source, tokenizer, texts)
    assert list(split.judged.texts) == texts[::5]
    assert list(split.seen.texts) == [text for text in texts if text not in texts[::5]] + texts_for(source)
    assert split.texts == CalibrationTexts(given=23, seen=18, judged=5, seed=0)


def test_without_texts_the_samples_are_split_with_a_warning(
    source: ExportSource, tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "encort"):
        split = Calibration.tokenize(source, tokenizer, None)
    assert "--calibration" in caplog.text
    assert {*split.seen.texts, *split.judged.texts} == {*sample_texts(), *sample_pairs()}
    assert not {*split.seen.texts} & {*split.judged.texts}
    assert len(split.judged) == 10


def test_of_many_texts_a_few_are_drawn_over_their_lengths(
    source: ExportSource, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(calibration, "MOST_TEXTS", 10)
    texts = [f"{'card ' * (number % 50)}{number}" for number in range(1000)]
    with caplog.at_level(logging.WARNING, "encort"):
        split = Calibration.tokenize(source, tokenizer, [*texts, *texts])
    own = [text for text in split.seen.texts if text not in texts_for(source)]
    counts = sorted(text.count("card") for text in [*own, *split.judged.texts])
    assert [count // 5 for count in counts] == list(range(10))
    assert split.texts == CalibrationTexts(given=1000, seen=8, judged=2, seed=0)
    assert "int8 is calibrated on 10 of 1,000 different texts, drawn over their lengths" in caplog.text
    assert Calibration.tokenize(source, tokenizer, texts).seen.texts == split.seen.texts


def test_the_number_of_drawn_tokens_has_a_limit(
    source: ExportSource, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "MOST_TOKENS", 600)
    own = [f"{'card ' * 100}{number}" for number in range(100)]  # 64 tokens each, the limit
    split = Calibration.tokenize(source, tokenizer, own)
    assert split.texts.seen + split.texts.judged == 600 // 64
    split = Calibration.tokenize(source, tokenizer, [str(number) for number in range(100)])
    assert split.texts.seen + split.texts.judged == 100


def test_a_draw_takes_pairs_by_the_length_of_both_texts() -> None:
    pairs = [("a" * number, "b" * (50 - 2 * number)) for number in range(20)]
    assert [first.count("a") // 5 for first, _ in draw(pairs, 4)] == [3, 2, 1, 0]


def test_a_model_of_pairs_is_calibrated_on_pairs_in_both_orders(
    source: ExportSource, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ExportSource, "is_pairwise", True)
    pairs = [(f"first {number}", f"second {number}") for number in range(10)]
    split = Calibration.tokenize(replace(source), tokenizer, pairs)
    assert {"reversed_input_ids", "reversed_token_type_ids"} <= split.seen.rows(np.array([0])).keys()
    assert all(isinstance(text, tuple) for text in split.seen.texts)
    with pytest.raises(InputTypeError, match="pair"):
        Calibration.tokenize(source, tokenizer, [f"text {number}" for number in range(10)])


@pytest.mark.parametrize(
    ("texts", "error", "message"),
    [
        ([], InputError, "needs 8 different texts.* got 0"),
        (["one"], InputError, "got 1"),
        (["one", ("one", "two")] * 50, InputError, "got 2"),
        ("a single text", InputTypeError, "list of texts"),
        (["text", 5] * 10, InputTypeError, "text 1"),
        ([["a", "list"]] * 10, InputTypeError, "text 0"),
        ([f"\udce9{number}" for number in range(10)], InputError, "surrogate"),
    ],
    ids=["none", "one", "repeated", "not a list", "a number", "lists", "not Unicode"],
)
def test_too_few_or_invalid_texts_are_refused(texts: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        check_calibration(texts)


def test_enough_texts_and_pairs_are_accepted() -> None:
    check_calibration([*(f"text {number}" for number in range(4)), *((f"text {number}", "b") for number in range(4))])
