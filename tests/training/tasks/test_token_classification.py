"""Tags: the label of each token, the span metrics, and rows that are refused."""

import json
import shutil
import string
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tokenizers
import transformers
from tokenizers import models, normalizers, pre_tokenizers, processors

import encort
from encort.export.exporter import export_bundle
from encort.runtime.common.errors import DatasetError
from encort.training.features import IGNORED
from encort.training.pretrained import Pretrained
from encort.training.settings import TrainingSettings
from encort.training.tasks.token_classification import TokenClassification

Run = Any  # of tests/training/conftest.py, which cannot be imported
Sentence = tuple[list[str], list[str]]
Spans = list[list[tuple[int, int, str]]]
Write = Callable[..., Path]
Train = Callable[..., Run]
Encode = Callable[..., list[tuple[str, str | None]]]

WORDS = {"card": "B-THING", "pin": "B-THING", "hello": "B-GREETING", "play": "I-GREETING", "my": "O", "is": "O"}
WORDS |= {"the": "O", "u.s.": "B-PLACE", "lost": "O"}
KOREAN = {"안녕": ("B-GREETING", "I-GREETING"), "하이": ("O", "O"), "가나다": ("B-PLACE", "I-PLACE", "I-PLACE")}
KOREAN |= {"안녕이": ("B-GREETING", "I-GREETING", "O")}


def sentences(count: int, seed: int = 0) -> Iterator[Sentence]:
    """Give sentences in which every word has its own tag; words inside of a span follow its first word."""
    random = np.random.default_rng(seed)
    for _ in range(count):
        words = [str(word) for word in random.choice([*WORDS], size=random.integers(1, 9)) if word != "play"] or ["my"]
        tokens = [part for word in words for part in (["hello", "play"] if word == "hello" else [word])]
        yield tokens, [WORDS[token] for token in tokens]


def character_sentences(count: int, seed: int = 0) -> Iterator[Sentence]:
    random = np.random.default_rng(seed)
    for _ in range(count):
        words = [str(word) for word in random.choice([*KOREAN], size=random.integers(2, 6))]
        tags = [tag for word in words for tag in (*KOREAN[word], "O")]
        yield [*" ".join(words)], tags[:-1]


def conll(rows: Any) -> str:
    return "\n".join("".join(f"{token}\t{tag}\n" for token, tag in zip(*row, strict=True)) for row in rows)


def jsonl(rows: Any) -> str:
    return "".join(json.dumps({"tokens": tokens, "tags": tags}) + "\n" for tokens, tags in rows)


def text_of(tokens: Any) -> str:
    return ("" if all(len(token) == 1 for token in tokens) else " ").join(tokens)


def gold_spans(tokens: Any, tags: Any) -> list[tuple[int, int, str]]:
    """Return start, end and label of every span."""
    spans: list[tuple[int, int, str]] = []
    for number, (token, tag) in enumerate(zip(tokens, tags, strict=True)):
        start = len(text_of(tokens[: number + 1])) - len(token)
        if tag.startswith("I-"):
            spans[-1] = (spans[-1][0], start + len(token), tag[2:])
        elif tag != "O":
            spans.append((start, start + len(token), tag[2:]))
    return spans


def served_spans(folder: Path, rows: Any, bundle_folder: Path) -> Spans:
    export_bundle(folder, bundle_folder, variants=["fp32"])
    with encort.load(bundle_folder) as model:
        tagged = model.tag([text_of(tokens) for tokens, _ in rows])
    return [[(span.start, span.end, span.label) for span in spans] for spans in tagged]


def f1(predicted: Spans, gold: Spans) -> float:
    pairs = list(zip(predicted, gold, strict=True))
    hits = sum(len(set(left) & set(right)) for left, right in pairs)
    return 2 * hits / sum(len(left) + len(right) for left, right in pairs)


@pytest.fixture(scope="module")
def korean_encoder(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the tiny encoder with a tokenizer that leaves Korean letters whole."""
    folder = shutil.copytree(tiny_encoder, tmp_path_factory.mktemp("korean") / "checkpoint")
    tokenizer = transformers.BertTokenizerFast(str(folder / "vocab.txt"), do_lower_case=False, model_max_length=64)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def encode(tiny_encoder: Path) -> Encode:
    """`encode(tokens, tags)`: the tokens of the tokenizer and their labels."""

    def run(tokens: Any, tags: Any, *, model: Path = tiny_encoder, **settings: Any) -> Any:
        task = TokenClassification().for_rows([{"tokens": tokens}])
        pretrained = Pretrained.open(str(model), TrainingSettings(**settings), from_scratch=True)
        row = task.schema.rows.parse({"tokens": tokens, "label": tags})
        names = sorted({"O", *tags, *(f"I-{tag[2:]}" for tag in tags if tag.startswith("B-"))})
        rows = {name: [value] for name, value in row.items()}
        columns = task.encode(rows, pretrained, SimpleNamespace(labels=names))
        pieces = pretrained.saved_tokenizer.convert_ids_to_tokens(columns["input_ids"][0])
        labels = [None if label == IGNORED else names[label] for label in columns["labels"][0]]
        return list(zip(pieces, labels, strict=True))

    return run


@pytest.fixture
def train(train_tiny: Callable[..., Run], write: Write) -> Train:
    """`train(train=[(tokens, tags)], validation=...)`: a run on these rows, one file per split."""

    def run(ending: str = "jsonl", **options: Any) -> Any:
        rows = {split: options.pop(split) for split in ("train", "validation", "test") if split in options}
        form = conll if ending == "conll" else jsonl
        files = {split: write(f"{split}.{ending}", form(list(content))) for split, content in rows.items()}
        return train_tiny(task=TokenClassification(), **files, **options)

    return run


@pytest.fixture
def problems(train: Train) -> Callable[..., str]:
    """`problems(*rows)`: the message that refuses rows that cannot be trained on."""

    def run(*rows: Any, **options: Any) -> Any:
        with pytest.raises(DatasetError) as refused:
            train(train=[(["card", "is"], ["B-THING", "O"]), *rows, *sentences(12)], **options)
        return str(refused.value)

    return run


@pytest.mark.parametrize("ending", ["conll", "jsonl"])
@pytest.mark.parametrize("make", [sentences, character_sentences], ids=["words", "characters"])
def test_a_separable_task_is_learned(
    train: Train, korean_encoder: Path, make: Callable[..., Iterator[Sentence]], ending: str
) -> None:
    rows = {"train": make(200), "validation": make(15, seed=1), "test": make(15, seed=2)}
    run = train(ending, **rows, model=korean_encoder, epochs=8)
    assert run.report.metrics["validation"]["f1"] == 1
    assert run.report.metrics["test"].keys() == {"f1", "precision", "recall"}
    assert run.report.metrics["test"]["f1"] > 0.9
    assert run.report.rows == {"train": 200, "validation": 15, "test": 15}


def test_the_test_split_is_scored_on_its_own_rows(train: Train) -> None:
    rows = list(sentences(21, seed=1))
    run = train(train=sentences(200), validation=rows, test=[*rows, *rows], epochs=3)
    assert run.report.rows == {"train": 200, "validation": 21, "test": 42}
    assert run.report.metrics["test"] == run.report.metrics["validation"]


def test_a_long_text_is_cut_at_the_limit(encode: Encode) -> None:
    pairs = encode(["card", "is", "lost"] * 9, ["B-THING", "O", "O"] * 9, max_length=6)
    assert pairs == [
        ("[CLS]", None),
        ("card", "B-THING"),
        ("is", "O"),
        ("lost", "O"),
        ("card", "B-THING"),
        ("[SEP]", None),
    ]


def test_sub_words_and_special_tokens_have_no_label(encode: Encode) -> None:
    assert encode(["my", "playing", "ax"], ["O", "B-GREETING", "O"]) == [
        ("[CLS]", None),
        ("my", "O"),
        ("play", "B-GREETING"),
        ("##ing", None),
        ("a", "O"),
        ("##x", None),
        ("[SEP]", None),
    ]


def test_the_first_word_of_a_token_begins_a_span_and_the_others_go_on_with_it(encode: Encode) -> None:
    pairs = encode(["the", "U.S.", "is"], ["O", "B-PLACE", "O"])
    assert pairs[2:6] == [("u", "B-PLACE"), (".", "I-PLACE"), ("s", "I-PLACE"), (".", "I-PLACE")]
    assert pairs[6] == ("is", "O")


def test_all_words_of_a_token_have_its_tag_if_it_begins_no_span(encode: Encode) -> None:
    pairs = encode(["U.S.", "a.b"], ["I-PLACE", "O"])
    assert [tag for _, tag in pairs] == [None, *["I-PLACE"] * 4, *["O"] * 3, None]


def test_a_piece_of_several_characters_has_the_tag_of_the_first(encode: Encode, korean_encoder: Path) -> None:
    tags = ["B-GREETING", "I-GREETING", "O", "O", "B-PLACE", "I-PLACE"]
    assert encode([*"안녕 a가나"], tags, model=korean_encoder) == [
        ("[CLS]", None),
        ("안녕", "B-GREETING"),
        ("a", "O"),
        ("##가", "B-PLACE"),
        ("##나", "I-PLACE"),
        ("[SEP]", None),
    ]


def test_dropped_characters_move_no_tag(encode: Encode, korean_encoder: Path) -> None:
    assert encode(["my", "\u200b", "card"], ["O", "O", "B-THING"])[1:-1] == [("my", "O"), ("card", "B-THING")]
    tags = ["B-GREETING", "I-GREETING", "I-GREETING", "O", "O"]
    assert encode([*"안\u200d녕 a"], tags, model=korean_encoder)[1:-1] == [("안녕", "B-GREETING"), ("a", "O")]


@pytest.fixture
def spaced_encoder(tmp_path: Path) -> Callable[..., Path]:
    """`spaced_encoder(pre_tokenizer, mark)`: an encoder whose tokens include the space before them."""

    def make(pre_tokenizer: Any, mark: str, pieces: Any = None) -> Path:
        vocabulary = {piece: number for number, piece in enumerate(["<s>", "</s>", "<pad>", "<unk>"])}
        words = [f"{mark}{word}" for word in ("my", "card", "lost")]
        vocabulary |= {piece: number for number, piece in enumerate(pieces or words, start=4)}
        backend = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
        if pieces is not None:
            backend.model = models.Unigram([(piece, -float(number)) for piece, number in vocabulary.items()], unk_id=3)
        backend.normalizer, backend.pre_tokenizer = normalizers.NFC(), pre_tokenizer
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
        )
        names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
        transformers.PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=64, **names).save_pretrained(
            tmp_path
        )
        sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
        transformers.BertConfig(vocab_size=len(vocabulary), pad_token_id=2, **sizes).save_pretrained(tmp_path)
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("pre_tokenizer", "mark"),
    [(pre_tokenizers.Metaspace(), "▁"), (pre_tokenizers.ByteLevel(add_prefix_space=True, trim_offsets=False), "Ġ")],
    ids=["SentencePiece", "BPE"],
)
def test_a_piece_that_begins_with_a_space_has_the_tag_of_its_word(
    encode: Encode, spaced_encoder: Callable[..., Path], pre_tokenizer: Any, mark: str
) -> None:
    pairs = encode(["my", "card", "lost"], ["O", "B-THING", "O"], model=spaced_encoder(pre_tokenizer, mark))
    assert pairs[2] == (f"{mark}card", "B-THING")
    assert [tag for _, tag in pairs] == [None, "O", "B-THING", "O", None]


def test_a_space_that_is_a_piece_of_its_own_has_the_tag_of_its_word(
    encode: Encode, spaced_encoder: Callable[..., Path]
) -> None:
    model = spaced_encoder(pre_tokenizers.Metaspace(), "▁", pieces=["▁", *string.ascii_letters])
    pairs = encode(["in", "Amsterdam", "x"], ["O", "B-LOC", "O"], model=model)
    assert [tag for _, tag in pairs if tag is not None] == ["O", "B-LOC", "O"]
    assert [piece for piece, tag in pairs if tag is not None] == ["▁"] * 3


def test_two_cities_are_learned_with_pieces_that_are_spaces(train: Train, spaced_encoder: Callable[..., Path]) -> None:
    model = spaced_encoder(pre_tokenizers.Metaspace(), "▁", pieces=["▁", *string.ascii_letters])
    sentence = ["we", "fly", "from", "Amsterdam", "to", "New", "York", "now"]
    tags = ["O", "O", "O", "B-LOC", "O", "B-LOC", "I-LOC", "O"]
    rows = [(sentence, tags), (sentence[:4], tags[:4]), (sentence[3:], tags[3:]), (sentence[:3], tags[:3])] * 4
    run = train("conll", train=rows, validation=rows, model=model, from_scratch=True, epochs=20)
    assert run.report.metrics["validation"]["f1"] == 1


def test_the_inside_tag_of_every_span_is_a_label_even_if_no_row_has_it(train: Train) -> None:
    run = train(train=[(["card", "my"], ["B-THING", "O"])] * 12, epochs=1)
    assert run.report.labels == ["B-THING", "I-THING", "O"]
    assert run.config["id2label"] == {"0": "B-THING", "1": "I-THING", "2": "O"}


@pytest.mark.parametrize(("tags", "kind"), [(["O"], "fewer"), (["O", "O", "O"], "more")])
def test_each_token_needs_a_tag(problems: Callable[..., str], tags: Any, kind: str) -> None:
    assert problems((["my", "card"], tags)).endswith(f"{kind} tags than tokens: row 2")


@pytest.mark.parametrize(
    ("tokens", "tags", "problem"),
    [
        ([], [], "no tokens"),
        ([" ", " "], ["O", "O"], "no tokens"),
        (["my", ""], ["O", "O"], "a token is empty"),
        (3, ["O", "O"], "tokens is not a list of texts"),
        (
            ["my", "card"],
            [0, 1],
            "label is a list of numbers without names: read the Parquet files of the dataset, or its hub id, which "
            "have the names of the tags",
        ),
        (["my", "card"], None, "label is not a list of texts"),
    ],
)
def test_rows_without_tagged_tokens_are_listed(
    problems: Callable[..., str], tokens: Any, tags: Any, problem: str
) -> None:
    message = problems((tokens, tags), (["is"], ["O"]), (tokens, tags))
    assert message.endswith(f"train.jsonl: {problem}: rows 2, 4")


def test_every_problem_is_reported_at_once(problems: Callable[..., str]) -> None:
    message = problems((["my"], []), ([], []), validation=[(["card"], ["B-OTHER"])])
    assert "fewer tags than tokens: row 2" in message
    assert "no tokens: row 3" in message
    assert "validation.jsonl: label 'B-OTHER' is not in the training data: row 1" in message


def test_an_empty_tag_is_a_problem(problems: Callable[..., str]) -> None:
    assert "row 2" in problems((["my", "card"], ["O", " "]))


def test_a_single_tag_is_refused(train: Train) -> None:
    with pytest.raises(DatasetError, match="has one tag only, O"):
        train(train=[(["my", "card"], ["O", "O"])] * 12)


@pytest.fixture
def half_trained(train: Train) -> tuple[Run, list[Sentence]]:
    """Return a run that has not learned enough, and its validation rows."""
    rows = list(sentences(40, seed=3))
    return train(train=sentences(40), validation=rows, epochs=2, learning_rate=3e-3, batch_size=8), rows


def test_the_f1_is_that_of_the_served_spans(half_trained: tuple[Run, list[Sentence]], tmp_path: Path) -> None:
    run, rows = half_trained
    served = served_spans(run.folder, rows, tmp_path / "served.bundle")
    expected = f1(served, [gold_spans(*row) for row in rows])
    assert 0.05 < expected < 0.95, "too easy or too hard to tell one from another"
    assert run.report.metrics["validation"]["f1"] == pytest.approx(expected)


def test_the_f1_of_characters_is_that_of_the_served_spans(train: Train, korean_encoder: Path, tmp_path: Path) -> None:
    rows = list(character_sentences(30, seed=3))
    run = train(
        train=character_sentences(40), validation=rows, epochs=2, learning_rate=2e-3, batch_size=8, model=korean_encoder
    )
    expected = f1(served_spans(run.folder, rows, tmp_path / "served.bundle"), [gold_spans(*row) for row in rows])
    assert 0.05 < expected < 0.95, "too easy or too hard to tell one from another"
    assert run.report.metrics["validation"]["f1"] == pytest.approx(expected)


def without_prefixes(rows: Any) -> list[Sentence]:
    names = {"THING": "ORG", "PLACE": "EVENT"}
    return [(tokens, [names.get(tag[2:], tag[2:]) if tag != "O" else "O" for tag in tags]) for tokens, tags in rows]


def test_the_f1_of_tags_without_prefixes_is_that_of_the_served_spans(train: Train, tmp_path: Path) -> None:
    rows = without_prefixes([(["my", "card"], ["O", "B-THING"]), (["u.s."], ["B-PLACE"]), (["hello"], ["B-GREETING"])])
    run = train(train=rows * 20, validation=rows, epochs=5)
    served = served_spans(run.folder, rows, tmp_path / "served.bundle")
    assert served == [[(3, 7, "ORG")], [(0, 4, "EVENT")], [(0, 5, "GREETING")]]
    assert run.report.metrics["validation"]["f1"] == 1
    page = (run.folder / "training.md").read_text()
    assert all(f"| {label} | 100.0 % | 100.0 % | 100.0 % | 1 |" in page for label in ("ORG", "EVENT", "GREETING"))


def test_data_without_any_span_can_be_measured(train: Train, tmp_path: Path) -> None:
    rows = [(["my", "the"], ["O", "O"])]
    run = train(train=sentences(12), validation=rows, epochs=1)
    is_nothing_served = served_spans(run.folder, rows, tmp_path / "served.bundle") == [[]]
    assert run.report.metrics["validation"]["f1"] == is_nothing_served


def test_tags_of_no_known_scheme_are_a_problem(problems: Callable[..., str]) -> None:
    assert "the tags B-GREETING and PLACE are not of one scheme" in problems((["u.s."], ["PLACE"]))


SINGLE = {"card": "s_THING", "pin": "s_THING", "u.s.": "s_PLACE", "hello": "b_GREETING", "play": "e_GREETING"}


def test_tags_that_mark_ends_are_learned_and_served(train: Train, tmp_path: Path) -> None:
    rows = [(tokens, [SINGLE.get(token, "o") for token in tokens]) for tokens, _ in sentences(200)]
    run = train(train=rows, validation=rows[:20], epochs=8)
    assert {"b_PLACE", "i_PLACE", "e_PLACE", "s_PLACE"} <= set(run.report.labels)
    gold = [gold_spans(tokens, [WORDS[token] for token in tokens]) for tokens, _ in rows[:20]]
    reached = f1(served_spans(run.folder, rows[:20], tmp_path / "served.bundle"), gold)
    assert reached > 0.9
    assert run.report.metrics["validation"]["f1"] == pytest.approx(reached)
