"""The two formats of labelled text that are not tables: CoNLL's columns and SQuAD's JSON."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from encort.runtime.common.errors import InputError

_COMMENT = re.compile(r"#+ ")


def read_conll(file: Path) -> Iterator[Mapping[str, Any]]:
    """Sentences as `text`, `tokens` and `tags`: a token a line, its tag in the last column, an empty line between them.

    Columns are separated by tabs, or else by white space. Lines that begin with `# ` are comments.
    """
    tokens: list[str] = []
    tags: list[str] = []
    with file.open(encoding="utf-8-sig", newline="\n") as lines:
        for number, ended in enumerate(lines, start=1):
            line = ended.rstrip("\r\n")
            if line.strip() and not (_COMMENT.match(line) and not tokens):
                token, tag = _token_and_tag(line, f"{file}, line {number}")
                tokens.append(token)
                tags.append(tag)
            elif tokens and not line.strip():
                yield _sentence(tokens, tags)
                tokens, tags = [], []
    if tokens:
        yield _sentence(tokens, tags)


def _sentence(tokens: list[str], tags: list[str]) -> Mapping[str, Any]:
    """The text is what somebody would have written: single characters stand without spaces between."""
    text, _ = text_of_tokens(tokens, characters=all(len(token) == 1 for token in tokens))
    return {"text": text, "tokens": tokens, "tags": tags}


def _token_and_tag(line: str, place: str) -> tuple[str, str]:
    cells = line.split("\t") if "\t" in line else line.split()
    if len(cells) < 2 or not cells[0] or not cells[-1].strip():
        raise InputError(f"{place}: {line!r} is not a token and a tag")
    return cells[0], cells[-1].strip()


def text_of_tokens(tokens: Sequence[str], *, characters: bool) -> tuple[str, list[int]]:
    """The text that tokens were cut from, and where in it each begins.

    >>> text_of_tokens(["New", "York", "!"], characters=False)
    ('New York !', [0, 4, 9])
    >>> text_of_tokens(["서", "울", " ", "1"], characters=True)
    ('서울 1', [0, 1, 2, 3])

    Args:
        characters: They are characters, white space among them; otherwise words with a space between.
    """
    space = "" if characters else " "
    starts = [0]
    for token in tokens[:-1]:
        starts.append(starts[-1] + len(token) + len(space))
    return space.join(tokens), starts[: len(tokens)]


def read_squad(file: Path) -> Iterator[Mapping[str, Any]]:
    """Questions as `id`, `question`, `context` and `answers`, which are lists of `text` and `answer_start`."""
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
        for article in content["data"]:
            for paragraph in article["paragraphs"]:
                for item in paragraph["qas"]:
                    answers = item.get("answers", [])
                    yield {
                        "id": str(item.get("id", "")),
                        "question": item["question"],
                        "context": paragraph["context"],
                        "answers": {name: [answer[name] for answer in answers] for name in ("text", "answer_start")},
                    }
    except UnicodeDecodeError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{file} is not JSON as SQuAD has it: {error!r}") from error
