import json
import shutil
from types import SimpleNamespace

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

WORDS = {"card": "B-THING", "pin": "B-THING", "hello": "B-GREETING", "play": "I-GREETING", "my": "O", "is": "O"}
WORDS |= {"the": "O", "u.s.": "B-PLACE", "lost": "O"}
KOREAN = {"안녕": ("B-GREETING", "I-GREETING"), "하이": ("O", "O"), "가나다": ("B-PLACE", "I-PLACE", "I-PLACE")}
KOREAN |= {"안녕이": ("B-GREETING", "I-GREETING", "O")}


def sentences(count, seed=0):
    """Sentences in which every word has a tag of its own; what goes on with a span stands behind what begins it."""
    random = np.random.default_rng(seed)
    for _ in range(count):
        words = [str(word) for word in random.choice([*WORDS], size=random.integers(1, 9)) if word != "play"] or ["my"]
        tokens = [part for word in words for part in (["hello", "play"] if word == "hello" else [word])]
        yield tokens, [WORDS[token] for token in tokens]


def character_sentences(count, seed=0):
    random = np.random.default_rng(seed)
    for _ in range(count):
        words = [str(word) for word in random.choice([*KOREAN], size=random.integers(2, 6))]
        tags = [tag for word in words for tag in (*KOREAN[word], "O")]
        yield [*" ".join(words)], tags[:-1]


def conll(rows):
    return "\n".join("".join(f"{token}\t{tag}\n" for token, tag in zip(*row, strict=True)) for row in rows)


def jsonl(rows):
    return "".join(json.dumps({"tokens": tokens, "tags": tags}) + "\n" for tokens, tags in rows)


def text_of(tokens):
    return ("" if all(len(token) == 1 for token in tokens) else " ").join(tokens)


def gold_spans(tokens, tags):
    """(start, end, label) of every span."""
    found = []
    for number, (token, tag) in enumerate(zip(tokens, tags, strict=True)):
        start = len(text_of(tokens[: number + 1])) - len(token)
        if tag.startswith("I-"):
            found[-1] = (found[-1][0], start + len(token), tag[2:])
        elif tag != "O":
            found.append((start, start + len(token), tag[2:]))
    return found


def served_spans(folder, rows, bundle_folder):
    export_bundle(folder, bundle_folder, variants=["fp32"])
    with encort.load(bundle_folder) as model:
        tagged = model.tag([text_of(tokens) for tokens, _ in rows])
    return [[(span.start, span.end, span.label) for span in spans] for spans in tagged]


def f1(found, gold):
    pairs = list(zip(found, gold, strict=True))
    hits = sum(len(set(left) & set(right)) for left, right in pairs)
    return 2 * hits / sum(len(left) + len(right) for left, right in pairs)


@pytest.fixture(scope="module")
def korean_encoder(tiny_encoder, tmp_path_factory):
    """The same with a tokenizer that leaves Korean letters whole."""
    folder = shutil.copytree(tiny_encoder, tmp_path_factory.mktemp("korean") / "checkpoint")
    tokenizer = transformers.BertTokenizerFast(str(folder / "vocab.txt"), do_lower_case=False, model_max_length=64)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def encode(tiny_encoder):
    """`encode(tokens, tags)`: the pieces of the text and their labels, by name."""

    def run(tokens, tags, *, model=tiny_encoder, **settings):
        task = TokenClassification().for_rows([{"tokens": tokens}])
        pretrained = Pretrained.open(str(model), TrainingSettings(**settings), from_scratch=True)
        row = task.schema.example({"tokens": tokens, "label": tags})
        names = sorted({"O", *tags, *(f"I-{tag[2:]}" for tag in tags if tag.startswith("B-"))})
        rows = {name: [value] for name, value in row.items()}
        columns = task.encode(rows, pretrained, SimpleNamespace(labels=names))
        pieces = pretrained.saved_tokenizer.convert_ids_to_tokens(columns["input_ids"][0])
        labels = [None if label == IGNORED else names[label] for label in columns["labels"][0]]
        return list(zip(pieces, labels, strict=True))

    return run


@pytest.fixture
def train(train_tiny, write):
    """`train(train=[(tokens, tags)], validation=...)`, each written to a file of its own."""

    def run(ending="jsonl", **options):
        rows = {split: options.pop(split) for split in ("train", "validation", "test") if split in options}
        form = conll if ending == "conll" else jsonl
        files = {split: write(f"{split}.{ending}", form(list(content))) for split, content in rows.items()}
        return train_tiny(task=TokenClassification(), **files, **options)

    return run


@pytest.fixture
def problems(train):
    """`problems(*rows)`: what is said of rows that cannot be trained on."""

    def run(*rows, **options):
        with pytest.raises(DatasetError) as refused:
            train(train=[(["card", "is"], ["B-THING", "O"]), *rows, *sentences(12)], **options)
        return str(refused.value)

    return run


@pytest.mark.parametrize("ending", ["conll", "jsonl"])
@pytest.mark.parametrize("make", [sentences, character_sentences], ids=["words", "characters"])
def test_a_separable_task_is_learned(train, korean_encoder, make, ending):
    rows = {"train": make(200), "validation": make(15, seed=1), "test": make(15, seed=2)}
    run = train(ending, **rows, model=korean_encoder, epochs=8)
    assert run.report.metrics["validation"]["f1"] == 1
    assert run.report.metrics["test"].keys() == {"f1", "precision", "recall"}
    assert run.report.metrics["test"]["f1"] > 0.9
    assert run.report.rows == {"train": 200, "validation": 15, "test": 15}


def test_the_test_split_is_judged_by_its_own_rows(train):
    rows = list(sentences(21, seed=1))
    run = train(train=sentences(200), validation=rows, test=[*rows, *rows], epochs=3)
    assert run.report.rows == {"train": 200, "validation": 21, "test": 42}
    assert run.report.metrics["test"] == run.report.metrics["validation"]


def test_a_long_text_is_cut_at_the_limit(encode):
    pairs = encode(["card", "is", "lost"] * 9, ["B-THING", "O", "O"] * 9, max_length=6)
    assert pairs == [
        ("[CLS]", None),
        ("card", "B-THING"),
        ("is", "O"),
        ("lost", "O"),
        ("card", "B-THING"),
        ("[SEP]", None),
    ]


def test_sub_words_and_special_tokens_are_ignored(encode):
    assert encode(["my", "playing", "ax"], ["O", "B-GREETING", "O"]) == [
        ("[CLS]", None),
        ("my", "O"),
        ("play", "B-GREETING"),
        ("##ing", None),
        ("a", "O"),
        ("##x", None),
        ("[SEP]", None),
    ]


def test_what_a_token_begins_its_further_words_go_on_with(encode):
    pairs = encode(["the", "U.S.", "is"], ["O", "B-PLACE", "O"])
    assert pairs[2:6] == [("u", "B-PLACE"), (".", "I-PLACE"), ("s", "I-PLACE"), (".", "I-PLACE")]
    assert pairs[6] == ("is", "O")


def test_other_tags_are_the_same_for_all_words_of_a_token(encode):
    pairs = encode(["U.S.", "a.b"], ["I-PLACE", "O"])
    assert [tag for _, tag in pairs] == [None, *["I-PLACE"] * 4, *["O"] * 3, None]


def test_pieces_of_several_characters_have_the_tag_of_the_first(encode, korean_encoder):
    tags = ["B-GREETING", "I-GREETING", "O", "O", "B-PLACE", "I-PLACE"]
    assert encode([*"안녕 a가나"], tags, model=korean_encoder) == [
        ("[CLS]", None),
        ("안녕", "B-GREETING"),
        ("a", "O"),
        ("##가", "B-PLACE"),
        ("##나", "I-PLACE"),
        ("[SEP]", None),
    ]


def test_characters_that_the_tokenizer_drops_move_no_tag(encode, korean_encoder):
    assert encode(["my", "\u200b", "card"], ["O", "O", "B-THING"])[1:-1] == [("my", "O"), ("card", "B-THING")]
    tags = ["B-GREETING", "I-GREETING", "I-GREETING", "O", "O"]
    assert encode([*"안\u200d녕 a"], tags, model=korean_encoder)[1:-1] == [("안녕", "B-GREETING"), ("a", "O")]


@pytest.fixture
def spaced_encoder(tmp_path):
    """`spaced_encoder(pre_tokenizer)`: its tokens begin with the space before them, as of SentencePiece and BPE."""

    def make(pre_tokenizer, mark):
        vocabulary = {piece: number for number, piece in enumerate(["<s>", "</s>", "<pad>", "<unk>"])}
        vocabulary |= {f"{mark}{word}": number for number, word in enumerate(["my", "card", "lost"], start=4)}
        backend = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
        backend.normalizer, backend.pre_tokenizer = normalizers.NFC(), pre_tokenizer
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
        )
        names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
        transformers.PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=32, **names).save_pretrained(
            tmp_path
        )
        transformers.BertConfig(vocab_size=len(vocabulary), pad_token_id=2).save_pretrained(tmp_path)
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("pre_tokenizer", "mark"),
    [(pre_tokenizers.Metaspace(), "▁"), (pre_tokenizers.ByteLevel(add_prefix_space=True, trim_offsets=False), "Ġ")],
    ids=["SentencePiece", "BPE"],
)
def test_pieces_that_begin_with_a_space_have_the_tag_of_the_word_behind_it(encode, spaced_encoder, pre_tokenizer, mark):
    pairs = encode(["my", "card", "lost"], ["O", "B-THING", "O"], model=spaced_encoder(pre_tokenizer, mark))
    assert pairs[2] == (f"{mark}card", "B-THING")
    assert [tag for _, tag in pairs] == [None, "O", "B-THING", "O", None]


def test_what_a_span_goes_on_with_is_a_label_even_if_no_row_has_it(train):
    run = train(train=[(["card", "my"], ["B-THING", "O"])] * 12, epochs=1)
    assert run.report.labels == ["B-THING", "I-THING", "O"]
    assert run.config["id2label"] == {"0": "B-THING", "1": "I-THING", "2": "O"}


@pytest.mark.parametrize(("tags", "kind"), [(["O"], "fewer"), (["O", "O", "O"], "more")])
def test_each_token_needs_a_tag(problems, tags, kind):
    assert problems((["my", "card"], tags)).endswith(f"{kind} tags than tokens: row 2")


@pytest.mark.parametrize(
    ("tokens", "tags", "problem"),
    [
        ([], [], "no tokens"),
        ([" ", " "], ["O", "O"], "no tokens"),
        (["my", ""], ["O", "O"], "a token is empty"),
        ("my card", ["O", "O"], "tokens is not a list of texts"),
        (["my", "card"], [0, 1], "label is not a list of texts"),
        (["my", "card"], None, "label is not a list of texts"),
    ],
)
def test_rows_that_are_no_tagged_tokens_are_listed(problems, tokens, tags, problem):
    said = problems((tokens, tags), (["is"], ["O"]), (tokens, tags))
    assert said.endswith(f"train.jsonl: {problem}: rows 2, 4")


def test_every_problem_is_told_at_once(problems):
    said = problems((["my"], []), ([], []), validation=[(["card"], ["B-OTHER"])])
    assert "fewer tags than tokens: row 2" in said
    assert "no tokens: row 3" in said
    assert "validation.jsonl: label 'B-OTHER' is not in the training data: row 1" in said


def test_an_empty_tag_is_a_problem(problems):
    assert "row 2" in problems((["my", "card"], ["O", " "]))


def test_one_tag_only_cannot_be_learned(train):
    with pytest.raises(DatasetError, match="has one tag only, O"):
        train(train=[(["my", "card"], ["O", "O"])] * 12)


@pytest.fixture
def half_trained(train):
    """A run that has not learned enough, and what it was measured by."""
    rows = list(sentences(40, seed=3))
    return train(train=sentences(40), validation=rows, epochs=2, learning_rate=3e-3, batch_size=8), rows


def test_the_f1_is_that_of_the_spans_that_are_served(half_trained, tmp_path):
    run, rows = half_trained
    found = served_spans(run.folder, rows, tmp_path / "served.bundle")
    expected = f1(found, [gold_spans(*row) for row in rows])
    assert 0.05 < expected < 0.95, "too easy or too hard to tell one from another"
    assert run.report.metrics["validation"]["f1"] == pytest.approx(expected)


def test_the_f1_of_characters_is_that_of_the_spans_that_are_served(train, korean_encoder, tmp_path):
    rows = list(character_sentences(30, seed=3))
    run = train(
        train=character_sentences(40), validation=rows, epochs=2, learning_rate=2e-3, batch_size=8, model=korean_encoder
    )
    expected = f1(served_spans(run.folder, rows, tmp_path / "served.bundle"), [gold_spans(*row) for row in rows])
    assert 0.05 < expected < 0.95, "too easy or too hard to tell one from another"
    assert run.report.metrics["validation"]["f1"] == pytest.approx(expected)


def without_prefixes(rows):
    names = {"THING": "ORG", "PLACE": "EVENT"}
    return [(tokens, [names.get(tag[2:], tag[2:]) if tag != "O" else "O" for tag in tags]) for tokens, tags in rows]


def test_the_f1_of_tags_without_prefixes_is_that_of_the_spans_that_are_served(train, tmp_path):
    rows = without_prefixes([(["my", "card"], ["O", "B-THING"]), (["u.s."], ["B-PLACE"]), (["hello"], ["B-GREETING"])])
    run = train(train=rows * 20, validation=rows, epochs=5)
    found = served_spans(run.folder, rows, tmp_path / "served.bundle")
    assert found == [[(3, 7, "ORG")], [(0, 4, "EVENT")], [(0, 5, "GREETING")]]
    assert run.report.metrics["validation"]["f1"] == 1
    page = (run.folder / "training.md").read_text()
    assert all(f"| {label} | 100.0 % | 100.0 % | 100.0 % | 1 |" in page for label in ("ORG", "EVENT", "GREETING"))


def test_data_without_any_span_can_be_measured(train, tmp_path):
    rows = [(["my", "the"], ["O", "O"])]
    run = train(train=sentences(12), validation=rows, epochs=1)
    nothing_found = served_spans(run.folder, rows, tmp_path / "served.bundle") == [[]]
    assert run.report.metrics["validation"]["f1"] == nothing_found


@pytest.mark.parametrize("tag", ["S-PLACE", "E-PLACE", "U-PLACE", "L-PLACE"])
def test_tags_of_other_schemes_are_a_problem(problems, tag):
    assert "tags are of another scheme than BIO" in problems((["u.s."], [tag]))
