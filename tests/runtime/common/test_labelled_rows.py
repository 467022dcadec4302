"""Cells are checked, columns are found, and all problems are reported at once."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from encort.runtime.common.errors import DatasetError, InputError
from encort.runtime.common.labelled_rows.cells import RowError
from encort.runtime.common.labelled_rows.columns import (
    RowSchema,
    check_roles,
    find_columns,
    parse_columns,
    parse_header,
    values_by_role,
)
from encort.runtime.common.labelled_rows.problems import Problems
from encort.runtime.common.labelled_rows.schemas import (
    ANSWER_TEXTS,
    LOCATED_ANSWERS,
    MULTI_LABEL_CLASSIFICATION,
    NEXT_SENTENCE,
    RETRIEVAL_PAIRS,
    SENTENCE_PAIRS,
    TEXT_CLASSIFICATION,
    TEXT_REGRESSION,
    token_classification,
)
from encort.runtime.common.token_lists import TokenKind

WORDS, CHARACTERS = map(token_classification, TokenKind)


# Examples.


@pytest.mark.parametrize(
    ("schema", "values", "example"),
    [
        (TEXT_CLASSIFICATION, {"text": "a ", "label": " x "}, {"text": "a ", "text_pair": None, "label": "x"}),
        (
            TEXT_CLASSIFICATION,
            {"text": "a", "text_pair": "b", "label": 1},
            {"text": "a", "text_pair": "b", "label": "1"},
        ),
        (TEXT_CLASSIFICATION, {"text": "a", "label": False}, {"text": "a", "text_pair": None, "label": "False"}),
        (
            MULTI_LABEL_CLASSIFICATION,
            {"text": "a", "label": "x| y|"},
            {"text": "a", "text_pair": None, "label": ["x", "y"]},
        ),
        (
            MULTI_LABEL_CLASSIFICATION,
            {"text": "a", "label": ["x ", ""]},
            {"text": "a", "text_pair": None, "label": ["x"]},
        ),
        (MULTI_LABEL_CLASSIFICATION, {"text": "a", "label": ""}, {"text": "a", "text_pair": None, "label": []}),
        (TEXT_REGRESSION, {"text": "a", "label": "-1e3"}, {"text": "a", "text_pair": None, "label": -1000.0}),
        (
            NEXT_SENTENCE,
            {"text": "a", "text_pair": "b", "label": "IS_NEXT"},
            {"text": "a", "text_pair": "b", "label": 1},
        ),
        (NEXT_SENTENCE, {"text": "a", "text_pair": "b", "label": -1}, {"text": "a", "text_pair": "b", "label": -1}),
        (
            RETRIEVAL_PAIRS,
            {"query": "a", "document": "b", "negatives": '["c", "d"]'},
            {"query": "a", "document": "b", "negatives": ["c", "d"], "label": None},
        ),
        (
            RETRIEVAL_PAIRS,
            {"query": "a", "document": "b", "negatives": {"first": "c", "second": "d"}},
            {"query": "a", "document": "b", "negatives": ["c", "d"], "label": None},
        ),
        (
            RETRIEVAL_PAIRS,
            {"query": "a", "document": "b"},
            {"query": "a", "document": "b", "negatives": None, "label": None},
        ),
        (SENTENCE_PAIRS, {"text": "a", "text_pair": "b"}, {"text": "a", "text_pair": "b", "label": None}),
        (SENTENCE_PAIRS, {"text": "a", "text_pair": "b", "label": 0}, {"text": "a", "text_pair": "b", "label": 0.0}),
        (
            WORDS,
            {"tokens": ["my", "card"], "label": ["O", "B-x "]},
            {"text": "my card", "starts": [0, 3], "ends": [2, 7], "label": ["O", "B-x"]},
        ),
        (
            CHARACTERS,
            {"tokens": ["m", " ", "c"], "label": ["O", "O", "I-x"]},
            {"text": "m c", "starts": [0, 1, 2], "ends": [1, 2, 3], "label": ["O", "O", "I-x"]},
        ),
        (
            LOCATED_ANSWERS,
            {"question": "q", "context": "my card", "label": {"text": [" card"], "answer_start": [2]}},
            {"question": "q", "context": "my card", "label": ["card"], "starts": [3]},
        ),
        (
            LOCATED_ANSWERS,
            {"question": "q", "context": "card card", "label": "card", "answer_start": 5},
            {"question": "q", "context": "card card", "label": ["card"], "starts": [5]},
        ),
        (
            LOCATED_ANSWERS,
            {"question": "q", "context": "card card", "label": ["card", "d c"]},
            {"question": "q", "context": "card card", "label": ["card", "d c"], "starts": [0, 3]},
        ),
        (
            ANSWER_TEXTS,
            {"question": "q", "context": "c", "label": {"text": ["elsewhere "]}},
            {"question": "q", "context": "c", "label": ["elsewhere"]},
        ),
        (ANSWER_TEXTS, {"question": "q", "context": "c", "label": []}, {"question": "q", "context": "c", "label": []}),
        (
            LOCATED_ANSWERS,
            {"question": "q", "context": "my card", "label": [{"text": "card", "answer_start": 3}]},
            {"question": "q", "context": "my card", "label": ["card"], "starts": [3]},
        ),
    ],
)
def test_a_row_becomes_an_example(schema: RowSchema, values: Mapping[str, Any], example: Mapping[str, Any]) -> None:
    assert schema.parse(values) == example


@pytest.mark.parametrize(
    "values",
    [
        {"label": []},
        {"label": ""},
        {"label": [""]},
        {"label": {"text": [], "answer_start": []}},
        {"label": {"text": [""], "answer_start": [-1]}},
        {"label": "", "answer_start": -1},
        {"label": "", "answer_start": ""},
        {"label": [], "is_impossible": True},
        {"label": "", "is_impossible": "True"},
        {"label": None, "is_impossible": 1},
        {"label": [{"text": "card", "answer_start": 3}], "is_impossible": True},
        {"label": "card", "is_impossible": "1.0"},
    ],
)
def test_a_question_may_have_no_answer(values: Mapping[str, Any]) -> None:
    row = {"question": "q", "context": "my card", **values}
    assert ANSWER_TEXTS.parse(row) == {"question": "q", "context": "my card", "label": []}
    assert LOCATED_ANSWERS.parse(row) == {"question": "q", "context": "my card", "label": [], "starts": []}


@pytest.mark.parametrize("is_impossible", [False, "false", 0, 0.0, None, ""])
def test_a_possible_question_has_its_answers(is_impossible: Any) -> None:
    row = {"question": "q", "context": "my card", "label": "card", "is_impossible": is_impossible}
    assert ANSWER_TEXTS.parse(row)["label"] == LOCATED_ANSWERS.parse(row)["label"] == ["card"]


@pytest.mark.parametrize("schema", [ANSWER_TEXTS, LOCATED_ANSWERS])
@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"label": None}, "no answers; an empty list, or is_impossible, says that the context has none"),
        ({"label": [], "is_impossible": False}, "no answers, but is_impossible is false"),
        ({"label": "card", "is_impossible": "maybe"}, "is_impossible is not true or false"),
    ],
)
def test_a_row_that_does_not_say_whether_it_has_an_answer_is_refused(
    schema: RowSchema, values: Mapping[str, Any], problem: str
) -> None:
    with pytest.raises(RowError, match=problem):
        schema.parse({"question": "q", "context": "my card", **values})


@pytest.mark.parametrize(
    ("schema", "values", "problems"),
    [
        (TEXT_CLASSIFICATION, {"text_pair": " "}, ["no text", "text_pair is empty", "no label"]),
        (TEXT_CLASSIFICATION, {"text": "a", "label": 1.5}, ["label is not a text or a whole number"]),
        (TEXT_CLASSIFICATION, {"text": "\ud800", "label": "\ud800"}, ["text has an unpaired .*", "label has an .*"]),
        (MULTI_LABEL_CLASSIFICATION, {"text": ["x"]}, ["text is not a text", "label is not a list of labels"]),
        (TEXT_REGRESSION, {"text": " ", "label": "high"}, ["text is empty", "the score is not a number"]),
        (TEXT_REGRESSION, {"text": "a", "label": True}, ["the score is not a number"]),
        (TEXT_REGRESSION, {"text": "a", "label": 3.5e38}, ["the score is not a number"]),
        (RETRIEVAL_PAIRS, {"query": "a", "negatives": []}, ["no document", "no negatives"]),
        (RETRIEVAL_PAIRS, {"query": "a", "document": "b", "negatives": ["c", 1]}, ["negatives is not a text"]),
        (SENTENCE_PAIRS, {"text": "a", "label": None}, ["no text_pair", "the score is not a number"]),
        (NEXT_SENTENCE, {"text": " ", "label": "yes"}, ["text is empty", "no text_pair", "label is none of 1, .*"]),
        (WORDS, {"tokens": ["my", ""], "label": [" "]}, ["a token is empty", "fewer .*", "a tag is empty"]),
        (WORDS, {"tokens": {"my": 1}, "label": ["S-X"]}, ["tokens is not a list of texts"]),
        (WORDS, {"tokens": [" "], "label": ["O", "O"]}, ["no tokens", "more tags than tokens"]),
        (
            LOCATED_ANSWERS,
            {"context": "card", "label": ["pin", ""], "answer_start": [0, 0]},
            ["no question", "an answer is empty", "an answer is not in its context at answer_start"],
        ),
        (
            LOCATED_ANSWERS,
            {"label": [" "], "answer_start": [0.5, 1]},
            ["no question", "no context", "an answer is empty", "answer_start is not a whole number for every answer"],
        ),
        (ANSWER_TEXTS, {"question": "q", "context": "c", "label": {"text": [1]}}, ["answers is not a text, .*"]),
    ],
)
def test_a_row_is_refused_with_everything_that_is_wrong(
    schema: RowSchema, values: Mapping[str, Any], problems: list[str]
) -> None:
    with pytest.raises(RowError) as refused:
        schema.parse(values)
    assert len(refused.value.args) == len(problems)
    assert all(map(re.fullmatch, problems, refused.value.args))


def test_the_values_of_a_row_are_named_by_role() -> None:
    values = values_by_role({"message": "a", "other": 1}, {"text": "message", "label": "intent"})
    assert values == {"text": "a", "label": None}


# Columns.


@pytest.fixture
def find() -> Callable[..., dict[str, str] | None]:
    """`find(schema, available, asked)`: names by role; a `DatasetError` if a column is missing."""

    def find_or_raise(
        schema: RowSchema, available: list[str], asked: Mapping[str, str] | None = None, **words: Any
    ) -> dict[str, str] | None:
        problems = Problems(**words)
        check_roles(schema, asked or {}, problems)
        names = find_columns("rows.csv", available, schema, problems, asked=asked or {})
        problems.check()
        return names

    return find_or_raise


@pytest.mark.parametrize(
    ("schema", "available", "asked", "names"),
    [
        (TEXT_CLASSIFICATION, ["label", "text", "label_text"], {}, {"text": "text", "label": "label_text"}),
        (TEXT_CLASSIFICATION, ["text", "kind"], {}, {"text": "text", "label": "kind"}),
        (TEXT_CLASSIFICATION, ["said", "kind"], {"text": "said"}, {"text": "said", "label": "kind"}),
        (
            TEXT_CLASSIFICATION,
            ["text", "text_pair", "kind"],
            {},
            {"text": "text", "text_pair": "text_pair", "label": "kind"},
        ),
        (MULTI_LABEL_CLASSIFICATION, ["text", "label", "labels"], {}, {"text": "text", "label": "labels"}),
        (
            NEXT_SENTENCE,
            ["text", "text_pair", "label_text", "id"],
            {},
            {"text": "text", "text_pair": "text_pair", "label": "label_text"},
        ),
        (RETRIEVAL_PAIRS, ["anchor", "positive", "id"], {}, {"query": "anchor", "document": "positive"}),
        (RETRIEVAL_PAIRS, ["question", "context", "answers"], {}, {"query": "question", "document": "context"}),
        (SENTENCE_PAIRS, ["text", "text_pair", "id"], {}, {"text": "text", "text_pair": "text_pair"}),
        (WORDS, ["words", "ner_tags", "text"], {}, {"tokens": "words", "text": "text", "label": "ner_tags"}),
        (WORDS, ["text", "spans"], {}, {"text": "text", "label": "spans"}),
        (MULTI_LABEL_CLASSIFICATION, ["text", "card", "pin"], {}, {"text": "text", "label": ("card", "pin")}),
        (
            TEXT_CLASSIFICATION,
            ["text", "card", "pin"],
            {"label": "card, pin"},
            {"text": "text", "label": ("card", "pin")},
        ),
        (
            LOCATED_ANSWERS,
            ["question", "context", "answer", "answer_start", "is_impossible"],
            {},
            {name: name for name in ("question", "context", "answer_start", "is_impossible")} | {"label": "answer"},
        ),
    ],
)
def test_columns_are_found_by_convention_or_by_the_name_that_was_asked_for(
    find: Callable[..., Any],
    schema: RowSchema,
    available: list[str],
    asked: Mapping[str, str],
    names: Mapping[str, str],
) -> None:
    assert find(schema, available, asked) == names


def test_a_missing_column_is_reported_with_the_existing_columns(find: Callable[..., Any]) -> None:
    message = (
        r"^this cannot be trained on:\n  rows\.csv has no column 'text' \(--column text=NAME\), nor 'label_text' or "
        r"'label' \(--column label=NAME\); it has: a, b, c; if its first line is no header, name the columns with "
        r"--header$"
    )
    with pytest.raises(DatasetError, match=message):
        find(TEXT_CLASSIFICATION, ["a", "b", "c"])


def test_messages_name_the_use_and_the_option_that_the_caller_has(find: Callable[..., Any]) -> None:
    with pytest.raises(DatasetError) as refused:
        find(TEXT_CLASSIFICATION, ["a", "b"], {"txet": "a"}, use="evaluated", option="--evaluation-column")
    first, *others = str(refused.value).splitlines()
    assert first == "this cannot be evaluated on:"
    assert others[0].strip().startswith("--evaluation-column txet=...: this task has no such column, but text,")
    assert "(--evaluation-column text=NAME)" in others[1]


def test_a_table_without_columns_has_no_rows(find: Callable[..., Any]) -> None:
    with pytest.raises(DatasetError, match=r"rows\.csv has no rows"):
        find(TEXT_CLASSIFICATION, [])


def test_options_name_columns_by_role() -> None:
    assert parse_columns(["text=said", "label=meant=x", "text_pair="]) == {
        "text": "said",
        "label": "meant=x",
        "text_pair": "",
    }
    assert parse_header("id, said ,") == ["id", "said", ""]


def test_two_options_for_one_role_are_refused() -> None:
    with pytest.raises(InputError, match="--column text= is given twice, as 'said' and 'meant'"):
        parse_columns(["text=said", "label=a", "text=meant"])


def test_an_option_without_a_role_is_refused() -> None:
    with pytest.raises(InputError, match="--evaluation-column 'said' is not ROLE=NAME, such as text=message"):
        parse_columns(["said"], option="--evaluation-column")


# Problems.


def test_a_problem_is_reported_once_with_all_its_rows() -> None:
    problems = Problems()
    assert not problems
    problems.add_row("a.csv", 2, "no text", "no label")
    problems.add_row("a.csv", 5, "no text")
    problems.add_row("b.csv", 1, "no text")
    problems.add("c.csv has no rows")
    assert problems
    with pytest.raises(DatasetError) as refused:
        problems.check()
    assert str(refused.value).splitlines() == [
        "this cannot be trained on:",
        "  c.csv has no rows",
        "  a.csv: no text: rows 2, 5",
        "  a.csv: no label: row 2",
        "  b.csv: no text: row 1",
    ]


@pytest.mark.parametrize(("count", "ending"), [(20, ", 19, 20"), (21, ", 19, 20 and 1 more")])
def test_a_long_list_of_rows_is_cut(count: int, ending: str) -> None:
    problems = Problems()
    for number in range(1, count + 1):
        problems.add_row("a.csv", number, "no text")
    with pytest.raises(DatasetError, match=f"rows 1, 2, .*{ending}$"):
        problems.check()


def test_without_problems_nothing_is_refused() -> None:
    Problems().check()
