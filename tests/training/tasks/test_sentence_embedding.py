import csv

import datasets
import numpy as np
import pytest
import torch
import transformers

import encort
from encort.export.exporter import export_bundle
from encort.runtime.bundle.manifest import Pooling
from encort.runtime.common.errors import DatasetError
from encort.training.data.examples import Examples, hold_back
from encort.training.features import Collator
from encort.training.prepare import VALIDATION_SHARE
from encort.training.pretrained import Pretrained
from encort.training.settings import TrainingSettings
from encort.training.tasks.sentence_embedding import SentenceEmbedding, in_batch_loss

TOPICS = {"card": ("my card", "the card is lost"), "pin": ("change the pin", "pin"), "hello": ("hello", "hello my !")}
TEXTS = ["my card is lost", "hello", "change the pin " * 9, "하이"]


def alike():
    """Two texts about the same thing each."""
    things = ["card", "pin", "hello", "play", "lost", "change", *"abcdefgh12345678"]
    return [(f"my {thing}", f"the {thing} is") for thing in things]


def scored(others=(0.0, 1.0)):
    """5 for the same topic, some of these scores for others."""
    topics = list(TOPICS.values())
    return [
        (f"{left[0]} {end}", f"{right[1]} {end}", 5.0 if left is right else others[number % len(others)])
        for number, end in enumerate(("1", "is", "a b"))
        for left in topics
        for right in topics
    ]


@pytest.fixture
def train(train_tiny, tmp_path):
    """`train(train=[...], validation=...)`, each written to a file of its own."""

    def run(**options):
        splits = {split: options.pop(split) for split in ("train", "validation", "test") if split in options}
        for split, rows in splits.items():
            names = ("text", "text_pair", "score")[: len(rows[0])]
            with (tmp_path / f"{split}.csv").open("w", newline="") as file:
                csv.writer(file).writerows([names, *rows])
        files = {split: tmp_path / f"{split}.csv" for split in splits}
        return train_tiny(task=SentenceEmbedding(), **files, **options)

    return run


@pytest.fixture
def pretrained(tiny_encoder):
    return Pretrained.open(str(tiny_encoder), TrainingSettings())


def encoded(pretrained, rows):
    columns = SentenceEmbedding().encode(dict(zip(("text", "text_pair", "label"), rows, strict=True)), pretrained, None)
    return Collator(0)([{name: values[row] for name, values in columns.items()} for row in range(len(rows[0]))])


def embedded(model, tokenizer, text):
    """Mean of the tokens of one text, of length 1, in the plainest way."""
    hidden = model(**tokenizer(text, return_tensors="pt", truncation=True)).last_hidden_state[0]
    return torch.nn.functional.normalize(hidden.mean(dim=0), dim=0)


@pytest.fixture
def plain(tiny_encoder):
    """`plain(text)` by transformers alone."""
    model = transformers.AutoModel.from_pretrained(tiny_encoder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_encoder)
    return lambda text: embedded(model, tokenizer, text)


def test_pairs_without_scores_are_learned(train):
    run = train(train=alike(), validation=alike(), epochs=8, batch_size=6)
    assert run.report.metrics["validation"].keys() == {"score", "accuracy_at_1"}
    accuracies = [entry["eval_score"] for entry in run.report.history if "eval_score" in entry]
    assert accuracies[-1] > 0.8
    losses = [entry["loss"] for entry in run.report.history if "loss" in entry]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("others", [(0.0,), (0.0, 1.0)], ids=["two scores", "more scores"])
def test_pairs_with_scores_are_learned(train, others):
    rows = scored(others)
    run = train(train=rows * 3, validation=rows, test=rows[:9], epochs=5)
    assert run.report.metrics["validation"].keys() == {"score", "spearman", "pearson"}
    assert run.report.metrics["validation"]["pearson"] > 0.8
    assert run.report.metrics["validation"]["score"] == run.report.metrics["validation"]["spearman"]
    assert run.report.rows == {"train": 81, "validation": 27, "test": 9}


@pytest.fixture(params=["alike", "scored"])
def learned(request, train):
    rows = {"alike": alike, "scored": scored}[request.param]()
    return train(train=rows, validation=rows, epochs=1, max_length=16).folder


def test_the_checkpoint_is_a_model_of_sentence_transformers_and_is_served_alike(learned, tmp_path):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    theirs = sentence_transformers.SentenceTransformer(str(learned), device="cpu")
    assert theirs.max_seq_length == 16
    expected = theirs.encode(TEXTS, show_progress_bar=False)
    np.testing.assert_allclose(np.linalg.norm(expected, axis=1), 1, atol=1e-6)
    bundle = export_bundle(learned, tmp_path / "served.bundle", variants=["fp32"])
    assert (bundle.manifest.embedding.pooling, bundle.manifest.embedding.normalize) == (Pooling.MEAN, True)
    with encort.load(bundle.folder) as model:
        np.testing.assert_allclose(model.embed(TEXTS), expected, atol=1e-5)


def test_the_checkpoint_is_that_of_an_encoder_alone(learned):
    model, info = transformers.AutoModel.from_pretrained(learned, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert type(model) is transformers.BertModel


def test_the_accuracy_is_that_of_the_nearest_second_texts(train):
    run = train(train=alike(), validation=alike(), epochs=1, learning_rate=1e-4)
    model = transformers.AutoModel.from_pretrained(run.folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(run.folder)
    with torch.inference_mode():
        first, second = (torch.stack([embedded(model, tokenizer, pair[side]) for pair in alike()]) for side in (0, 1))
    hits = (first @ second.T).argmax(dim=1) == torch.arange(len(first))
    assert 0 < hits.float().mean() < 1, "too easy or too hard to tell one from another"
    assert run.report.metrics["validation"]["score"] == pytest.approx(float(hits.float().mean()))


def test_a_second_text_that_two_pairs_share_is_right_for_both(pretrained):
    rows = [{"text": "a", "text_pair": "c", "label": None}, {"text": "b", "text_pair": "c", "label": None}]
    first, second = np.eye(2, 3), np.array([[1.0, 0, 0], [1, 0, 0]])
    found = SentenceEmbedding().scores((first, second), None, rows, pretrained, None)
    assert found.metrics == {"score": 1, "accuracy_at_1": 1}


@pytest.fixture
def loss(pretrained):
    """`loss(rows, training=scores)`: of a batch, by a network for data with these scores."""

    @torch.inference_mode()
    def run(rows, training):
        examples = Examples(train=datasets.Dataset.from_dict({"label": training}), validation=None)
        return SentenceEmbedding().network(pretrained, examples).eval()(**encoded(pretrained, rows))

    return run


PAIRS = [TEXTS[:3], ["the card", "hello my", "pin"]]


@torch.inference_mode()
def test_the_loss_of_pairs_alike_is_the_softmax_of_cosines_in_their_batch(loss, plain):
    found = loss([*PAIRS, [None] * 3], training=[None, None])
    first, second = (torch.stack(list(map(plain, texts))) for texts in PAIRS)
    weights = torch.exp(20 * first @ second.T)
    torch.testing.assert_close(found["first"], first, atol=1e-5, rtol=0)
    torch.testing.assert_close(found["second"], second, atol=1e-5, rtol=0)
    expected = -torch.log(weights.diagonal() / weights.sum(dim=1)).mean()
    torch.testing.assert_close(found["loss"], expected, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_of_a_second_text_that_is_there_again_each_pair_has_its_own_alone(loss, plain):
    pairs = [[*TEXTS[:3], "my pin"], ["pin", "the card", "pin", "pin pin"]]
    found = loss([*pairs, [None] * 4], training=[None, None])
    first, second = (torch.stack(list(map(plain, texts))) for texts in pairs)
    weights = torch.exp(20 * first @ second.T)
    counted = torch.tensor([[1, 1, 0, 1], [1, 1, 1, 1], [0, 1, 1, 1], [1, 1, 1, 1]])
    expected = -torch.log(weights.diagonal() / (weights * counted).sum(dim=1)).mean()
    torch.testing.assert_close(found["loss"], expected, atol=1e-4, rtol=1e-4)


def test_a_batch_of_one_second_text_has_nothing_to_learn():
    vectors = torch.nn.functional.normalize(torch.randn(3, 4), dim=1).requires_grad_()
    loss = in_batch_loss(vectors, vectors, torch.zeros(3), torch.ones(3, 5, dtype=torch.int64))
    loss.backward()
    assert loss == 0
    assert not vectors.grad.any()


@torch.inference_mode()
def test_the_loss_of_scored_pairs_is_the_square_of_what_their_cosine_is_off(loss, plain):
    found = loss([*PAIRS, [1.0, 2.0, 5.0]], training=[5.0, 3.0, 1.0])
    cosines = torch.stack([plain(left) @ plain(right) for left, right in zip(*PAIRS, strict=True)])
    expected = ((cosines - torch.tensor([0, 0.25, 1])) ** 2).mean()
    torch.testing.assert_close(found["loss"], expected, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_of_two_scores_the_lower_one_pushes_apart_what_is_nearer_than_a_margin(loss, plain):
    found = loss([*PAIRS, [2.0, 0.0, 0.0]], training=[0.0, 2.0])
    distances = torch.stack([1 - plain(left) @ plain(right) for left, right in zip(*PAIRS, strict=True)])
    assert distances.min() < 0.5, "none is nearer than the margin"
    pushed = (0.5 - distances[1:]).clamp(min=0)
    expected = (distances[0] ** 2 + (pushed**2).sum()) / 6
    torch.testing.assert_close(found["loss"], expected, atol=1e-5, rtol=1e-4)


def test_scores_in_one_split_only_are_a_problem(train):
    with pytest.raises(DatasetError, match="scores are in train only"):
        train(train=scored(), validation=alike())


def test_the_same_score_for_all_pairs_is_a_problem(train):
    with pytest.raises(DatasetError, match=r"train\.csv: all scores are the same"):
        train(train=[("a", "b", 1.0)] * 12, validation=scored())


def test_the_only_other_score_may_be_held_back(train):
    rows = [(f"my card {number}", "the card", float(number == 0)) for number in range(20)]
    scores = datasets.Dataset.from_dict({"label": [score for *_, score in rows]})
    seed = next(seed for seed in range(1000) if not any(hold_back(scores, VALIDATION_SHARE, seed)[0]["label"]))
    run = train(train=rows, epochs=1, seed=seed)
    assert np.isfinite([entry["eval_loss"] for entry in run.report.history if "eval_loss" in entry]).all()


@pytest.mark.parametrize("score", ["", "high", "nan", "inf"])
def test_scores_that_are_no_numbers_are_listed(train, score):
    with pytest.raises(DatasetError, match=r"train\.csv: the score is not a number: rows 28, 29$"):
        train(train=[*scored(), ("a", "b", score), ("a", "c", score)])


def test_each_text_needs_its_other(train):
    with pytest.raises(DatasetError) as refused:
        train(train=[*alike(), ("", "a"), ("b", " ")])
    assert "no text: row 23" in str(refused.value)
    assert "text_pair is empty: row 24" in str(refused.value)
