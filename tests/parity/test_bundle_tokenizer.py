"""Other tools read the tokenizer of a bundle as encort does."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnxruntime
import pytest
import tokenizers
import transformers
from tokenizers import models, normalizers, pre_tokenizers, processors

from encort.export.exporter import export_bundle
from encort.export.source.tokenizer_files import SPECIAL_TOKENS_FILE, TOKENIZER_CONFIG_FILE, write_tokenizer_files
from encort.runtime.bundle.bundle import Bundle
from encort.runtime.text.tokenizer import Tokenizer
from tests.parity.tiny_tokenizers import DIFFICULT, PAIRS, bert, roberta, xlm_roberta

LIMIT = 20
BERT_TYPES = ["input_ids", "token_type_ids", "attention_mask"]


def generic(vocabulary: list[str], **parts: Any) -> Any:
    """Return a WordPiece tokenizer whose parts no class of transformers builds."""
    words = {word: number for number, word in enumerate(vocabulary)}
    backend = tokenizers.Tokenizer(models.WordPiece(words, unk_token="[UNK]"))
    backend.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()])
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.BertProcessing(("[SEP]", words["[SEP]"]), ("[CLS]", words["[CLS]"]))
    for name, part in parts.items():
        setattr(backend, name, part)
    special = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **special)


def with_added_tokens(tokenizer: Any) -> Any:
    tokenizer.add_tokens([transformers.AddedToken("card", single_word=True), "my pin"])
    tokenizer.add_special_tokens(
        {"additional_special_tokens": ["<hello>", transformers.AddedToken("</e>", lstrip=True)]}
    )
    return tokenizer


KINDS: dict[str, tuple[str, Any]] = {
    "bert cased": ("bert", lambda v, _: bert(v, lowercase=False)),
    "bert lower-cased": ("bert", lambda v, _: bert(v, lowercase=True)),
    "bert keeps accents": ("bert", lambda v, _: bert(v, lowercase=True, strip_accents=False)),
    "bert joins chinese": ("bert", lambda v, _: bert(v, lowercase=False, tokenize_chinese_chars=False)),
    "bert with added tokens": ("bert", lambda v, _: with_added_tokens(bert(v, lowercase=True))),
    "bert under other names": (
        "electra",
        lambda v, _: bert([*v, "<c>", "<s>"], lowercase=False, cls_token="<c>", sep_token="<s>"),
    ),
    "bert without token types": (
        "distilbert",
        lambda v, _: bert(v, lowercase=False, model_input_names=["input_ids", "attention_mask"]),
    ),
    "bert with other normalizers": ("bert", lambda v, _: generic(v)),
    "bert with another template": (
        "mpnet",
        lambda v, _: generic(
            v,
            normalizer=normalizers.BertNormalizer(),
            post_processor=processors.RobertaProcessing(("[SEP]", v.index("[SEP]")), ("[CLS]", v.index("[CLS]"))),
        ),
    ),
    "roberta": ("roberta", lambda _, f: roberta(f)),
    "roberta with a space before": ("roberta", lambda _, f: roberta(f, add_prefix_space=True)),
    "roberta with added tokens": ("roberta", lambda _, f: with_added_tokens(roberta(f, add_prefix_space=True))),
    "xlm-roberta": ("xlm-roberta", lambda *_: xlm_roberta()),
}


@pytest.fixture(scope="module", params=KINDS)
def kind(
    request: pytest.FixtureRequest, vocabulary: list[str], tmp_path_factory: pytest.TempPathFactory
) -> SimpleNamespace:
    """A folder with the tokenizer files of a bundle and its `config.json`, and encort's tokenizer of it."""
    checkpoint, folder = tmp_path_factory.mktemp("checkpoint"), tmp_path_factory.mktemp("bundle")
    model_type, make = KINDS[request.param]
    make(vocabulary, checkpoint).save_pretrained(checkpoint)
    config = transformers.AutoConfig.for_model(model_type)
    config.to_json_file(checkpoint / "config.json")
    config.to_json_file(folder / "config.json")
    original: Any = transformers.AutoTokenizer.from_pretrained(checkpoint)
    model = SimpleNamespace(config=SimpleNamespace())
    write_tokenizer_files(SimpleNamespace(tokenizer=original, model=model), folder, max_length=LIMIT)  # type: ignore[arg-type]
    return SimpleNamespace(
        folder=folder, original=original, tokenize=Tokenizer((folder / "tokenizer.json").read_bytes(), max_length=LIMIT)
    )


@pytest.mark.parametrize("texts", [DIFFICULT, PAIRS, ["card postcard my pin <hello> my  </e> card"]])
def test_auto_tokenizer_gives_the_tokens_of_encort(kind: SimpleNamespace, texts: list[Any]) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(kind.folder)
    batch = kind.tokenize(texts, return_offsets=True)
    read = tokenizer(texts, truncation=True, return_token_type_ids=True, return_offsets_mapping=True)
    assert [token for ids in read["input_ids"] for token in ids] == batch.ids.tolist()
    assert [token for types in read["token_type_ids"] for token in types] == batch.type_ids.tolist()
    ends = [end for offsets in read["offset_mapping"] for _, end in offsets]
    assert ends == batch.offsets.ends.tolist()


def test_auto_tokenizer_has_the_special_tokens_and_inputs_of_the_checkpoint(kind: SimpleNamespace) -> None:
    tokenizer, original = transformers.AutoTokenizer.from_pretrained(kind.folder), kind.original
    assert tokenizer.special_tokens_map == original.special_tokens_map
    assert tokenizer.added_tokens_decoder == original.added_tokens_decoder
    assert tokenizer.model_input_names == original.model_input_names
    assert (tokenizer.model_max_length, len(tokenizer)) == (LIMIT, len(original))


def test_fastembed_gives_the_tokens_of_encort(kind: SimpleNamespace) -> None:
    """Read the files in the way of `fastembed.common.preprocessor_utils.load_tokenizer`."""
    config = json.loads((kind.folder / TOKENIZER_CONFIG_FILE).read_text(encoding="utf-8"))
    tokenizer = tokenizers.Tokenizer.from_file(str(kind.folder / "tokenizer.json"))
    tokenizer.enable_truncation(max_length=config["model_max_length"])
    tokenizer.enable_padding(pad_id=0, pad_token=config["pad_token"])
    for token in json.loads((kind.folder / SPECIAL_TOKENS_FILE).read_text(encoding="utf-8")).values():
        if isinstance(token, str):
            tokenizer.add_special_tokens([token])
        elif isinstance(token, dict):
            tokenizer.add_special_tokens([tokenizers.AddedToken(**token)])
    read = tokenizer.encode_batch(DIFFICULT)
    kept = [token for row in read for token, is_kept in zip(row.ids, row.attention_mask, strict=True) if is_kept]
    assert kept == kind.tokenize(DIFFICULT).ids.tolist()


def test_only_a_tokenizer_that_is_exactly_bert_says_so(kind: SimpleNamespace, request: pytest.FixtureRequest) -> None:
    name = request.node.callspec.params["kind"]
    config = json.loads((kind.folder / TOKENIZER_CONFIG_FILE).read_text(encoding="utf-8"))
    is_bert = name.startswith("bert") and "another template" not in name and "other normalizers" not in name
    assert config["tokenizer_class"] == ("BertTokenizer" if is_bert else "PreTrainedTokenizerFast")
    if is_bert:
        assert config["do_lower_case"] == (name in ("bert lower-cased", "bert keeps accents", "bert with added tokens"))
    if name.startswith("roberta"):
        assert config["add_prefix_space"] == (name != "roberta")


def test_transformers_and_the_portable_graph_give_the_embeddings_of_encort_for_a_cased_bundle(
    make_checkpoint: Any, tmp_path: Path, vocabulary: list[str]
) -> None:
    from encort import load

    checkpoint = shutil.copytree(make_checkpoint(seed=5, vocab_size=500), tmp_path / "cased")
    bert(vocabulary, lowercase=False).save_pretrained(checkpoint)
    bundle = export_bundle(checkpoint, tmp_path / "b", variants=["fp32", "portable"], max_length=9).folder
    texts = ["my Card is lost", "my card is lost", "Hello " * 20]
    tokenizer = transformers.AutoTokenizer.from_pretrained(bundle)
    tokens = tokenizer(texts, padding=True, truncation=True, return_tensors="np")
    session = onnxruntime.InferenceSession(bundle / "model.onnx", providers=["CPUExecutionProvider"])
    (embeddings,) = session.run(["sentence_embedding"], dict(tokens))
    with load(bundle) as model:
        assert embeddings == pytest.approx(model.embed(texts), abs=1e-5)


def test_the_files_are_in_the_manifest(classifier_bundle: Path) -> None:
    bundle = Bundle.open(classifier_bundle)
    for name in (TOKENIZER_CONFIG_FILE, SPECIAL_TOKENS_FILE):
        assert json.loads(bundle.read(name))
