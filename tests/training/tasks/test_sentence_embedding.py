"""Sentence embeddings: losses, metrics, and checkpoints that sentence-transformers can read."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

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

Run = Any  # of tests/training/conftest.py, which cannot be imported
Train = Callable[..., Run]
Loss = Callable[..., dict[str, torch.Tensor]]

TOPICS = {"card": ("my card", "the card is lost"), "pin": ("change the pin", "pin"), "hello": ("hello", "hello my !")}
TEXTS = ["my card is lost", "hello", "change the pin " * 9, "하이"]


def alike() -> list[tuple[str, str]]:
    """Return pairs of texts about the same thing."""
    things = ["card", "pin", "hello", "play", "lost", "change", *"abcdefgh12345678"]
    return [(f"my {thing}", f"the {thing} is") for thing in things]


def scored(others: Sequence[float] = (0.0, 1.0)) -> list[tuple[str, str, float]]:
    """Return pairs with the score 5 for the same topic, and some of these scores for different topics."""
    topics = list(TOPICS.values())
    return [
        (f"{left[0]} {end}", f"{right[1]} {end}", 5.0 if left is right else others[number % len(others)])
        for number, end in enumerate(("1", "is", "a b"))
        for left in topics
        for right in topics
    ]


@pytest.fixture
def train(train_tiny: Callable[..., Run], tmp_path: Path) -> Train:
    """`train(train=[...], validation=...)`: a run on these rows, one file per split."""

    def run(**options: Any) -> Any:
        splits = {split: options.pop(split) for split in ("train", "validation", "test") if split in options}
        for split, rows in splits.items():
            names = ("text", "text_pair", "score")[: len(rows[0])]
            with (tmp_path / f"{split}.csv").open("w", newline="") as file:
                csv.writer(file).writerows([names, *rows])
        files = {split: tmp_path / f"{split}.csv" for split in splits}
        return train_tiny(task=SentenceEmbedding(), **files, **options)

    return run


@pytest.fixture
def pretrained(tiny_encoder: Path) -> Pretrained:
    return Pretrained.open(str(tiny_encoder), TrainingSettings())


def encoded(pretrained: Pretrained, rows: Any) -> dict[str, torch.Tensor]:
    columns = SentenceEmbedding().encode(dict(zip(("text", "text_pair", "label"), rows, strict=True)), pretrained, None)
    return Collator(0)([{name: values[row] for name, values in columns.items()} for row in range(len(rows[0]))])


def embedded(model: Any, tokenizer: Any, text: str) -> torch.Tensor:
    """Return the normalized mean of the tokens of one text, in the simplest way."""
    hidden = model(**tokenizer(text, return_tensors="pt", truncation=True)).last_hidden_state[0]
    return torch.nn.functional.normalize(hidden.mean(dim=0), dim=0)


@pytest.fixture
def plain(tiny_encoder: Path) -> Callable[[str], torch.Tensor]:
    """`plain(text)`: the embedding of a text, with transformers alone."""
    model = transformers.AutoModel.from_pretrained(tiny_encoder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_encoder)
    return lambda text: embedded(model, tokenizer, text)


def test_pairs_without_scores_are_learned(train: Train) -> None:
    run = train(train=alike(), validation=alike(), epochs=8, batch_size=6)
    assert run.report.metrics["validation"].keys() == {"score", "accuracy_at_1"}
    accuracies = [entry["eval_score"] for entry in run.report.history if "eval_score" in entry]
    assert accuracies[-1] > 0.8
    losses = [entry["loss"] for entry in run.report.history if "loss" in entry]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("others", [(0.0,), (0.0, 1.0)], ids=["two scores", "more scores"])
def test_pairs_with_scores_are_learned(train: Train, others: Sequence[float]) -> None:
    rows = scored(others)
    run = train(train=rows * 3, validation=rows, test=rows[:9], epochs=5)
    assert run.report.metrics["validation"].keys() == {"score", "spearman", "pearson"}
    assert run.report.metrics["validation"]["pearson"] > 0.8
    assert run.report.metrics["validation"]["score"] == run.report.metrics["validation"]["spearman"]
    assert run.report.rows == {"train": 81, "validation": 27, "test": 9}


@pytest.fixture(params=["alike", "scored"])
def learned(request: pytest.FixtureRequest, train: Train) -> Path:
    rows = {"alike": alike, "scored": scored}[request.param]()
    return train(train=rows, validation=rows, epochs=1, max_length=16).folder


def test_sentence_transformers_and_the_bundle_give_the_same_embeddings(learned: Path, tmp_path: Path) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    theirs = sentence_transformers.SentenceTransformer(str(learned), device="cpu")
    assert theirs.max_seq_length == 16
    expected = theirs.encode(TEXTS, show_progress_bar=False)
    np.testing.assert_allclose(np.linalg.norm(expected, axis=1), 1, atol=1e-6)
    bundle = export_bundle(learned, tmp_path / "served.bundle", variants=["fp32"])
    assert (bundle.manifest.embedding.pooling, bundle.manifest.embedding.normalize) == ([Pooling.MEAN], True)
    with encort.load(bundle.folder) as model:
        np.testing.assert_allclose(model.embed(TEXTS), expected, atol=1e-5)


def test_the_checkpoint_holds_the_encoder_alone(learned: Path) -> None:
    model, info = transformers.AutoModel.from_pretrained(learned, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert type(model) is transformers.BertModel


def test_the_accuracy_counts_the_nearest_second_texts(train: Train) -> None:
    run = train(train=alike(), validation=alike(), epochs=1, learning_rate=1e-4)
    model = transformers.AutoModel.from_pretrained(run.folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(run.folder)
    with torch.inference_mode():
        first, second = (torch.stack([embedded(model, tokenizer, pair[side]) for pair in alike()]) for side in (0, 1))
    hits = (first @ second.T).argmax(dim=1) == torch.arange(len(first))
    assert 0 < hits.float().mean() < 1, "too easy or too hard to tell one from another"
    assert run.report.metrics["validation"]["score"] == pytest.approx(float(hits.float().mean()))


def test_a_second_text_that_two_pairs_share_is_right_for_both(pretrained: Pretrained) -> None:
    rows = [{"text": "a", "text_pair": "c", "label": None}, {"text": "b", "text_pair": "c", "label": None}]
    first, second = np.eye(2, 3), np.array([[1.0, 0, 0], [1, 0, 0]])
    scores = SentenceEmbedding().scores((first, second), None, rows, pretrained, None)
    assert scores.metrics == {"score": 1, "accuracy_at_1": 1}


@pytest.fixture
def loss(pretrained: Pretrained) -> Loss:
    """`loss(rows, training=scores)`: outputs for a batch. The network is made for training data with these scores."""

    @torch.inference_mode()
    def run(rows: Any, training: list[float | None]) -> Any:
        examples = Examples(train=datasets.Dataset.from_dict({"label": training}), validation=None)
        return SentenceEmbedding().network(pretrained, examples).eval()(**encoded(pretrained, rows))

    return run


PAIRS = [TEXTS[:3], ["the card", "hello my", "pin"]]


@torch.inference_mode()
def test_the_loss_of_alike_pairs_is_the_cross_entropy_of_cosines_in_the_batch(
    loss: Loss, plain: Callable[[str], torch.Tensor]
) -> None:
    outputs = loss([*PAIRS, [None] * 3], training=[None, None])
    first, second = (torch.stack(list(map(plain, texts))) for texts in PAIRS)
    weights = torch.exp(20 * first @ second.T)
    torch.testing.assert_close(outputs["first"], first, atol=1e-5, rtol=0)
    torch.testing.assert_close(outputs["second"], second, atol=1e-5, rtol=0)
    expected = -torch.log(weights.diagonal() / weights.sum(dim=1)).mean()
    torch.testing.assert_close(outputs["loss"], expected, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_copies_of_the_right_second_text_are_left_out_of_the_loss(
    loss: Loss, plain: Callable[[str], torch.Tensor]
) -> None:
    pairs = [[*TEXTS[:3], "my pin"], ["pin", "the card", "pin", "pin pin"]]
    outputs = loss([*pairs, [None] * 4], training=[None, None])
    first, second = (torch.stack(list(map(plain, texts))) for texts in pairs)
    weights = torch.exp(20 * first @ second.T)
    counted = torch.tensor([[1, 1, 0, 1], [1, 1, 1, 1], [0, 1, 1, 1], [1, 1, 1, 1]])
    expected = -torch.log(weights.diagonal() / (weights * counted).sum(dim=1)).mean()
    torch.testing.assert_close(outputs["loss"], expected, atol=1e-4, rtol=1e-4)


def test_a_batch_with_one_distinct_second_text_has_no_loss() -> None:
    vectors = torch.nn.functional.normalize(torch.randn(3, 4), dim=1).requires_grad_()
    loss = in_batch_loss(vectors, vectors, torch.zeros(3), torch.ones(3, 5, dtype=torch.int64))
    loss.backward()
    assert loss == 0
    assert not vectors.grad.any()


@torch.inference_mode()
def test_the_loss_of_scored_pairs_is_the_squared_error_of_the_cosine(
    loss: Loss, plain: Callable[[str], torch.Tensor]
) -> None:
    outputs = loss([*PAIRS, [1.0, 2.0, 5.0]], training=[5.0, 3.0, 1.0])
    cosines = torch.stack([plain(left) @ plain(right) for left, right in zip(*PAIRS, strict=True)])
    expected = ((cosines - torch.tensor([0, 0.25, 1])) ** 2).mean()
    torch.testing.assert_close(outputs["loss"], expected, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_the_lower_of_two_scores_pushes_pairs_apart_up_to_the_margin(
    loss: Loss, plain: Callable[[str], torch.Tensor]
) -> None:
    outputs = loss([*PAIRS, [2.0, 0.0, 0.0]], training=[0.0, 2.0])
    distances = torch.stack([1 - plain(left) @ plain(right) for left, right in zip(*PAIRS, strict=True)])
    assert distances.min() < 0.5, "none is nearer than the margin"
    pushed = (0.5 - distances[1:]).clamp(min=0)
    expected = (distances[0] ** 2 + (pushed**2).sum()) / 6
    torch.testing.assert_close(outputs["loss"], expected, atol=1e-5, rtol=1e-4)


def test_scores_in_only_one_split_are_refused(train: Train) -> None:
    with pytest.raises(DatasetError, match="scores are in train only"):
        train(train=scored(), validation=alike())


def test_the_same_score_for_all_pairs_is_refused(train: Train) -> None:
    with pytest.raises(DatasetError, match=r"train\.csv: all scores are the same"):
        train(train=[("a", "b", 1.0)] * 12, validation=scored())


def test_training_works_if_the_only_different_score_is_held_back(train: Train) -> None:
    rows = [(f"my card {number}", "the card", float(number == 0)) for number in range(20)]
    scores = datasets.Dataset.from_dict({"label": [score for *_, score in rows]})
    seed = next(seed for seed in range(1000) if not any(hold_back(scores, VALIDATION_SHARE, seed)[0]["label"]))
    run = train(train=rows, epochs=1, seed=seed)
    assert np.isfinite([entry["eval_loss"] for entry in run.report.history if "eval_loss" in entry]).all()


@pytest.mark.parametrize("score", ["", "high", "nan", "inf"])
def test_scores_that_are_no_numbers_are_listed_by_row(train: Train, score: str) -> None:
    with pytest.raises(DatasetError, match=r"train\.csv: the score is not a number: rows 28, 29$"):
        train(train=[*scored(), ("a", "b", score), ("a", "c", score)])


def test_each_text_needs_its_second_text(train: Train) -> None:
    with pytest.raises(DatasetError) as refused:
        train(train=[*alike(), ("", "a"), ("b", " ")])
    assert "no text: row 23" in str(refused.value)
    assert "text_pair is empty: row 24" in str(refused.value)
