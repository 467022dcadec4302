"""Words for mask tokens are those of the pipeline `fill-mask` of transformers."""

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import transformers
from click.testing import CliRunner

import encort
from encort.export.exporter import export_bundle
from encort.runtime.cli.main import group as main
from encort.runtime.common.errors import CheckpointError, InputError, WrongTaskError

TEXTS = ["my [MASK] is lost", "[MASK]", "the card [MASK] my [MASK] hello", "card " * 12 + "[MASK] 안녕"]


@pytest.fixture(scope="module")
def words(
    checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory, architecture: str
) -> tuple[Path, Path]:
    """A checkpoint of every architecture, and its bundle, which the export has compared with eager PyTorch."""
    folder = checkpoint(architecture, "fill-mask")
    target = tmp_path_factory.mktemp("bundles") / "b"
    export_bundle(folder, target, task="fill-mask", variants=["fp32", "portable"])
    return folder, target


@pytest.fixture(scope="module")
def folder(checkpoint: Callable[..., Path]) -> Path:
    return checkpoint("bert", "fill-mask", layer_norm_eps=3e-3)


@pytest.fixture(scope="module")
def bundle(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("bundles") / "b"
    return export_bundle(folder, target, task="fill-mask", variants=["fp32", "int8", "portable", "cuda-fp16"]).folder


@pytest.fixture(scope="module")
def model(bundle: Path) -> Iterator[encort.Model]:
    with encort.load(bundle, precision="fp32", threads=1) as loaded:
        yield loaded


def expected(folder: Path, texts: list[str], top_k: int) -> list[list[list[tuple[int, str, float]]]]:
    """Return id, text and score of the words for every mask of every text, by transformers."""
    pipeline = transformers.pipeline("fill-mask", str(folder), top_k=top_k, device="cpu")
    if "token_type_ids" not in inspect.signature(pipeline.model.forward).parameters:
        pipeline.tokenizer.model_input_names = ["input_ids", "attention_mask"]  # transformers 4.57 passes types on
    results = [pipeline(text) for text in texts]
    of_masks = [result if isinstance(result[0], list) else [result] for result in results]
    return [[[(w["token"], w["token_str"], w["score"]) for w in mask] for mask in masks] for masks in of_masks]


def assert_words(found: Any, reference: list[list[list[tuple[int, str, float]]]]) -> None:
    assert [len(text) for text in found] == [len(masks) for masks in reference]
    for mask, words in zip([m for text in found for m in text], [m for text in reference for m in text], strict=True):
        assert [word.token for word in mask.words] == [token for token, _, _ in words]
        assert [word.text for word in mask.words] == [text for _, text, _ in words]
        np.testing.assert_allclose([word.score for word in mask.words], [score for *_, score in words], atol=1e-5)


@pytest.mark.parametrize("provider", [None, "CPUExecutionProvider"], ids=["authored", "portable"])
def test_every_architecture_gives_the_words_of_transformers(words: tuple[Path, Path], provider: str | None) -> None:
    folder, target = words
    with encort.load(target, threads=1, **({} if provider is None else {"provider": provider})) as opened:
        assert_words(opened.fill(TEXTS, top_k=4), expected(folder, TEXTS, 4))


def test_the_table_of_words_is_written_once(bundle: Path) -> None:
    graph = onnx.load(bundle / "cpu-fp32.onnx", load_external_data=False).graph
    rows = [list(weight.dims) for weight in graph.initializer if len(weight.dims) == 2 and 40 in weight.dims]
    table = next(shape for shape in rows if shape[0] == max(row[0] for row in rows))
    assert rows.count(table) == 1
    assert table[::-1] not in rows


def test_masks_have_their_place_in_the_text(model: encort.Model) -> None:
    (text,) = model.fill(["the card [MASK] my [MASK] hello"], top_k=1)
    assert [(mask.start, mask.end) for mask in text] == [(9, 15), (19, 25)]
    assert text.tokens == 8
    assert not text.truncated
    assert text[0].words[0].text == model.tokens([text[0].words[0].token])[0]


def test_a_service_and_many_texts_give_the_same_words(model: encort.Model) -> None:
    many = [f"{text} {'hello ' * (number % 5)}" for number in range(8) for text in TEXTS]
    together, alone = model.fill(many, top_k=2), [model.fill([text], top_k=2)[0] for text in many]
    with model.serving() as service:
        served = [service.fill(text, top_k=2) for text in many[:6]]
    for first, second in [*zip(together, alone, strict=True), *zip(served, alone[:6], strict=True)]:
        assert [[w.token for w in m.words] for m in first] == [[w.token for w in m.words] for m in second]
        np.testing.assert_allclose(
            [w.score for m in first for w in m.words], [w.score for m in second for w in m.words], atol=1e-5
        )


def test_a_mask_behind_the_limit_is_read_in_a_window(model: encort.Model) -> None:
    text = "card " * 100 + "[MASK]"
    with pytest.raises(InputError, match=r"text 1 has no \[MASK\].*window"):
        model.fill(["my [MASK]", text])
    first, second = model.fill(["my [MASK]", text], overflow="window")
    assert (second[0].start, second.tokens) == (500, 103)
    assert first[0].words == model.fill(["my [MASK]"])[0][0].words


def test_token_ids_and_batches_are_inputs_too(model: encort.Model) -> None:
    batch = model.tokenize(["my [MASK] is lost"])
    (of_text,), (of_batch,) = model.fill(["my [MASK] is lost"]), model.predict(batch)
    (of_ids,) = model.fill([batch.ids.tolist()])
    assert of_text == of_batch
    assert of_ids[0].words == of_text[0].words
    assert of_ids[0].start is None
    assert model.fill([]) == []


def test_the_bundle_still_embeds(model: encort.Model, checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    plain = checkpoint("bert", "fill-mask", layer_norm_eps=3e-3)
    with encort.load(export_bundle(plain, tmp_path / "b", variants=["fp32"]).folder, threads=1) as other:
        np.testing.assert_allclose(model.embed(TEXTS), other.embed(TEXTS), atol=1e-6)
        with pytest.raises(WrongTaskError, match=r"no head for fill-mask.*--task fill-mask"):
            other.fill(TEXTS)


def test_wrong_inputs_are_refused(model: encort.Model) -> None:
    with pytest.raises(InputError, match=r"text 0 has no \[MASK\]"):
        model.fill(["hello"])
    with pytest.raises(InputError, match="top_k"):
        model.fill(TEXTS, top_k=0)


def test_other_checkpoints_fill_no_masks(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="ForMaskedLM"):
        export_bundle(checkpoint("bert", "token-classification"), tmp_path / "b", task="fill-mask")


def test_the_command_line_writes_the_words(bundle: Path) -> None:
    arguments = ["predict", str(bundle), "--precision", "fp32", "--top-k", "2", "my [MASK] is lost"]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert result.stdout.count('"score"') == 2
    assert '"masks"' in result.stdout
    verified = CliRunner().invoke(main, ["verify", str(bundle)], catch_exceptions=False)
    assert verified.exit_code == 0, verified.output
