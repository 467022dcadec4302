"""Every file that can be trained on can be evaluated, with the same options: both read the same texts and labels."""

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pytest
from pyarrow import parquet

from encort.export.evaluation import Evaluation
from encort.runtime.bundle.manifest import HeadInfo, Task
from encort.runtime.common.aggregation import Aggregation
from encort.runtime.common.tag_schemes import TagScheme
from encort.runtime.tasks.spans import spans_of_tags
from encort.training.commands import TASKS
from encort.training.prepare import HeadData, Prepared
from encort.training.settings import TrainingSettings
from encort.training.tasks.base import TrainingTask
from encort.training.tasks.next_sentence import DualEncoderTask, NextSentencePrediction
from encort.training.tasks.question_answering import QuestionAnswering
from encort.training.tasks.sentence_embedding import SentenceEmbedding
from encort.training.tasks.text_classification import MultiLabelClassification, TextClassification, TextRegression
from encort.training.tasks.token_classification import TokenClassification


def lines(*rows: Any) -> str:
    """Return JSON lines with these rows six times."""
    return "".join(json.dumps(row) + "\n" for row in rows * 6)


def table(*rows: Mapping[str, Any]) -> bytes:
    """Return a Parquet file with these rows six times."""
    stream = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(list(rows * 6)), stream)
    return stream.getvalue()


TAGS = datasets.List(datasets.ClassLabel(names=["O", "B-x"]))


def classes(**features: Any) -> bytes:
    """Return a Parquet file as `datasets` writes it, with the names of classes, or of tags."""
    ((name, feature),) = features.items()
    columns: dict[str, Any] = {"text": ["x", "y"] * 6, name: [0, 1] * 6}
    columns = {"tokens": [["my", "card"], ["pin"]] * 6, name: [[0, 1], [1]] * 6} if feature is TAGS else columns
    inputs = {other: datasets.Value("string") for other in columns if other == "text"}
    inputs |= {other: datasets.List(datasets.Value("string")) for other in columns if other == "tokens"}
    stream = io.BytesIO()
    datasets.Dataset.from_dict(columns, features=datasets.Features({**inputs, name: feature})).to_parquet(stream)
    return stream.getvalue()


def label_studio() -> str:
    """Return an export of Label Studio, with a skipped annotation, and a text that was read and has no spans."""

    def span(start: int, text: str, label: str) -> dict[str, Any]:
        value = {"start": start, "end": start + len(text), "text": text, "labels": [label]}
        return {"id": "a", "from_name": "ner", "to_name": "text", "type": "labels", "value": value}

    tasks = [
        {"data": {"text": "hi Ann"}, "annotations": [{"result": [span(3, "Ann", "y")], "was_cancelled": False}]},
        {
            "data": {"text": "Bo in Rome"},
            "annotations": [
                {"result": [span(0, "Bo in", "z")], "was_cancelled": True},
                {"result": [span(0, "Bo", "y"), span(6, "Rome", "x")], "was_cancelled": False},
            ],
        },
        {"data": {"text": "nobody"}, "annotations": [{"result": []}]},
    ]
    return json.dumps(tasks * 6)


def squad(*answers: list[dict[str, Any]]) -> str:
    questions = [{"question": "what?", "answers": answers_of_question} for answers_of_question in answers]
    return json.dumps({"data": [{"paragraphs": [{"context": "my card is lost", "qas": questions * 6}]}]})


FILES: dict[str, tuple[TrainingTask, str, str | bytes, dict[str, Any]]] = {
    "labels": (TextClassification(), "a.csv", "text,label\n" + "hello,a\nbye, b \n" * 6, {}),
    "labels as numbers": (
        TextClassification(),
        "a.jsonl",
        lines({"text": "x", "label": 1}, {"text": "y", "label": 0}),
        {},
    ),
    "labels of pairs": (
        TextClassification(),
        "a.parquet",
        table({"text": "x", "text_pair": "y", "label_text": "a"}, {"text": "x", "text_pair": "z", "label_text": "b"}),
        {},
    ),
    "renamed columns": (
        TextClassification(),
        "a.tsv",
        "id\tmessage\tintent\n" + "1\thello\ta\n2\tbye\tb\n" * 6,
        {"columns": {"text": "message", "label": "intent"}},
    ),
    "the only other column": (TextClassification(), "a.csv", "kind,text\n" + "a,hello\nb,bye\n" * 6, {}),
    "no header": (TextClassification(), "a.csv", "1,hello,a\n2,bye,b\n" * 6, {"header": ["id", "text", "label"]}),
    "no header, renamed": (
        TextClassification(),
        "a.tsv",
        "hello\ta\nbye\tb\n" * 6,
        {"header": ["said", "meant"], "columns": {"text": "said", "label": "meant"}},
    ),
    "bars": (MultiLabelClassification(), "a.csv", "text,labels\n" + "hello,a|b\nbye, b |\nnow,\n" * 6, {}),
    "lists of labels": (
        MultiLabelClassification(),
        "a.jsonl",
        lines({"text": "x", "labels": ["a", "b "]}, {"text": "y", "labels": []}),
        {},
    ),
    "renamed bars": (
        MultiLabelClassification(),
        "a.csv",
        "id,text,topics\n" + "1,hello,a|b\n2,bye,\n" * 6,
        {"columns": {"label": "topics"}},
    ),
    "lists of one label": (
        TextClassification(),
        "a.jsonl",
        lines({"text": "x", "label": ["a"]}, {"text": "y", "label": ["b"]}),
        {},
    ),
    "floats as labels": (
        TextClassification(),
        "a.parquet",
        table({"text": "x", "label": 1.0}, {"text": "y", "label": 0.0}),
        {},
    ),
    "names of classes in Parquet": (
        TextClassification(),
        "a.parquet",
        classes(label=datasets.ClassLabel(names=["a", "b"])),
        {},
    ),
    "an array of records": (
        TextClassification(),
        "a.json",
        json.dumps([{"text": "x", "label": "a"}, {"text": "y", "label": "b"}] * 6),
        {},
    ),
    "semicolons": (TextClassification(), "a.csv", "text;label\n" + "hello, you;a\nbye;b\n" * 6, {}),
    "one column per class": (
        TextClassification(),
        "a.csv",
        "text,card,pin\n" + "hello,1,0\nbye,0,1\n" * 6,
        {"columns": {"label": "card,pin"}},
    ),
    "whole numbers as labels": (
        MultiLabelClassification(),
        "a.jsonl",
        lines({"text": "x", "labels": [3, 11]}, {"text": "y", "labels": [11]}),
        {},
    ),
    "one number per label": (
        MultiLabelClassification(),
        "a.jsonl",
        lines({"text": "x", "labels": [0.0, 1.0, 1.0]}, {"text": "y", "labels": [0, 0, 1]}),
        {},
    ),
    "one column per label": (
        MultiLabelClassification(),
        "a.csv",
        "text;card;pin;lost\n" + "hello;1;0;1\nbye;0;0;0\nnow;0;1;0\n" * 6,
        {},
    ),
    "some columns are labels": (
        MultiLabelClassification(),
        "a.parquet",
        table({"id": 7, "text": "x", "card": True, "pin": False}, {"id": 8, "text": "y", "card": True, "pin": True}),
        {"columns": {"label": "card,pin"}},
    ),
    "lists as text": (
        MultiLabelClassification(),
        "a.csv",
        "text,labels\n" + """hello,"['a', 'it''s']"\nbye,"[""b""]"\nnow,[]\n""".replace("'it''s'", '""it\'s""') * 6,
        {},
    ),
    "decimal commas": (TextRegression(), "a.csv", "text;score\n" + "hello;0,5\nbye;-12,25\n" * 6, {}),
    "scores": (TextRegression(), "a.csv", "text,score\n" + "hello,0.1\nbye,-2e3\n" * 6, {}),
    "scores of pairs": (
        TextRegression(),
        "a.jsonl",
        lines({"text": "x", "text_pair": "y", "label": 1}, {"text": "x", "text_pair": "z", "label": "2.5"}),
        {},
    ),
    "tags": (
        TokenClassification(),
        "a.jsonl",
        lines({"tokens": ["my", "new", "card"], "tags": ["O", "B-x", "I-x"]}, {"tokens": ["hello"], "tags": ["B-y"]}),
        {},
    ),
    "words and ner_tags": (
        TokenClassification(),
        "a.parquet",
        table({"words": ["my", "card"], "ner_tags": ["O", "B-x"]}, {"words": ["a", "pin"], "ner_tags": ["O", "B-y"]}),
        {},
    ),
    "renamed tags": (
        TokenClassification(),
        "a.jsonl",
        lines({"parts": ["my", "card"], "kinds": ["O", "x"]}, {"parts": ["pin", "is"], "kinds": ["x", "O"]}),
        {"columns": {"tokens": "parts", "label": "kinds"}},
    ),
    "names of tags in Parquet": (TokenClassification(), "a.parquet", classes(ner_tags=TAGS), {}),
    "tokens and tags as text": (
        TokenClassification(),
        "a.csv",
        "tokens,tags\n" + "my new card,O B-x I-x\n\"['hello', 'Ann']\",\"['O', 'B-y']\"\n" * 6,
        {},
    ),
    "spans of Doccano": (
        TokenClassification(),
        "a.jsonl",
        lines(
            {"id": 1, "text": " in New York.", "label": [[4, 12, "x"]], "Comments": []},
            {"id": 2, "text": "no name", "label": []},
            {"id": 3, "text": "Ann, Lee", "label": [[5, 8, "y"], [0, 3, "y"]]},
        ),
        {},
    ),
    "entities of Doccano": (
        TokenClassification(),
        "a.jsonl",
        lines(
            {
                "text": "Ann, Lee",
                "entities": [{"id": 1, "label": "y", "start_offset": 0, "end_offset": 4}],
                "relations": [],
            },
            {
                "text": "hi Lee",
                "entities": [{"id": 2, "label": "x", "start_offset": 3, "end_offset": 6}],
                "relations": [],
            },
        ),
        {},
    ),
    "spans of Prodigy": (
        TokenClassification(),
        "a.jsonl",
        lines(
            {
                "text": "hi Ann",
                "tokens": [
                    {"text": "hi", "start": 0, "end": 2, "id": 0},
                    {"text": "Ann", "start": 3, "end": 6, "id": 1},
                ],
                "spans": [{"start": 3, "end": 6, "token_start": 1, "token_end": 1, "label": "y"}],
            },
            {"text": "in Rome", "spans": [{"start": 3, "end": 7, "label": "x"}]},
        ),
        {},
    ),
    "spans of Label Studio": (TokenClassification(), "a.json", label_studio(), {}),
    "spans of Label Studio, short": (
        TokenClassification(),
        "a.json",
        json.dumps(
            [
                {"id": 1, "text": "hi Ann", "ner": [{"start": 3, "end": 6, "text": "Ann", "labels": ["y"]}]},
                {"id": 2, "text": "hi Bo", "ner": [{"start": 3, "end": 5, "text": "Bo", "labels": ["x"]}]},
            ]
            * 6
        ),
        {"columns": {"label": "ner"}},
    ),
    "spans of spaCy": (
        TokenClassification(),
        "a.json",
        json.dumps([["hi Ann", {"entities": [[3, 6, "y"]]}], ["hi Bo", {"entities": [[3, 5, "x"]]}]] * 6),
        {},
    ),
    "spans inside of words": (
        TokenClassification(),
        "a.jsonl",
        lines({"text": "我在北京。", "label": [[2, 4, "x"]]}, {"text": "서울에서 왔다", "label": [[0, 2, "y"]]}),
        {},
    ),
    "conll": (TokenClassification(), "a.conll", "my O\ncard B-x\n\nhello B-y\n\n" * 6, {}),
    "characters": (
        TokenClassification(),
        "a.conll",
        "\n".join(["서\tB-x\n울\tI-x\n \tO\n역\tB-y\n"] * 12),
        {},
    ),
    "squad": (
        QuestionAnswering(),
        "a.json",
        squad(
            [{"text": "card", "answer_start": 3}, {"text": " lost", "answer_start": 10}],
            [{"text": "my", "answer_start": 0}],
        ),
        {},
    ),
    "answers of squad in lines": (
        QuestionAnswering(),
        "a.jsonl",
        lines(
            {"question": "q", "context": "my card", "answers": {"text": ["card"], "answer_start": [3]}},
            {"question": "q", "context": "my pin", "answers": {"text": ["my", "pin"], "answer_start": [0, 3]}},
        ),
        {},
    ),
    "questions without answers": (
        QuestionAnswering(),
        "a.json",
        squad([{"text": "card", "answer_start": 3}], []),
        {},
    ),
    "questions without answers in a table": (
        QuestionAnswering(),
        "a.csv",
        "question,context,answer,is_impossible\n" + "what?,my card,card,False\nwho?,my pin,,True\n" * 6,
        {},
    ),
    "answers as texts": (
        QuestionAnswering(),
        "a.jsonl",
        lines(
            {"question": "q", "context": "my card", "answers": "card"},
            {"question": "q", "context": "my pin", "answers": ["my", "pin"]},
        ),
        {},
    ),
    "answers in a table": (
        QuestionAnswering(),
        "a.csv",
        "q,context,answer,answer_start\n" + "what?,my card my card,card,11\nwho?,my pin,my,0\n" * 6,
        {"columns": {"question": "q"}},
    ),
    "follows": (NextSentencePrediction(), "a.csv", "text,text_pair,label\n" + "a,b,1\na,c,0\na,d,-1\n" * 6, {}),
    "follows by name": (
        NextSentencePrediction(),
        "a.jsonl",
        lines(
            {"text": "a", "text_pair": "b", "label": "is_next"},
            {"text": "a", "text_pair": "c", "label": "NOT_NEXT"},
            {"text": "a", "text_pair": "d", "label": True},
        ),
        {},
    ),
    "follows, renamed": (
        NextSentencePrediction(),
        "a.tsv",
        "1\ta\tb\n0\ta\tc\n" * 6,
        {"header": ["next", "one", "two"], "columns": {"text": "one", "text_pair": "two", "label": "next"}},
    ),
    "two encoders": (DualEncoderTask(), "a.csv", "text,text_pair,label\n" + "a,b,1\na,c,0\na,d,-1\n" * 6, {}),
    "two encoders by name": (
        DualEncoderTask(),
        "a.csv",
        "text,text_pair,label\n" + "a,b,is_next\na,c,false\n" * 6,
        {},
    ),
    "similarities": (SentenceEmbedding(), "a.csv", "text,text_pair,score\n" + "a,b,0.2\na,c,5\n" * 6, {}),
    "pairs that are alike": (SentenceEmbedding(), "a.csv", "text,text_pair\n" + "a,b\nc,d\n" * 6, {}),
    "renamed pairs": (
        SentenceEmbedding(),
        "a.jsonl",
        lines({"one": "a", "two": "b", "label": 1}, {"one": "a", "two": "c", "label": 2}),
        {"columns": {"text": "one", "text_pair": "two"}},
    ),
}


def head_of(prepared: Prepared) -> HeadInfo | None:
    """Return the head that export makes of the checkpoint; None for an encoder alone."""
    if isinstance(prepared.data.task, SentenceEmbedding):
        return None
    name = "next-sentence-prediction" if isinstance(prepared.data.task, DualEncoderTask) else prepared.data.task.name
    characters = getattr(prepared.data.task, "characters", False)
    labels = list(prepared.examples.labels)
    aggregation = Aggregation.SIMPLE if characters else Aggregation.WORD
    return HeadInfo(name="h", task=Task(name), labels=labels, outputs=["logits"], aggregation=aggregation)


def input_and_label(task: TrainingTask, row: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return the input and the label that evaluation must read for an example; the label is None if it is unknown."""
    label = row["label"]
    if isinstance(task, QuestionAnswering):
        return (row["question"], row["context"]), label
    if isinstance(task, TokenClassification):
        spans = spans_of_tags(row["text"], row["starts"], row["ends"], label, TagScheme(label))
        return row["text"], {(span.label, span.start, span.end) for span in spans}
    text = row["text"] if row["text_pair"] is None else (row["text"], row["text_pair"])
    if isinstance(task, NextSentencePrediction):
        label = task.names[task.column_of[label]] if label in task.column_of else None
    elif isinstance(task, MultiLabelClassification):
        label = set(label)
    elif isinstance(task, SentenceEmbedding) and label is None:
        label = row["text_pair"]
    return text, pytest.approx(label) if isinstance(label, float) else label


@pytest.fixture
def prepare(tiny_encoder: Path) -> Callable[..., Prepared]:
    """`prepare(task, file, columns=, header=)`: the file as training reads it."""

    def read(task: TrainingTask, file: Path, **options: Any) -> Prepared:
        data = HeadData(task=task, train=str(file), validation=str(file), **options)
        return Prepared.read(data, str(tiny_encoder), TrainingSettings())

    return read


@pytest.mark.parametrize(("task", "name", "content", "options"), FILES.values(), ids=FILES)
def test_training_and_evaluation_read_the_same(
    task: TrainingTask,
    name: str,
    content: str | bytes,
    options: dict[str, Any],
    write: Callable[..., Path],
    prepare: Callable[..., Prepared],
) -> None:
    file = write(name, content)
    prepared = prepare(task, file, **options)
    evaluation = Evaluation.read(file, head_of(prepared), **options)
    expected = [input_and_label(prepared.data.task, row) for row in prepared.examples.train]
    known = [pair for pair in expected if pair[1] is not None]
    assert list(evaluation.inputs) == [text for text, _ in known]
    assert list(evaluation.labels) == [label for _, label in known]
    assert len(known) >= 12
    assert len(set(map(str, evaluation.labels))) > 1 or name.endswith("conll"), "one label could hide a mistake"


def test_every_task_with_labels_has_a_file() -> None:
    no_evaluation = {"masked-language-modeling", "sparse-embedding"}
    assert {task.name for task, *_ in FILES.values()} == TASKS.keys() - no_evaluation
