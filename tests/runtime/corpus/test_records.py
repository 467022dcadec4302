"""The command line writes the records of every task."""

import json
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import encort
from encort.runtime.cli.main import group
from encort.runtime.common.aggregation import AggregationName
from encort.runtime.common.errors import InputError, WrongTaskError
from encort.runtime.corpus.records import EmbeddingRecords, PredictionRecords
from encort.runtime.text.windows import Overflow
from tests.runtime.conftest import RunEncort

Texts = list[str] | list[tuple[str, str]]
Predict = Callable[..., list[dict[str, Any]]]
MakeRecords = Callable[..., list[dict[str, Any]]]

TEXTS = ["hello", "", "my card is lost", "안녕하세요 😀", "card " * 200]
PAIRS = [("is it lost?", "my card is lost"), ("안녕?", "😀 hello 하이"), ("nothing", ""), ("what", "card " * 200)]
LABELS = ["card_lost", "change_pin", "hello"]
SPAN, ANSWER = ["label", "score", "start", "end", "text"], ["text", "score", "start", "end"]


@pytest.fixture(scope="module")
def model(multi_head: Path) -> Iterator[encort.Model]:
    with encort.load(multi_head, threads=1) as model:
        yield model


@pytest.fixture
def predict(multi_head: Path) -> Predict:
    """`predict("a text", "--head", "tags")` returns the records of the command."""

    def run(*arguments: str | Path) -> list[dict[str, Any]]:
        command = ["predict", "--threads", "1", *map(os.fspath, [multi_head, *arguments])]
        result = CliRunner().invoke(group, command, catch_exceptions=False)
        assert (result.exit_code, result.stderr) == (0, "")
        return [json.loads(line) for line in result.stdout.splitlines()]

    return run


@pytest.fixture
def records(model: encort.Model) -> MakeRecords:
    """`records(texts, head=...)` returns the records, which must be JSON."""

    def make(texts: Texts, *, overflow: Overflow = "truncate", **options: Any) -> list[dict[str, Any]]:
        batch = model.tokenize(texts, overflow=overflow)
        made = PredictionRecords(**options).make(model, batch)
        assert json.loads(json.dumps(made)) == made
        return made

    return make


@pytest.mark.parametrize(
    ("head", "texts", "keys"),
    [
        (None, TEXTS, ["label", "score"]),
        ("topics", TEXTS, ["label", "score"]),
        ("moods", TEXTS, ["labels"]),
        ("stars", TEXTS, ["score"]),
        ("follows", PAIRS, ["label", "score"]),
        ("tags", TEXTS, ["spans"]),
        ("answers", PAIRS, ["answers", "no_answer", "null_score"]),
    ],
)
def test_every_task_has_its_own_keys(
    records: MakeRecords, model: encort.Model, head: str | None, texts: Texts, keys: list[str]
) -> None:
    made = records(texts, head=head)
    assert [list(record) for record in made] == [[*keys, "tokens", "truncated"]] * len(texts)
    assert [record["tokens"] for record in made] == model.tokenize(texts).lengths.tolist()
    assert [record["truncated"] for record in made] == [False] * (len(texts) - 1) + [True]


@pytest.mark.parametrize("aggregation", ["none", "simple", "average"])
def test_an_aggregation_makes_the_spans(
    records: MakeRecords, model: encort.Model, predict: Predict, aggregation: AggregationName
) -> None:
    expected = [[*map(asdict, spans)] for spans in model.tag(TEXTS, aggregation=aggregation)]
    assert [record["spans"] for record in records(TEXTS, aggregation=aggregation)] == expected
    assert predict(TEXTS[2], "--aggregation", aggregation)[0]["spans"] == expected[2]
    with model.serving() as service:
        assert [*map(asdict, service.tag(TEXTS[2], aggregation=aggregation))] == expected[2]


def test_words_in_give_tags_out(model: encort.Model, predict: Predict, tmp_path: Path) -> None:
    texts = [["my", "card", "is", "lost"], ["hello"], []]
    file = tmp_path / "words.jsonl"
    file.write_text("".join(json.dumps({"tokens": words}) + "\n" for words in texts), encoding="utf-8")
    expected = [[word.tag for word in words] for words in model.tag_words(texts)]
    made = predict("--input", file, "--head", "tags")
    assert [record["tags"] for record in made] == expected
    assert predict("--input", file, "--head", "tags", "--column", "tokens") == made
    assert [*map(len, expected)] == [4, 1, 0]
    assert [len(record["scores"]) for record in made] == [4, 1, 0]
    with model.serving() as service:
        assert [word.tag for word in service.tag_words(texts[0])] == expected[0]


def test_words_and_texts_in_one_file_are_refused(tmp_path: Path, multi_head: Path) -> None:
    file = tmp_path / "mixed.jsonl"
    file.write_text('{"tokens": ["my", "card"]}\n{"text": "my card"}\n', encoding="utf-8")
    result = CliRunner().invoke(group, ["predict", os.fspath(multi_head), "--head", "tags", "--input", os.fspath(file)])
    assert "give all of them as `tokens`, or none" in str(result.exception)


def test_bad_words_are_an_error_of_their_row(tmp_path: Path, multi_head: Path) -> None:
    file = tmp_path / "words.jsonl"
    file.write_text('{"tokens": ["my"]}\n{"tokens": ["my", 1]}\n', encoding="utf-8")
    result = CliRunner().invoke(group, ["predict", os.fspath(multi_head), "--input", os.fspath(file)])
    assert "row 2, column 'tokens': expected the words of a text" in str(result.exception)


def test_an_unknown_aggregation_is_an_error(model: encort.Model) -> None:
    with pytest.raises(InputError, match="aggregation must be one of word, none, simple, first, average, max; got"):
        model.tag(["hello"], aggregation="mean")  # type: ignore[arg-type] # on purpose


@pytest.mark.parametrize("head", ["topics", "moods", "follows"])
def test_all_scores_has_the_score_of_every_label(records: MakeRecords, model: encort.Model, head: str) -> None:
    scores = [record["scores"] for record in records(PAIRS, head=head, all_scores=True)]
    assert scores == [dict(result.scores) for result in model.classify(PAIRS, head=head)]


def test_a_multi_label_record_has_the_probable_labels(records: MakeRecords) -> None:
    made = records(TEXTS, head="moods", all_scores=True)
    for record in made:
        assert record["labels"] == [label for label, score in record["scores"].items() if score >= 0.5]
    assert len({len(record["labels"]) for record in made}) > 1


@pytest.mark.parametrize("threshold", [0.0, 0.4, 0.6, 1.0])
def test_the_threshold_decides_which_labels_are_probable(predict: Predict, threshold: float) -> None:
    made = predict(*TEXTS, "--threshold", str(threshold), "--all-scores", "--head", "moods")
    for record in made:
        assert record["labels"] == [label for label, score in record["scores"].items() if score >= threshold]
    assert [record["labels"] for record in predict(*TEXTS, "--threshold", str(threshold))] == [
        record["labels"] for record in made
    ]


def test_a_regression_record_has_the_score(records: MakeRecords, model: encort.Model) -> None:
    assert [record["score"] for record in records(TEXTS, head="stars")] == model.score(TEXTS).tolist()


def test_span_records_have_offsets(records: MakeRecords) -> None:
    made = records(TEXTS, head="tags")
    spans = [(text, span) for text, record in zip(TEXTS, made, strict=True) for span in record["spans"]]
    assert [list(span) for _, span in spans] == [SPAN] * len(spans)
    assert [span["text"] for _, span in spans] == [text[span["start"] : span["end"]] for text, span in spans]
    assert {span["label"] for _, span in spans} == {"x"}


@pytest.mark.parametrize(("n_best", "counts"), [(1, [1, 1, 0, 1]), (4, [4, 4, 0, 4]), (7, [7, 6, 0, 7])])
def test_answer_records_have_n_best_answers(records: MakeRecords, n_best: int, counts: list[int]) -> None:
    made = records(PAIRS, head="answers", n_best=n_best, null_threshold=math.inf)
    assert [len(record["answers"]) for record in made] == counts
    assert [record["no_answer"] for record in made] == [count == 0 for count in counts]
    for (_, context), record in zip(PAIRS, made, strict=True):
        for answer in record["answers"]:
            assert list(answer) == ANSWER
            assert answer["text"] == context[answer["start"] : answer["end"]]


def test_the_null_threshold_decides_whether_a_record_has_answers(predict: Predict, tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text("\n".join(json.dumps({"question": question, "context": context}) for question, context in PAIRS))
    always, never = (predict("--input", file, "--null-threshold", threshold) for threshold in ("inf", "-1e9"))
    assert [len(record["answers"]) for record in always] == [1, 1, 0, 1]
    assert [record["answers"] for record in never] == [[]] * len(PAIRS)
    assert [record["no_answer"] for record in never] == [True] * len(PAIRS)
    assert [record["null_score"] for record in always] == [record["null_score"] for record in never]


def test_embedding_records_are_the_embeddings(model: encort.Model) -> None:
    made = EmbeddingRecords().make(model, model.tokenize(TEXTS))
    assert [list(record) for record in made] == [["embedding", "tokens", "truncated"]] * len(TEXTS)
    np.testing.assert_array_equal([record["embedding"] for record in made], model.embed(TEXTS))


def test_the_error_for_an_unknown_head_lists_all_heads(records: MakeRecords, encoder: encort.Model) -> None:
    with pytest.raises(WrongTaskError, match=r"'mood'.*topics.*moods.*stars.*follows.*tags.*answers"):
        records(TEXTS, head="mood")
    with pytest.raises(WrongTaskError, match="none"):
        PredictionRecords(head="topics").make(encoder, encoder.tokenize(TEXTS))


@pytest.mark.parametrize("head", ["topics", "moods", "stars", "tags"])
def test_the_command_uses_the_named_head(predict: Predict, records: MakeRecords, head: str) -> None:
    assert predict(*TEXTS, "--head", head) == records(TEXTS, head=head)


def test_n_best_uses_the_head_for_question_answering(predict: Predict, records: MakeRecords, tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text("\n".join(json.dumps({"question": question, "context": context}) for question, context in PAIRS))
    made = predict("--input", file, "--n-best", "3", "--null-threshold", "inf")
    assert made == records(PAIRS, head="answers", n_best=3, null_threshold=math.inf, overflow="window")


@pytest.mark.parametrize("name", ["x.csv", "x.tsv", "x.jsonl"])
def test_the_command_reads_questions_and_contexts(
    predict: Predict, records: MakeRecords, tmp_path: Path, name: str
) -> None:
    rows = [("question", "context"), *PAIRS]
    if name == "x.jsonl":
        lines = [json.dumps(dict(zip(rows[0], row, strict=True))) for row in rows[1:]]
    else:
        lines = [("," if name == "x.csv" else "\t").join(row) for row in rows]
    (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    made = predict("--input", tmp_path / name, "--head", "answers", "--n-best", "3")
    assert made == records(PAIRS, head="answers", n_best=3, overflow="window")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--head", "mood"], "no head 'mood'"),
        (["--head", "answers"], "pair of question and context"),
        (["--head", "answers", "--n-best", "0"], "n-best"),
        (["--head", "stars", "--n-best", "2"], "no head 'stars' for question-answering"),
        (["--head", "stars", "--all-scores"], "no head 'stars' for text-classification or"),
        (["--n-best", "2", "--all-scores"], "give one of them"),
        (["--null-threshold", "1", "--all-scores"], "--all-scores and --null-threshold are for different tasks"),
        (["--null-threshold", "nan", "--head", "answers"], "null_threshold is NaN"),
        (["--threshold", "0", "--n-best", "2"], "--n-best and --threshold are for different tasks"),
        (["--threshold", "0.5", "--head", "topics"], "no head 'topics' for multi-label-classification"),
        (["--threshold", "1.5", "--head", "moods"], "threshold"),
    ],
)
def test_an_error_of_the_command_is_one_line(
    run_encort: RunEncort, multi_head: Path, arguments: list[str], message: str
) -> None:
    done = run_encort("predict", multi_head, "a text", *arguments)
    assert (done.returncode > 0, done.stdout) == (True, "")
    assert "Traceback" not in done.stderr
    assert message in done.stderr.splitlines()[-1]


def test_records_with_spans_and_answers_become_parquet(predict: Predict, records: MakeRecords, tmp_path: Path) -> None:
    from pyarrow import parquet

    assert predict(*TEXTS, "--head", "tags", "--output", tmp_path / "x.parquet") == []
    assert parquet.read_table(tmp_path / "x.parquet").to_pylist() == records(TEXTS, head="tags")
