import dataclasses
import json
import re
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
def written(tmp_path):
    """`written(report)`: the folder."""

    def write(report=REPORT):
        write_report(report, tmp_path)
        return tmp_path

    return write


@pytest.fixture
def tables(written):
    """`tables(report)`: the tables of the page by the heading that they stand below."""

    def read(report=REPORT):
        page, found, heading = (written(report) / "training.md").read_text(encoding="utf-8"), {}, ""
        for line in page.splitlines():
            if line.startswith("#"):
                heading = line.lstrip("# ")
            elif line.startswith("|"):
                found.setdefault(heading, []).append(line.strip("| ").split(" | "))
        return {name: [rows[0], *rows[2:]] for name, rows in found.items()}

    return read


def labelled(*labels, confusion=None):
    """A report of these labels."""
    rows = (np.eye(len(labels), dtype=int) if confusion is None else np.array(confusion)).tolist()
    return dataclasses.replace(
        REPORT,
        labels=labels,
        by_label=dict.fromkeys(labels, ROW),
        label_counts=dict.fromkeys(labels, 3),
        confusion={label: dict(zip(labels, row, strict=True)) for label, row in zip(labels, rows, strict=True)},
    )


# For programs.


def test_the_file_has_everything(written):
    content = json.loads((written() / "training.json").read_text(encoding="utf-8"))
    assert content == json.loads(json.dumps(dataclasses.asdict(REPORT)))
    assert content.keys() == {field.name for field in dataclasses.fields(TrainingReport)}
    assert content["versions"].keys() == {"encort", "torch", "transformers", "datasets"}
    assert content["settings"]["schedule"] == "linear"


def test_the_summary_fits_on_a_line():
    assert REPORT.summary == {
        "checkpoint": "out",
        "metrics": REPORT.metrics,
        "rows": REPORT.rows,
        "seconds": 61.4,
    }


def test_labels_are_written_as_they_are(written):
    folder = written(labelled("분실", "변경"))
    for name in ("training.json", "training.md"):
        assert "분실" in (folder / name).read_text(encoding="utf-8")


# For people.


def test_the_page_begins_with_what_it_is(written):
    lines = (written() / "training.md").read_text().splitlines()
    assert lines[0] == "# text-classification, from some/encoder"
    assert "Trained on 90 examples in 61 s." in lines


def test_every_split_has_its_metrics(tables):
    assert tables()["text-classification, from some/encoder"] == [
        ["split", "examples", "accuracy", "macro_f1"],
        ["validation", "6", "50.00 %", "25.00 %"],
        ["test", "12", "98.77 %", "100.00 %"],
    ]


def test_every_label_of_the_last_split_has_its_scores(tables):
    assert tables()["Labels (test)"] == [
        ["label", "precision", "recall", "F1", "examples"],
        ["a", "50.0 %", "66.7 %", "57.1 %", "3"],
        ["b", "100.0 %", "66.7 %", "57.1 %", "3"],
        ["c", "50.0 %", "66.7 %", "57.1 %", "0"],
    ]


def test_the_most_frequent_mistakes_come_first(tables):
    assert tables()["Most frequent mistakes (test)"] == [
        ["right", "predicted", "examples"],
        ["b", "a", "5"],
        ["c", "b", "2"],
        ["a", "b", "1"],
    ]


def test_ten_mistakes_are_enough(tables):
    report = labelled(*(str(label) for label in range(8)), confusion=np.arange(64).reshape(8, 8))
    rows = tables(report)["Most frequent mistakes (test)"][1:]
    assert rows == [["7", str(column), str(56 + column)] for column in (6, 5, 4, 3, 2, 1, 0)] + [
        ["6", str(column), str(48 + column)] for column in (7, 5, 4)
    ]


def test_labels_are_counted_most_frequent_first(tables):
    assert tables()["Training examples of each label"][1:] == [["b", "50"], ["c", "30"], ["a", "10"]]


def test_every_setting_is_told(tables):
    settings = {name: str(value) for name, value in dataclasses.asdict(REPORT.settings).items()}
    assert dict(tables()["Settings"][1:]) == settings
    assert settings["patience"] == "2"


def test_a_task_without_labels_has_no_tables_of_them(written, tables):
    assert list(tables(WITHOUT_LABELS)) == ["text-classification, from some/encoder", "Settings"]
    names = {file.name for file in written(WITHOUT_LABELS).iterdir()}
    assert names == {"training.json", "training.md", "loss.svg"}


def test_bars_in_a_label_do_not_break_the_table(tables):
    assert tables(labelled("a|b", "c"))["Labels (test)"][1][0] == "a&#124;b"


def test_lines_in_a_label_do_not_break_the_table(tables):
    assert len(tables(labelled("a\nb", "c"))["Labels (test)"][1]) == 5


# Pictures.


def texts_of(file):
    """What can be read in a picture, by whoever has the letters."""
    return [element.text for element in ElementTree.parse(file).iter() if element.tag.endswith("}text")]


def test_the_page_shows_its_pictures(written):
    folder = written()
    for name in re.findall(r"!\[\w+\]\((.*)\)", (folder / "training.md").read_text()):
        assert ElementTree.parse(folder / name).getroot().tag.endswith("svg")
    assert {file.name for file in folder.iterdir()} == {"training.json", "training.md", "loss.svg", "confusion.svg"}


def test_the_loss_has_its_axes_and_both_curves(written):
    assert {"epoch", "loss", "training", "validation"} <= set(texts_of(written() / "loss.svg"))


def test_a_training_that_was_never_measured_has_a_picture_all_the_same(written):
    report = dataclasses.replace(REPORT, history=[])
    assert ElementTree.parse(written(report) / "loss.svg").getroot().tag.endswith("svg")


def test_labels_stand_beside_the_confusion_as_far_as_they_can_be_read(written):
    few, many = ([f"label{number}" for number in range(count)] for count in (40, 41))
    shown = texts_of(written(labelled(*few)) / "confusion.svg")
    assert [shown.count(label) for label in few] == [2] * 40
    assert not set(texts_of(written(labelled(*many)) / "confusion.svg")) & set(many)


def test_labels_that_never_stand_are_no_division_by_nothing(written):
    written(labelled("a", "b", confusion=[[2, 0], [0, 0]]))


def test_dollars_in_labels_are_dollars(written):
    shown = texts_of(written(labelled("$^$", "from $5 to $9")) / "confusion.svg")
    assert shown.count("$^$") == shown.count("from $5 to $9") == 2


@pytest.mark.filterwarnings("error:Glyph:UserWarning")
@pytest.mark.parametrize("label", ["분실", "紛失"])
def test_labels_of_any_script_can_be_read_in_the_picture(label, written):
    assert texts_of(written(labelled(label, "b")) / "confusion.svg").count(label) == 2


def test_the_same_report_draws_the_same_pictures(written):
    first, again = ((written() / "confusion.svg").read_bytes() for _ in range(2))
    assert first == again
