"""Tokenizers as other versions of transformers save them, and folders without a usable one."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import transformers
from tokenizers import ByteLevelBPETokenizer

from encort.runtime.common.checkpoints.rebuilt import warn_if_rebuilt
from encort.runtime.common.checkpoints.tokenizer import open_tokenizer, save_tokenizer
from encort.runtime.common.errors import CheckpointError, MissingExtraError
from tests.builders import bert_tokenizer, vocabulary

EXTRA = ["<e1>", "</e1>"]


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.fixture
def roberta(tmp_path: Path) -> Path:
    """A folder with a tokenizer of RoBERTa that has two tokens of its own."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    byte_level = ByteLevelBPETokenizer()
    byte_level.train_from_iterator(["my card is lost"], vocab_size=270, special_tokens=special, show_progress=False)
    byte_level.save_model(str(tmp_path))
    tokenizer = transformers.RobertaTokenizerFast.from_pretrained(tmp_path, additional_special_tokens=EXTRA)
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "roberta"}')
    return tmp_path


@pytest.mark.parametrize("as_objects", [False, True])
@pytest.mark.parametrize("name", ["RobertaTokenizer", "TokenizersBackend"])
def test_a_list_of_extra_tokens_of_transformers_5_is_read(name: str, as_objects: bool, roberta: Path) -> None:
    expected = open_tokenizer(roberta, transformers)("my <e1>card</e1>")["input_ids"]
    settings = json.loads((roberta / "tokenizer_config.json").read_text())
    for older in ("additional_special_tokens", "added_tokens_decoder"):
        settings.pop(older, None)
    extra = [{"__type": "AddedToken", "content": token} for token in EXTRA] if as_objects else EXTRA
    newer = {"backend": "tokenizers", "extra_special_tokens": extra, "tokenizer_class": name}
    (roberta / "tokenizer_config.json").write_text(json.dumps({**settings, **newer}))
    (roberta / "special_tokens_map.json").unlink(missing_ok=True)
    tokenizer = open_tokenizer(roberta, transformers)
    assert tokenizer("my <e1>card</e1>")["input_ids"] == expected
    assert set(EXTRA) <= set(tokenizer.all_special_tokens)


@pytest.mark.parametrize("names", [None, ["input_ids", "token_type_ids", "attention_mask"]])
def test_a_generic_tokenizer_of_transformers_5_gives_no_token_types_unless_it_says_so(
    names: list[str] | None, roberta: Path
) -> None:
    settings = {"tokenizer_class": "TokenizersBackend", "backend": "tokenizers", "pad_token": "<pad>"}
    (roberta / "tokenizer_config.json").write_text(
        json.dumps(settings if names is None else {**settings, "model_input_names": names})
    )
    tokenizer = open_tokenizer(roberta, transformers)
    assert tokenizer.model_input_names == (names or ["input_ids", "attention_mask"])


@pytest.mark.parametrize("file", ["spm.model", "sentencepiece.bpe.model", "spiece.model"])
def test_a_sentencepiece_model_alone_needs_its_package(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    (tmp_path / "config.json").write_text('{"model_type": "deberta-v2"}')
    (tmp_path / file).touch()
    with pytest.raises(MissingExtraError, match=rf"{file} of .*no tokenizer\.json.*encort\[sentencepiece\]"):
        open_tokenizer(tmp_path, transformers)


def test_a_sentencepiece_model_beside_a_tokenizer_json_needs_nothing(
    roberta: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    (roberta / "sentencepiece.bpe.model").touch()
    assert open_tokenizer(roberta, transformers).is_fast


@pytest.mark.parametrize("limit", ["512", 0, -1, True, [64], float("nan")])
def test_a_limit_that_is_no_number_of_tokens_is_refused(limit: Any, roberta: Path) -> None:
    edit(roberta / "tokenizer_config.json", model_max_length=limit)
    with pytest.raises(CheckpointError, match=r"tokenizer_config\.json has model_max_length"):
        open_tokenizer(roberta, transformers)


@pytest.mark.parametrize("content", ["", "[]", "{", "[" * 100_000])
def test_damaged_settings_are_refused_by_their_file(content: str, roberta: Path) -> None:
    (roberta / "tokenizer_config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"tokenizer_config\.json"):
        open_tokenizer(roberta, transformers)


@pytest.mark.parametrize(
    "changes",
    [{"tokenizer_class": 5}, {"truncation_side": "middle"}, {"extra_special_tokens": 5}, {"pad_token": {"a": 1}}],
)
def test_nonsense_is_one_error(changes: dict[str, Any], roberta: Path) -> None:
    edit(roberta / "tokenizer_config.json", **changes)
    with pytest.raises(CheckpointError, match="has no usable tokenizer: "):
        open_tokenizer(roberta, transformers)


def test_a_tokenizer_that_is_not_the_one_of_its_file_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "tokenizer.json"
    tokenizer = bert_tokenizer(vocabulary())
    tokenizer.save_pretrained(tmp_path)
    caplog.clear()  # transformers 4 has warnings of its own
    warn_if_rebuilt(tokenizer, file, "5.24.0")
    warn_if_rebuilt(tokenizer, tmp_path / "missing.json", "5.24.0")
    assert caplog.text == ""
    file.write_text(json.dumps({**json.loads(file.read_text()), "normalizer": None}))
    warn_if_rebuilt(tokenizer, file, "5.24.0")
    assert (
        "tokenizer.json: transformers 5.24.0 builds another tokenizer than this file has: 'Straße CAFÉ" in caplog.text
    )


def test_a_saved_tokenizer_is_read_by_both_majors(roberta: Path, tmp_path: Path) -> None:
    generic = {"tokenizer_class": "TokenizersBackend", "extra_special_tokens": EXTRA}
    edit(roberta / "tokenizer_config.json", **generic)
    tokenizer = open_tokenizer(roberta, transformers)
    saved = tmp_path / "saved"
    save_tokenizer(tokenizer, saved)
    settings = json.loads((saved / "tokenizer_config.json").read_text())
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert not isinstance(settings.get("extra_special_tokens"), list)
    read = transformers.AutoTokenizer.from_pretrained(saved)
    assert read("my <e1>card</e1>") == tokenizer("my <e1>card</e1>")
    assert set(EXTRA) <= set(read.all_special_tokens)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(CheckpointError, match="has no usable tokenizer"):
        open_tokenizer(tmp_path, transformers)
