"""Differences from sentence-transformers: torch is not needed, and what a bundle cannot do is an error that helps."""

import contextlib
import dataclasses
import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import encort
from encort.integrations.sentence_transformers import CrossEncoder, SentenceTransformer, opened_bundle
from encort.runtime.bundle.bundle import file_entries
from encort.runtime.common.errors import (
    BundleError,
    BundleFileChangedError,
    BundleFileMissingError,
    InputError,
    InputTypeError,
    MissingExtraError,
    ModelClosedError,
    WrongTaskError,
)
from tests.runtime.forking import error_in_child, leave

TEXTS = ["my card is lost", "hello"]
Call = Callable[[Any], Any]


@pytest.fixture
def encoder(encoder_bundle: Path) -> Iterator[SentenceTransformer]:
    model = SentenceTransformer(encoder_bundle)
    yield model
    model.encort_model.close()


@pytest.fixture
def reranker(classifier_bundle: Path) -> Iterator[CrossEncoder]:
    model = CrossEncoder(classifier_bundle)
    yield model
    model.encort_model.close()


def test_torch_is_imported_for_tensors_alone(encoder_bundle: Path, classifier_bundle: Path) -> None:
    code = """
import sys
from encort.integrations.sentence_transformers import CrossEncoder, SentenceTransformer, opened_bundle
model, reranker = SentenceTransformer(sys.argv[1]), CrossEncoder(sys.argv[2])
model.encode(["a", "b"], normalize_embeddings=True, precision="binary", truncate_dim=8)
model.encode_query("a"), model.encode_document(["b"])
reranker.predict([("a", "b")], apply_softmax=True)
print([name for name in ("torch", "transformers", "tqdm", "sentence_transformers") if name in sys.modules])
model.encode("a", convert_to_tensor=True)
print("torch" in sys.modules, "sentence_transformers" in sys.modules)
"""
    command = [sys.executable, "-c", code, str(encoder_bundle), str(classifier_bundle)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "True False"]


NEEDS: dict[str, tuple[str, Call]] = {
    "a tensor": ("torch", lambda m: m.encode(TEXTS, convert_to_tensor=True)),
    "tensors": ("torch", lambda m: m.encode(TEXTS, convert_to_numpy=False)),
    "tokens": ("torch", lambda m: m.encode(TEXTS, output_value="token_embeddings")),
    "a similarity": ("torch", lambda m: m.similarity(m.encode(TEXTS), m.encode(TEXTS))),
    "a device": ("torch", lambda m: m.device),
    "token ids": ("torch", lambda m: m.preprocess(TEXTS)),
    "a tokenizer": ("transformers", lambda m: m.tokenizer),
    "settings": ("transformers", lambda m: m.config),
    "a model of transformers": ("transformers", lambda m: m.transformers_model),
    "a model card": ("sentence_transformers", lambda m: m.model_card_data),
    "a progress bar": ("tqdm", lambda m: m.encode(TEXTS, show_progress_bar=True)),
}


@pytest.mark.parametrize(("package", "call"), NEEDS.values(), ids=NEEDS)
def test_a_missing_package_is_named(
    encoder: SentenceTransformer, package: str, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    install = (
        '"sentence-transformers>=6.2' if package == "sentence_transformers" else r'"encort\[sentence-transformers\]"'
    )
    with pytest.raises(MissingExtraError, match=f"pip install {install}") as caught:
        call(encoder)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.parametrize("kind", [SentenceTransformer, CrossEncoder])
@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("all-MiniLM-L6-v2", r"encort export (sentence-transformers|cross-encoder)/all-MiniLM-L6-v2 --output all-M"),
        ("org/model", "is not the folder of a bundle.* encort export org/model --output model.bundle"),
        ("a folder", "is a checkpoint.* encort export 'a folder' --output 'a folder.bundle'"),
    ],
)
def test_other_models_are_told_how_to_become_a_bundle(
    kind: type, name: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a folder").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BundleFileMissingError, match=command):
        kind(name)


def test_a_model_without_a_name_is_refused() -> None:
    with pytest.raises(InputError, match="encort export MODEL"):
        SentenceTransformer()


@pytest.mark.parametrize("kind", [SentenceTransformer, CrossEncoder])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modules": [object()]}, "modules has no effect on a bundle"),
        ({"revision": "main"}, "has one revision"),
        ({"model_kwargs": {"torch_dtype": "float16"}}, r"open the bundle with encort\.load"),
        ({"processor_kwargs": {"padding_side": "left"}}, "set max_seq_length"),
        ({"tokenizer_kwargs": {"padding_side": "left"}}, "set max_seq_length"),
        ({"config_kwargs": {"hidden_act": "relu"}}, "settings of the model that was exported"),
        ({"default_prompt_name": "no such"}, "there is no prompt 'no such'"),
        ({"device": "tpu"}, "device must be one of"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_options_that_a_bundle_cannot_follow_are_refused(
    kind: type, options: dict[str, Any], message: str, classifier_bundle: Path
) -> None:
    with pytest.raises(InputError, match=message):
        kind(classifier_bundle, **options)


@pytest.mark.parametrize(
    ("options", "name"), [({}, "hf://org/name"), ({"revision": "v1"}, "hf://org/name@v1")], ids=["main", "revision"]
)
def test_a_bundle_of_the_hub_is_opened_by_its_name(
    options: dict[str, Any], name: str, encoder_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[object] = []
    load = opened_bundle.load
    monkeypatch.setattr(
        opened_bundle, "load", lambda bundle, **settings: opened.append(bundle) or load(encoder_bundle, **settings)
    )
    assert SentenceTransformer("hf://org/name", **options).encode(TEXTS).shape == (2, 40)
    assert opened == [name]


def test_options_for_downloads_have_no_effect(encoder_bundle: Path) -> None:
    options: dict[str, Any] = {
        "cache_folder": "somewhere",
        "trust_remote_code": True,
        "local_files_only": True,
        "token": "secret",
        "backend": "onnx",
        "model_kwargs": {},
    }
    model = SentenceTransformer(str(encoder_bundle), **options)
    assert model.encode(TEXTS).shape == (2, 40)
    model.encort_model.close()


def test_an_open_model_gives_all_options_of_encort(encoder_bundle: Path) -> None:
    with encort.load(encoder_bundle, threads=1, precision="fp32") as opened:
        model = SentenceTransformer(opened, truncate_dim=8)
        assert model.encort_model is opened
        np.testing.assert_array_equal(model.encode(TEXTS), opened.embed(TEXTS)[:, :8])
        assert model.to("cpu") is model
        for change in (lambda: model.to("cuda"), lambda: setattr(model, "max_seq_length", 8)):
            with pytest.raises(InputError, match=r"give it to encort\.load"):
                change()
        with pytest.raises(InputError, match=r"give them to encort\.load"):
            SentenceTransformer(opened, device="cpu")


READ_BY_TRANSFORMERS: dict[str, Call] = {
    "tokenizer": lambda m: m.tokenizer,
    "config": lambda m: m.config,
    "transformers_model": lambda m: m.transformers_model.config,
}


@pytest.fixture
def with_code(encoder_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle with code that leaves a file `ran`. Questions are answered with yes."""
    folder = Path(shutil.copytree(encoder_bundle, tmp_path / "b"))
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Own: pass\n")
    for name in ("config.json", "tokenizer_config.json"):
        edit(folder / name, auto_map={"AutoConfig": "own.Own", "AutoTokenizer": ["own.Own", "own.Own"]})
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    return folder


def edit(file: Path, **changes: Any) -> None:
    content = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(content | changes), encoding="utf-8")


def update_hashes(folder: Path) -> None:
    entries = {name: dataclasses.asdict(entry) for name, entry in file_entries(folder).items()}
    edit(folder / "encort.json", files=entries)


@pytest.mark.parametrize("call", READ_BY_TRANSFORMERS.values(), ids=READ_BY_TRANSFORMERS)
@pytest.mark.parametrize("settings", [{}, {"model_type": "own"}], ids=["bert", "own"])
def test_transformers_never_runs_the_code_of_a_bundle(
    with_code: Path, settings: dict[str, str], call: Call, tmp_path: Path
) -> None:
    edit(with_code / "config.json", **settings)
    update_hashes(with_code)
    model = SentenceTransformer(with_code)
    with contextlib.suppress(BundleError):
        call(model)
    assert not (tmp_path / "ran").exists()
    model.encort_model.close()


def test_settings_that_need_code_are_an_error_of_the_bundle(with_code: Path) -> None:
    edit(with_code / "config.json", model_type="own")
    update_hashes(with_code)
    model = SentenceTransformer(with_code)
    with pytest.raises(BundleError, match=r"AutoConfig of transformers cannot read .* whose code encort never runs"):
        _ = model.config
    model.encort_model.close()


@pytest.mark.parametrize("call", READ_BY_TRANSFORMERS.values(), ids=READ_BY_TRANSFORMERS)
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_transformers_reads_no_changed_file_of_a_bundle(
    encoder_bundle: Path, tmp_path: Path, name: str, call: Call
) -> None:
    folder = Path(shutil.copytree(encoder_bundle, tmp_path / "b"))
    model = SentenceTransformer(folder)
    edit(folder / name, changed=True)
    with pytest.raises(BundleFileChangedError, match=name):
        call(model)
    model.encort_model.close()


WITHOUT: dict[str, tuple[str, Call]] = {
    "training": ("encort train", lambda m: m.fit()),
    "modules": ("no modules of PyTorch", lambda m: m.parameters()),
    "saving": ("copy its folder, or upload it with `encort push`", lambda m: m.save_pretrained("folder")),
    "a precision": ("chosen at export", lambda m: m.half()),
    "anything else": ("docs/moving-over/sentence-transformers.md", lambda m: m.no_such_name),
}


@pytest.mark.parametrize(("message", "call"), WITHOUT.values(), ids=WITHOUT)
def test_what_is_not_there_says_what_to_do(encoder: SentenceTransformer, message: str, call: Call) -> None:
    with pytest.raises(AttributeError, match=message):
        call(encoder)


def test_a_model_without_modules_says_what_to_use_in_their_place(encoder: SentenceTransformer) -> None:
    for call in (lambda: encoder[0], lambda: list(encoder)):
        with pytest.raises(InputTypeError, match=r"no model\[0\]: .* max_seq_length, tokenizer"):
            call()
    with pytest.raises(AttributeError, match="no modules: a bundle has no modules"):
        _ = encoder.modules


@pytest.mark.parametrize("name", ["torch.float16", "torch.bfloat16"])
def test_a_model_cannot_be_cast(encoder: SentenceTransformer, name: str) -> None:
    for call in (lambda: encoder.to(name), lambda: encoder.to("cpu", name)):
        with pytest.raises(InputError, match="chosen at export"):
            call()


def test_a_limit_above_the_one_of_the_bundle_is_refused(encoder: SentenceTransformer) -> None:
    limit = encoder.max_seq_length
    with pytest.raises(InputError, match="max_length must be at most 64"):
        encoder.max_seq_length = limit + 1
    assert encoder.max_seq_length == limit
    assert encoder.encode(TEXTS).shape == (2, 40)


def test_a_cross_encoder_needs_a_head(encoder_bundle: Path) -> None:
    with pytest.raises(WrongTaskError, match=r"no head for .* SentenceTransformer gives"):
        CrossEncoder(encoder_bundle)


def test_a_sentence_transformer_needs_embeddings(classifier_bundle: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(classifier_bundle, tmp_path / "b"))
    edit(folder / "encort.json", embedding=None)
    with pytest.raises(WrongTaskError, match=r"no sentence embeddings; CrossEncoder gives"):
        SentenceTransformer(folder)


def test_another_number_of_labels_is_refused(classifier_bundle: Path) -> None:
    assert CrossEncoder(classifier_bundle, num_labels=3).num_labels == 3
    with pytest.raises(InputError, match="num_labels 3, not 1"):
        CrossEncoder(classifier_bundle, num_labels=1)


def test_a_classifier_gives_its_logits(reranker: CrossEncoder) -> None:
    pairs = [("my card", "hello"), ("hello", "")]
    probabilities = reranker.predict(pairs, apply_softmax=True)
    expected = [list(result.scores.values()) for result in reranker.encort_model.classify(pairs)]
    np.testing.assert_allclose(probabilities, expected, atol=1e-6)
    assert not np.allclose(reranker.predict(pairs).sum(axis=1), 1)


def test_a_replaced_model_is_open_until_its_calls_end(encoder: SentenceTransformer) -> None:
    with encoder._shared.use() as before:
        encoder.max_seq_length = 8
        assert encoder.encort_model is not before
        assert len(before.embed(TEXTS)) == 2
    with pytest.raises(ModelClosedError):
        before.embed(TEXTS)
    assert encoder.encode(TEXTS).shape == (2, 40)


def test_threads_that_ask_for_the_same_change_open_one_model(
    encoder: SentenceTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[encort.Model] = []
    load = opened_bundle.load

    def load_slowly(*arguments: Any, **options: Any) -> encort.Model:
        time.sleep(0.2)
        opened.append(load(*arguments, **options))
        return opened[-1]

    monkeypatch.setattr(opened_bundle, "load", load_slowly)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda limit: setattr(encoder, "max_seq_length", limit), [8] * 4))
    assert opened == [encoder.encort_model]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_forked_child_opens_the_bundle_again(encoder: SentenceTransformer) -> None:
    encoder.max_seq_length = 8
    expected = encoder.encode(TEXTS)

    def encode_again() -> None:
        assert encoder.max_seq_length == 8
        np.testing.assert_allclose(encoder.encode(TEXTS), expected, atol=1e-6)
        encoder.max_seq_length = 9
        assert len(encoder.encode(TEXTS)) == 2

    assert error_in_child(encode_again, end_child=leave) == ""
    np.testing.assert_allclose(encoder.encode(TEXTS), expected, atol=1e-6)


def test_a_pickled_drop_in_opens_its_bundle_again(encoder: SentenceTransformer) -> None:
    encoder.max_seq_length = 8
    copy: SentenceTransformer = pickle.loads(pickle.dumps(encoder))
    assert copy.max_seq_length == 8
    copy.max_seq_length = 9
    np.testing.assert_allclose(copy.encode(TEXTS), encoder.encode(TEXTS), atol=1e-6)
    copy.encort_model.close()
