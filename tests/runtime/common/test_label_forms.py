"""Labels, tags and spans are read in the forms that files have them in, and ambiguous ones are refused."""

from collections.abc import Mapping
from typing import Any

import pytest

from encort.runtime.common.labelled_rows.cells import RowError, parse_list, score_cell
from encort.runtime.common.labelled_rows.labels import follows_cell, label_cell, labels_cell
from encort.runtime.common.labelled_rows.schemas import find_tagging, token_classification
from encort.runtime.common.labelled_rows.spans import LabelledSpan, spans_cell, tag_pieces
from encort.runtime.common.tag_schemes import TagScheme
from encort.runtime.common.token_lists import TokenKind
from encort.runtime.tasks.spans import spans_of_tags


@pytest.mark.parametrize(
    ("cell", "label"),
    [
        (" card ", "card"),
        (1, "1"),
        (1.0, "1"),
        (-2.0, "-2"),
        (True, "True"),
        (["card"], "card"),
        ([3.0], "3"),
        ('["card"]', "card"),
        ("['card']", "card"),
        ("[card]", "[card]"),
        ({"choices": ["card"]}, "card"),
        ({"card": 0, "pin": "1"}, "pin"),
        ({"card": "False", "pin": "TRUE"}, "pin"),
    ],
)
def test_one_label(cell: Any, label: str) -> None:
    assert label_cell({"label": cell}, "label") == label


@pytest.mark.parametrize(
    ("cell", "problem"),
    [
        (None, "no label"),
        (float("nan"), "no label"),
        ([], "no label"),
        ({"card": 0, "pin": 0}, "no label"),
        (["card", "pin"], "several labels in label: .*multi-label-classification"),
        ({"card": 1, "pin": 1}, "several labels in label"),
        (0.5, "label is not a text or a whole number"),
        ({"card": 0.5}, "column 'card' is neither 0 nor 1"),
        ({"card": None}, "column 'card' is neither 0 nor 1"),
    ],
)
def test_what_is_not_one_label_is_refused(cell: Any, problem: str) -> None:
    with pytest.raises(RowError, match=problem):
        label_cell({"label": cell}, "label")


@pytest.mark.parametrize(
    ("cell", "labels"),
    [
        ("card|pin", ["card", "pin"]),
        (["card", "card", " pin"], ["card", "pin"]),
        ([3, 7], ["3", "7"]),
        ([3.0], ["3"]),
        ([0, 1], ["0", "1"]),
        ([0, 1, 1], ["1", "2"]),
        ([1.0, 0.0], ["0"]),
        ([False, True], ["1"]),
        ([0.0, 0.0], []),
        ([], []),
        ("", []),
        ("[]", []),
        ('["card", "pin"]', ["card", "pin"]),
        ("['card', \"it's\"]", ["card", "it's"]),
        ({"choices": ["card", "pin"]}, ["card", "pin"]),
        ({"card": "1", "pin": "0", "lost": "1.0"}, ["card", "lost"]),
    ],
)
def test_several_labels(cell: Any, labels: list[str]) -> None:
    assert labels_cell({"label": cell}, "label") == labels


@pytest.mark.parametrize(
    ("cell", "problem"),
    [
        (None, "not a list of labels"),
        (7, "not a list of labels"),
        ([None], "no label"),
        ([0.5, 1.0], "label is not a text or a whole number"),
        ([1, 1], "ambiguous: give the names of labels"),
        ({"card": 2, "pin": 0}, "column 'card' is neither 0 nor 1"),
    ],
)
def test_what_is_no_list_of_labels_is_refused(cell: Any, problem: str) -> None:
    with pytest.raises(RowError, match=problem):
        labels_cell({"label": cell}, "label")


def test_neighbouring_strings_are_not_joined_to_one_label() -> None:
    assert parse_list("['card' 'pin']") == "['card' 'pin']"


@pytest.mark.parametrize("cell", [1.0, "1", True, [1]])
def test_next_sentence_labels_have_the_same_forms(cell: Any) -> None:
    assert follows_cell({"label": cell}, "label") == 1


@pytest.mark.parametrize(
    ("cell", "score"), [("0,5", 0.5), ("-12,25", -12.25), ("0,125", 0.125), ("1.000", 1.0), ("1234,567", 1234.567)]
)
def test_a_score_may_have_a_decimal_comma(cell: str, score: float) -> None:
    assert score_cell({"label": cell}, "label") == score


@pytest.mark.parametrize("cell", ["1,000", "12,500", "1,000,000", "1.000,5"])
def test_a_score_whose_comma_is_ambiguous_is_refused(cell: str) -> None:
    with pytest.raises(RowError, match="the score is not a number"):
        score_cell({"label": cell}, "label")


TEXT = "in New York, Ann's card"
SPANS = [LabelledSpan(3, 11, "place"), LabelledSpan(13, 16, "person")]


@pytest.mark.parametrize(
    "cell",
    [
        [[13, 16, "person"], [2, 12 - 1, "place"]],
        [{"start": 3, "end": 11, "label": "place"}, {"start": 13, "end": 16, "label": "person"}],
        [{"start_offset": 3, "end_offset": 12 - 1, "label": "place", "id": 1}, [13, 16, "person"]],
        [{"start": 3, "end": 11, "labels": ["place"], "text": "New York"}, [13, 16, "person"], [13, 16, "person"]],
        [{"start_char": 3, "end_char": 11, "type": "place"}, {"start": 12, "end": 16, "tag": "person"}],
        '[[3, 11, "place"], [13, 16, "person"]]',
    ],
)
def test_spans(cell: Any) -> None:
    assert spans_cell({"text": TEXT, "label": cell}, "label") == SPANS


@pytest.mark.parametrize(
    ("cell", "problem"),
    [
        (None, "there are no tokens, and label is not a list of spans"),
        ("card_lost", "there are no tokens, and label is not a list of spans"),
        ([["a", "b"]], "not a span: start, end and one label"),
        ([[0, 2]], "not a span"),
        ([[True, 2, "a"]], "not a span"),
        ([{"start": 0, "end": 2, "labels": ["a", "b"]}], "not a span"),
        ([[0, 99, "a"]], "outside of its text"),
        ([[-2, 1, "a"]], "outside of its text"),
        ([[2, 2, "a"]], "outside of its text, or empty"),
        ([[2, 3, "a"]], "only white space"),
        ([[0, 2, " "]], "no label"),
        ([[0, 6, "a"], [3, 11, "b"]], "two spans overlap"),
        ([[3, 11, "a"], [3, 11, "b"]], "two spans overlap"),
        ([{"start": 4, "end": 12, "text": "New York", "label": "a"}], "counted in Unicode characters"),
        ([[0, 2, "\ud800"]], "unpaired surrogate"),
    ],
)
def test_what_is_no_list_of_spans_is_refused(cell: Any, problem: str) -> None:
    with pytest.raises(RowError, match=problem):
        spans_cell({"text": TEXT, "label": cell}, "label")


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        (TEXT, SPANS),
        ("  Ann Lee\u00a0Bo\n", [LabelledSpan(2, 5, "a"), LabelledSpan(6, 12, "a")]),
        ("AnnLee", [LabelledSpan(0, 3, "a"), LabelledSpan(3, 6, "a")]),
        ("我在北京。", [LabelledSpan(2, 4, "a")]),
        ("nobody", []),
    ],
)
def test_the_tags_of_pieces_give_the_spans_back(text: str, spans: list[LabelledSpan]) -> None:
    starts, ends, tags = tag_pieces(text, spans)
    found = spans_of_tags(text, starts, ends, tags, TagScheme(tags))
    assert [(span.start, span.end, span.label) for span in found] == [(s.start, s.end, s.label) for s in spans]


def test_the_pieces_cover_all_but_white_space() -> None:
    starts, ends, _ = tag_pieces(TEXT, SPANS)
    assert "".join(TEXT[start:end] for start, end in zip(starts, ends, strict=True)) == TEXT.replace(" ", "")


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([{"text": TEXT, "label": [[3, 11, "a"]]}], False),
        ([{"text": TEXT, "label": [[3, 11, "a"]]}] * 30 + [{"text": TEXT, "label": [[3, 10, "a"]]}], False),
        ([{"text": "서울에서", "label": [[0, 2, "a"]]}, {"text": TEXT, "label": []}], True),
        ([{"text": TEXT, "tokens": ["in", "New"], "label": ["O", "B-a"]}], False),
        ([{"tokens": "in New", "label": "O B-a"}], False),
        ([{"tokens": 3, "label": None}, {"text": None, "label": None}, {"tokens": ["in"]}], False),
        ([{"tokens": [*"서울 역"]}], True),
        ([{"tokens": ["서울", "에서", " ", "왔다"]}], True),
        ([{"tokens": ["in", "New", "York", "today"]}] * 30 + [{"tokens": ["see", "\u00a0", "London"]}], False),
    ],
)
def test_spans_inside_of_words_need_a_tag_for_every_token(rows: list[Mapping[str, Any]], expected: bool) -> None:
    assert find_tagging(rows).splits_words is expected


def test_tokens_win_over_the_text_beside_them_and_objects_do_not() -> None:
    schema = token_classification(TokenKind.WORDS)
    row = {"text": "my  card", "tokens": ["my", "card"], "label": ["O", "B-a"]}
    assert schema.parse(row)["text"] == "my card"
    tokens = [{"text": "my", "start": 0, "end": 2}, {"text": "card", "start": 4, "end": 8}]
    parsed = schema.parse({"text": "my  card", "tokens": tokens, "label": [[4, 8, "a"]]})
    assert parsed == {"text": "my  card", "starts": [0, 4], "ends": [2, 8], "label": ["O", "B-a"]}


def test_white_space_around_a_text_with_spans_is_left_out() -> None:
    parsed = token_classification(TokenKind.WORDS).parse({"text": "\n my card ", "label": [[1, 4, "a"]]})
    assert parsed == {"text": "my card", "starts": [0, 3], "ends": [2, 7], "label": ["B-a", "O"]}
