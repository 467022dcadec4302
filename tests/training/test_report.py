import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from encort.training.report import TrainingReport, write_report
from encort.training.settings import TrainingSettings

ROW = {"precision": 0.5, "recall": 2 / 3, "f1-score": 0.5714, "support": 3.0}
REPORT = TrainingReport(
    task="text-classification",
    model="some/encoder",
    checkpoint="out",
    metrics={"validation": {"accuracy": 0.5, "macro_f1": 0.25}, "test": {"accuracy": 0.9877, "macro_f1": 1.0}},
    by_label={"a": ROW, "b": {**ROW, "precision": 1.0}, "c": {**ROW, "support": 0.0}},
    confusion={"a": {"a": 3, "b": 1, "c": 0}, "b": {"a": 5, "b": 40, "c": 0}, "c": {"a": 0, "b": 2, "c": 9}},
    rows={"train": 90, "validation": 6, "test": 12},
    label_counts={"a": 10, "b": 50, "c": 30},
    labels=["a", "b", "c"],
    seconds=61.4,
    history=[
        {"epoch": 0.5, "loss": 2.0, "step": 1},
        {"epoch": 1.0, "eval_loss": 1.5, "eval_accuracy": 0.5, "step": 2},
        {"epoch": 1.0, "train_runtime": 3.0, "train_loss": 1.9, "step": 2},
    ],
    settings=TrainingSettings(patience=2),
)
WITHOUT_LABELS = dataclasses.replace(REPORT, labels=[], label_counts={}, by_label={}, confusion={})


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    """Return `written(report)`, which writes the report and returns the folder."""

    def write(report: TrainingReport = REPORT) -> Path:
        write_report(report, tmp_path)
        return tmp_path

    return write


@pytest.fixture
def tables(written: Callable[..., Path]) -> Callable[..., dict[str, list[list[str]]]]:
    """Return `tables(report)`, the tables of the page by the heading above them."""

    def read(report: TrainingReport = REPORT) -> dict[str, list[list[str]]]:
        page = (written(report) / "training.md").read_text(encoding="utf-8")
        lines_by_heading: dict[str, list[list[str]]] = {}
        heading = ""
        for line in page.splitlines():
            if line.startswith("#"):
                heading = line.lstrip("# ")
            elif line.startswith("|"):
                lines_by_heading.setdefault(heading, []).append(line.strip("| ").split(" | "))
        return {name: [rows[0], *rows[2:]] for name, rows in lines_by_heading.items()}

    return read


def labelled(*labels: str, confusion: Any = None) -> TrainingReport:
    """Return a report with these labels."""
    rows = (np.eye(len(labels), dtype=int) if confusion is None else np.array(confusion)).tolist()
    return dataclasses.replace(
        REPORT,
        labels=labels,
        by_label=dict.fromkeys(labels, ROW),
        label_counts=dict.fromkeys(labels, 3),
        confusion={label: dict(zip(labels, row, strict=True)) for label, row in zip(labels, rows, strict=True)},
    )


# The JSON file.


def test_the_json_file_has_every_field(written: Callable[..., Path]) -> None:
    content = json.loads((written() / "training.json").read_text(encoding="utf-8"))
    assert content == json.loads(json.dumps(dataclasses.asdict(REPORT)))
    assert content.keys() == {field.name for field in dataclasses.fields(TrainingReport)}
    assert content["versions"].keys() == {"encort", "torch", "transformers", "datasets"}
    assert content["settings"]["schedule"] == "linear"


def test_the_summary_has_the_most_important_values() -> None:
    assert REPORT.summary == {
        "checkpoint": "out",
        "metrics": REPORT.metrics,
        "rows": REPORT.rows,
        "seconds": 61.4,
    }


def test_labels_of_other_scripts_are_not_escaped(written: Callable[..., Path]) -> None:
    folder = written(labelled("분실", "변경"))
    for name in ("training.json", "training.md"):
        assert "분실" in (folder / name).read_text(encoding="utf-8")


# The page.


def test_the_page_starts_with_the_task_and_the_model(written: Callable[..., Path]) -> None:
    lines = (written() / "training.md").read_text().splitlines()
    assert lines[0] == "# text-classification, from some/encoder"
    assert "Trained on 90 examples in 61 s." in lines


def test_every_split_has_its_metrics(tables: Callable[..., dict[str, list[list[str]]]]) -> None:
    assert tables()["text-classification, from some/encoder"] == [
        ["split", "examples", "accuracy", "macro_f1"],
        ["validation", "6", "50.00 %", "25.00 %"],
        ["test", "12", "98.77 %", "100.00 %"],
    ]


def test_every_label_of_the_last_split_has_its_scores(tables: Callable[..., dict[str, list[list[str]]]]) -> None:
    assert tables()["Labels (test)"] == [
        ["label", "precision", "recall", "F1", "examples"],
        ["a", "50.0 %", "66.7 %", "57.1 %", "3"],
        ["b", "100.0 %", "66.7 %", "57.1 %", "3"],
        ["c", "50.0 %", "66.7 %", "57.1 %", "0"],
    ]


def test_the_most_confused_labels_come_first(tables: Callable[..., dict[str, list[list[str]]]]) -> None:
    assert tables()["Most confused labels (test)"] == [
        ["true label", "predicted label", "examples", "of the true label"],
        ["b", "a", "5", "11.1 %"],
        ["c", "b", "2", "18.2 %"],
        ["a", "b", "1", "25.0 %"],
    ]


def test_at_most_twenty_pairs_are_shown(tables: Callable[..., dict[str, list[list[str]]]]) -> None:
    report = labelled(*(str(label) for label in range(8)), confusion=np.arange(64).reshape(8, 8))
    rows = tables(report)["Most confused labels (test)"][1:]
    assert len(rows) == 20
    assert [row[:3] for row in rows[:7]] == [["7", str(column), str(56 + column)] for column in range(6, -1, -1)]


def test_a_page_without_mistakes_says_so(written: Callable[..., Path]) -> None:
    page = (written(labelled("a", "b")) / "training.md").read_text(encoding="utf-8")
    assert "No label was confused with another one." in page


def test_label_counts_are_sorted_by_frequency(tables: Callable[..., dict[str, list[list[str]]]]) -> None:
    assert tables()["Training examples of each label"][1:] == [["b", "50"], ["c", "30"], ["a", "10"]]


def test_the_page_has_every_setting(tables: Callable[..., dict[str, list[list[str]]]]) -> None:
    settings = {
        name: "default" if value is None else str(value) for name, value in dataclasses.asdict(REPORT.settings).items()
    }
    assert dict(tables()["Settings"][1:]) == settings
    assert settings["patience"] == "2"


def test_a_task_without_labels_has_no_label_tables(
    written: Callable[..., Path], tables: Callable[..., dict[str, list[list[str]]]]
) -> None:
    assert list(tables(WITHOUT_LABELS)) == ["text-classification, from some/encoder", "Settings"]
    names = {file.name for file in written(WITHOUT_LABELS).iterdir()}
    assert names == {"training.json", "training.md", "loss.svg"}


def test_bars_in_a_label_do_not_break_the_table(tables: Callable[..., dict[str, list[list[str]]]]) -> None:
    assert tables(labelled("a|b", "c"))["Labels (test)"][1][0] == "a&#124;b"


def test_a_page_shows_labels_as_they_are(written: Callable[..., Path]) -> None:
    labels = ("<script>alert(1)</script>", "![x](http://host/x.png)", "*a*\x1b[2J\x07")
    report = dataclasses.replace(labelled(*labels), model="<b>\udcff")
    folder = written(report)
    page = (folder / "training.md").read_text(encoding="utf-8")
    assert not re.search(r"<|\]\(http|\x1b|\x07|\udcff", page)
    assert r"| \*a\*\\x1b[2J\\x07 |" in page
    assert json.loads((folder / "training.json").read_text(encoding="utf-8"))["labels"] == list(labels)
    assert r"*a*\x1b[2J\x07" in texts_of(folder / "confusion.svg")


def test_splits_may_have_different_metrics(tables: Callable[..., dict[str, list[list[str]]]]) -> None:
    metrics = {"validation": {"f1": 0.5}, "test": {"f1": 0.25, "NoAns_f1": 1.0}}
    rows = tables(dataclasses.replace(REPORT, metrics=metrics))["text-classification, from some/encoder"]
    assert [row[:3] for row in rows] == [
        ["split", "examples", "f1"],
        ["validation", "6", "50.00 %"],
        ["test", "12", "25.00 %"],
    ]


def test_line_breaks_in_a_label_do_not_break_the_table(tables: Callable[..., dict[str, list[list[str]]]]) -> None:
    assert len(tables(labelled("a\nb", "c"))["Labels (test)"][1]) == 5


# The pictures.


def texts_of(file: Path) -> list[str | None]:
    """Return the texts in a picture."""
    return [element.text for element in ElementTree.parse(file).iter() if element.tag.endswith("}text")]


def test_every_picture_of_the_page_exists(written: Callable[..., Path]) -> None:
    folder = written()
    for name in re.findall(r"!\[\w+\]\((.*)\)", (folder / "training.md").read_text()):
        assert ElementTree.parse(folder / name).getroot().tag.endswith("svg")
    assert {file.name for file in folder.iterdir()} == {"training.json", "training.md", "loss.svg", "confusion.svg"}


def test_the_loss_picture_names_its_axes_and_both_curves(written: Callable[..., Path]) -> None:
    assert {"Loss by epoch", "epoch", "loss", "training", "validation"} <= set(texts_of(written() / "loss.svg"))


def test_a_training_without_evaluations_has_a_loss_picture(written: Callable[..., Path]) -> None:
    report = dataclasses.replace(REPORT, history=[])
    assert ElementTree.parse(written(report) / "loss.svg").getroot().tag.endswith("svg")


def test_the_confusion_picture_names_every_label_and_its_axes(written: Callable[..., Path]) -> None:
    labels = [f"label{number}" for number in range(30)]
    shown = texts_of(written(labelled(*labels)) / "confusion.svg")
    assert [shown.count(label) for label in labels] == [2] * 30
    assert {"true label", "predicted label", "Labels of the test data"} <= set(shown)


def test_the_confusion_of_few_labels_has_its_counts(written: Callable[..., Path]) -> None:
    assert {"3", "40", "11", "9"} & set(texts_of(written() / "confusion.svg")) == {"3", "40", "9"}


def test_many_labels_have_the_table_of_confused_labels_alone(written: Callable[..., Path]) -> None:
    folder = written(labelled(*(f"label{number}" for number in range(77)), confusion=np.ones((77, 77), int)))
    assert not (folder / "confusion.svg").exists()
    page = (folder / "training.md").read_text(encoding="utf-8")
    assert "confusion.svg" not in page
    assert "| label0 | label1 | 1 | 1.3 % |" in page


def test_a_label_without_examples_does_not_divide_by_zero(written: Callable[..., Path]) -> None:
    written(labelled("a", "b", confusion=[[2, 0], [0, 0]]))


def test_dollar_signs_in_labels_are_not_math(written: Callable[..., Path]) -> None:
    shown = texts_of(written(labelled("$^$", "from $5 to $9")) / "confusion.svg")
    assert shown.count("$^$") == shown.count("from $5 to $9") == 2


@pytest.mark.filterwarnings("error:Glyph:UserWarning")
@pytest.mark.parametrize("label", ["분실", "紛失"])
def test_pictures_keep_labels_of_any_script_as_text(label: str, written: Callable[..., Path]) -> None:
    assert texts_of(written(labelled(label, "b")) / "confusion.svg").count(label) == 2


def test_the_same_report_draws_the_same_pictures(written: Callable[..., Path]) -> None:
    first, again = ((written() / "confusion.svg").read_bytes() for _ in range(2))
    assert first == again
