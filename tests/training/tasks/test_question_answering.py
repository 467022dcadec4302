"""Questions: where an answer is in its windows, the metrics, and rows that are refused."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import encort
from encort.export.exporter import export_bundle
from encort.export.source.checkpoint import Checkpoint
from encort.runtime.bundle.manifest import Task
from encort.runtime.common.answer_metrics import answer_f1, exact_match
from encort.runtime.common.errors import CheckpointError, DatasetError
from encort.runtime.common.labelled_rows.cells import RowError
from encort.runtime.tasks.results import Answer, Answers
from encort.training.pretrained import Pretrained
from encort.training.settings import TrainingSettings
from encort.training.tasks.question_answering import QuestionAnswering, best_threshold

Run = Any  # of tests/training/conftest.py, which cannot be imported
Question = tuple[str, str, str, int]
Write = Callable[..., Path]
Train = Callable[..., Run]
Encode = Callable[..., tuple[list[list[str]], list[tuple[int, int]]]]

FILLERS = ["my", "the", "is", "lost", "hello", "change", "1", "7"]


def questions(count: int, seed: int = 0, most: int = 12) -> Iterator[Question]:
    """Give questions whose answer goes from `card` to `pin`, in contexts of many lengths."""
    random = np.random.default_rng(seed)
    for _ in range(count):
        words = [str(word) for word in random.choice(FILLERS, size=random.integers(1, most))]
        position = int(random.integers(0, len(words) + 1))
        answer = ["card", "pin"] if random.random() < 0.5 else ["card", "play", "pin"]
        start = len("".join(f"{word} " for word in words[:position]))
        context = " ".join([*words[:position], *answer, *words[position:]])
        yield "hello?", context, " ".join(answer), start


def unanswerable(count: int, seed: int = 0, most: int = 12) -> Iterator[Question]:
    """Give questions whose context lacks the beginning of an answer."""
    random = np.random.default_rng(seed)
    for _ in range(count):
        yield "hello?", " ".join(random.choice([*FILLERS, "pin", "play"], size=random.integers(1, most))), "", 0


def jsonl(rows: Any) -> str:
    names = ("question", "context", "answers")
    form = [
        (question, context, {"text": [text] if text else [], "answer_start": [at] if text else []})
        for question, context, text, at in rows
    ]
    return "".join(json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False) + "\n" for row in form)


def squad(rows: Any) -> str:
    paragraphs = [
        {
            "context": context,
            "qas": [
                {
                    "id": str(number),
                    "question": question,
                    "answers": [{"text": text, "answer_start": at}] if text else [],
                    "is_impossible": not text,
                }
            ],
        }
        for number, (question, context, text, at) in enumerate(rows)
    ]
    return json.dumps({"version": "1.1", "data": [{"title": "t", "paragraphs": paragraphs}]})


@pytest.fixture
def train(train_tiny: Callable[..., Run], write: Write) -> Train:
    """`train(train=[(question, context, text, start)], validation=...)`: a run on these rows, one file per split."""

    def run(ending: str = "jsonl", **options: Any) -> Any:
        rows = {split: options.pop(split) for split in ("train", "validation", "test") if split in options}
        form = squad if ending == "json" else jsonl
        files = {split: write(f"{split}.{ending}", form(list(content))) for split, content in rows.items()}
        return train_tiny(task=QuestionAnswering(), **files, **options)

    return run


@pytest.fixture
def encode(tiny_encoder: Path) -> Encode:
    """`encode(question, context, answers)`: the tokens of each window, and the first and last token of the answer."""

    def run(question: str, context: str, answers: Any, **settings: Any) -> Any:
        task, pretrained = QuestionAnswering(), Pretrained.open(str(tiny_encoder), TrainingSettings(**settings))
        row = task.schema.rows.parse({"question": question, "context": context, "label": answers})
        columns = task.encode({name: [value] for name, value in row.items()}, pretrained, SimpleNamespace(labels=()))
        windows = [pretrained.saved_tokenizer.convert_ids_to_tokens(ids) for ids in columns.pop("input_ids")]
        return windows, list(zip(columns["start_positions"], columns["end_positions"], strict=True))

    return run


@pytest.mark.parametrize("ending", ["json", "jsonl"])
def test_a_separable_task_is_learned(train: Train, ending: str) -> None:
    run = train(ending, train=questions(60), validation=questions(15, seed=1), test=questions(15, seed=2), epochs=8)
    assert run.report.metrics["validation"] == {"f1": 1, "exact_match": 1}
    assert run.report.metrics["test"]["f1"] > 0.9
    assert run.report.rows == {"train": 60, "validation": 15, "test": 15}
    assert run.report.labels == []


def test_questions_without_an_answer_are_learned(train: Train, tmp_path: Path) -> None:
    rows = {
        split: [*questions(count, seed), *unanswerable(count, seed)]
        for split, count, seed in (("train", 60, 0), ("validation", 15, 1), ("test", 15, 2))
    }
    run = train("json", **rows, epochs=8)
    assert set(run.report.metrics["validation"].values()) == {1}
    assert list(run.report.metrics["validation"]) == [
        "f1",
        "exact_match",
        "HasAns_f1",
        "HasAns_exact_match",
        "NoAns_f1",
        "NoAns_exact_match",
    ]
    assert run.report.metrics["test"]["NoAns_f1"] > 0.9
    assert run.report.metrics["test"]["HasAns_f1"] > 0.9
    export_bundle(run.folder, tmp_path / "bundle", variants=["fp32"])
    with encort.load(tmp_path / "bundle") as model:
        served = model.answer([(question, context) for question, context, *_ in rows["validation"]])
    assert [answers.no_answer for answers in served] == [not text for *_, text, _ in rows["validation"]]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("lost card", (3, 4)), ("playing", (6, 7)), ("pin!", (9, 10)), ("the", (8, 8))],
    ids=["at the beginning", "in the middle", "at the end", "one token"],
)
def test_an_answer_goes_from_its_first_to_its_last_token(
    encode: Encode, answer: str, expected: tuple[int, int]
) -> None:
    windows, bounds = encode("hello", "lost card is playing the pin!", answer)
    assert windows == [
        ["[CLS]", "hello", "[SEP]", "lost", "card", "is", "play", "##ing", "the", "pin", "!", "[SEP]"],
    ]
    assert bounds == [expected]


@pytest.mark.parametrize(
    "answer", ["cafe\u0301", "\u200bcafe\u0301", "cafe"], ids=["mark", "zero width", "without mark"]
)
def test_an_answer_with_characters_that_the_tokenizer_drops_has_its_tokens(encode: Encode, answer: str) -> None:
    windows, bounds = encode("hello", "the \u200bcafe\u0301 is", answer)
    assert windows[0][4:8] == ["c", "##a", "##f", "##e"]
    assert bounds == [(4, 7)]


def test_an_answer_inside_of_a_word_has_the_tokens_that_it_touches(encode: Encode) -> None:
    assert encode("my", "is played", "laye")[1] == [(4, 5)]


def test_answer_start_decides_between_equal_words(encode: Encode) -> None:
    answers = {"text": ["pin", "is pin"], "answer_start": [11, 8]}
    windows, bounds = encode("my", "pin the is pin", answers)
    assert windows[0][3:7] == ["pin", "the", "is", "pin"]
    assert bounds == [(6, 6)]


def test_white_space_around_an_answer_is_no_part_of_it(encode: Encode) -> None:
    assert encode("my", "the card is lost", {"text": [" card "], "answer_start": [3]})[1] == [(4, 4)]


def test_an_answer_is_never_found_in_the_question(encode: Encode) -> None:
    assert encode("card", "my card", "card")[1] == [(4, 4)]


def test_a_long_context_is_read_in_windows(encode: Encode) -> None:
    context = "1 2 3 4 5 6 card pin 7"
    windows, bounds = encode("my", context, "card pin", max_length=8)
    assert all(len(window) <= 8 and window[:3] == ["[CLS]", "my", "[SEP]"] for window in windows)
    assert len(windows) > 2
    for window, answer_bounds in zip(windows, bounds, strict=True):
        whole = "card pin" in " ".join(window)
        assert answer_bounds == ((window.index("card"), window.index("pin")) if whole else (0, 0))
    assert (0, 0) in bounds
    assert any(answer_bounds != (0, 0) for answer_bounds in bounds)


def test_windows_with_a_part_of_the_answer_have_no_answer(encode: Encode) -> None:
    windows, bounds = encode("my", "1 2 3 card play pin 4 5", "card play pin", max_length=6)
    assert all(len({"card", "play", "pin"}.intersection(window)) < 3 for window in windows)
    assert set(bounds) == {(0, 0)}


@pytest.fixture
def half_trained(train: Train) -> Callable[..., tuple[Run, list[Question]]]:
    """`half_trained(...)`: a run that has not learned enough, and its validation rows."""

    def run(most: int = 12, **settings: Any) -> Any:
        rows = list(questions(40, seed=3, most=most))
        content = {"train": questions(60, most=most), "validation": rows}
        return train(**content, **{"epochs": 3, "learning_rate": 2e-3, **settings}), rows

    return run


def served_metrics(folder: Path, rows: Any, bundle_folder: Path) -> dict[str, float]:
    export_bundle(folder, bundle_folder, variants=["fp32"])
    with encort.load(bundle_folder) as model:
        answers = model.answer([(question, context) for question, context, *_ in rows])
    predicted = [best[0].text if best else "" for best in answers]
    pairs = [(right, text) for (_, _, right, _), text in zip(rows, predicted, strict=True)]
    return {
        "f1": np.mean([answer_f1(*pair) for pair in pairs]),
        "exact_match": np.mean([exact_match(*pair) for pair in pairs]),
    }


@pytest.mark.parametrize("settings", [{}, {"most": 40, "max_length": 16}], ids=["whole", "windows"])
def test_the_metrics_are_those_of_the_served_answers(
    half_trained: Callable[..., tuple[Run, list[Question]]], settings: Any, tmp_path: Path
) -> None:
    run, rows = half_trained(**settings)
    expected = served_metrics(run.folder, rows, tmp_path / "served.bundle")
    assert 0.05 < expected["exact_match"] < 0.95, "too easy or too hard to tell one from another"
    assert run.report.metrics["validation"] == pytest.approx(expected)


def test_the_best_of_several_right_answers_counts(tiny_encoder: Path) -> None:
    task, pretrained = QuestionAnswering(), Pretrained.open(str(tiny_encoder), TrainingSettings())
    rows = {"question": ["my"], "context": ["the card is lost"], "label": [["lost", "card is"]], "starts": [[12, 4]]}
    # [CLS] my [SEP] the card is lost [SEP], and padding that must not count.
    start, end = np.full((2, 1, 10), -5.0)
    start[0, 4], end[0, 5], end[0, 9] = 5, 5, 9
    scores = task.scores((start, end), None, _Rows(rows), pretrained, SimpleNamespace(labels=()))
    assert scores.metrics == {"f1": 1, "exact_match": 1}


def best(margin: float, text: str) -> Answers:
    return Answers([Answer(text=text, score=0.5, start=0, end=1)], null_margin=margin)


@pytest.mark.parametrize(
    ("answers", "right", "expected"),
    [
        ([best(-3, "x"), best(1, "y")], [["x"], []], 0),
        ([best(1, "x"), best(3, "y")], [["x"], []], 2),
        ([best(-3, "x"), best(-1, "y")], [["x"], []], -2),
        ([best(-3, "x"), best(5, "y")], [["x"], ["y"]], 6),
        ([best(-3, "x"), best(5, "wrong")], [["x"], ["y"]], 0),
        ([best(-3, "wrong"), best(2, "wrong")], [[], []], -4),
        ([best(1, "x"), best(1, "y"), best(4, "z")], [["x"], [], []], 0),
        ([best(1, "x y"), best(1, "wrong"), best(4, "z")], [["x y"], ["y z"], []], 2.5),
        ([Answers(null_margin=np.inf), best(1, "x")], [[], ["x"]], 2),
        ([Answers(null_margin=np.inf)], [[]], 0),
    ],
)
def test_the_threshold_with_the_best_f1_is_chosen(
    answers: list[Answers], right: list[list[str]], expected: float
) -> None:
    assert best_threshold(answers, right) == pytest.approx(expected)


def test_the_bundle_keeps_the_threshold_of_the_checkpoint(train: Train, tmp_path: Path) -> None:
    run = train(train=questions(12), validation=questions(2), epochs=1)
    assert isinstance(run.config["null_threshold"], float)
    config = json.loads((run.folder / "config.json").read_text())
    (run.folder / "config.json").write_text(json.dumps(config | {"null_threshold": -1.25}))
    bundle = export_bundle(run.folder, tmp_path / "bundle", variants=["fp32"])
    assert bundle.manifest.heads[0].null_threshold == -1.25


@pytest.mark.parametrize("threshold", ["high", [1], True, 1e400])
def test_a_threshold_that_is_no_number_is_refused(threshold: Any) -> None:
    model = SimpleNamespace(config=SimpleNamespace(null_threshold=threshold))
    checkpoint: Any = SimpleNamespace(model=model, task=Task.QUESTION_ANSWERING, name="folder")
    with pytest.raises(CheckpointError, match=r"null_threshold in its config\.json is"):
        Checkpoint.null_threshold.__get__(checkpoint)


class _Rows(dict[str, Any]):
    """Columns that can be sliced as those of a dataset."""

    def __getitem__(self, name: Any) -> Any:
        return dict(self) if isinstance(name, slice) else super().__getitem__(name)


def test_a_classifier_can_be_trained_further_to_answer(train: Train, make_checkpoint: Callable[..., Path]) -> None:
    model = make_checkpoint(labels=["a", "b", "c"], hidden_size=24, num_attention_heads=2, num_hidden_layers=1)
    run = train(train=questions(12), validation=questions(2), epochs=1, model=model)
    assert run.config["architectures"] == ["BertForQuestionAnswering"]


@pytest.mark.parametrize(
    ("answers", "problem"),
    [
        ({"text": ["pin"], "answer_start": [0]}, "an answer is not in its context at answer_start"),
        ({"text": ["card", "pin"], "answer_start": [3, 0]}, "an answer is not in its context at answer_start"),
        ({"text": ["pin"], "answer_start": [-3]}, "an answer is not in its context at answer_start"),
        ({"text": ["my"], "answer_start": [-10]}, "an answer is not in its context at answer_start"),
        ({"text": ["my"], "answer_start": [1e400]}, "answer_start is not a whole number for every answer"),
        ({"text": [" "], "answer_start": [2]}, "an answer is empty"),
        ({"text": ["", "my"], "answer_start": [2, 0]}, "an answer is empty"),
        ("pin", "an answer is not in its context"),
        (["card", "pin"], "an answer is not in its context"),
        ([" "], "an answer is empty"),
        (None, "no answers; an empty list, or is_impossible, says that the context has none"),
        (3, "answers is not a text, a list of texts, or text and answer_start as SQuAD has them"),
    ],
)
def test_answers_that_cannot_be_learned_have_a_problem(answers: Any, problem: str) -> None:
    with pytest.raises(RowError, match=f"^{problem}$"):
        QuestionAnswering.schema.rows.parse({"question": "is it?", "context": "my card is", "label": answers})


@pytest.mark.parametrize(
    "answers",
    [
        {"text": ["card"], "answer_start": ["x"]},
        {"text": ["card"], "answer_start": [None]},
        {"text": ["card", "is"], "answer_start": [3]},
        {"text": None, "answer_start": None},
        {"text": [3], "answer_start": [3]},
    ],
)
def test_malformed_answers_have_a_problem(answers: Any) -> None:
    with pytest.raises(RowError, match="answer"):
        QuestionAnswering.schema.rows.parse({"question": "is it?", "context": "my card is", "label": answers})


def test_every_problem_is_told_with_its_rows(train: Train) -> None:
    rows = [*questions(10), ("", "card", "card", 0), ("is?", "card", "pin", 0), ("is?", " ", "pin", 0)]
    with pytest.raises(DatasetError) as refused:
        train(train=rows, validation=[("is?", "card", "pin", 0)])
    message = str(refused.value)
    assert "train.jsonl: no question: row 11" in message
    assert "train.jsonl: context is empty: row 13" in message
    assert "train.jsonl: an answer is not in its context at answer_start: row 12" in message
    assert "validation.jsonl: an answer is not in its context at answer_start: row 1" in message


def test_a_question_that_leaves_no_room_for_its_context_is_a_problem_of_its_row(train: Train) -> None:
    rows = [*questions(11), ("hello " * 12, "card pin", "card pin", 0)]
    with pytest.raises(DatasetError, match="row 12"):
        train(train=rows, validation=questions(2), max_length=12)
