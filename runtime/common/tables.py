"""Read the rows of a file one at a time: CSV, TSV, JSON lines, Parquet, CoNLL columns and SQuAD's JSON."""

import csv
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from encort.runtime.common.errors import InputError, MissingExtraError

Row = Mapping[str, Any]
"""Column names to values."""

_PARQUET_ROWS = 512
_CONLL_COMMENT = re.compile(r"#+ ")


def is_table(file: Path) -> bool:
    """Return whether a file with this ending can be read."""
    return file.suffix.lower() in READERS


def read_rows(file: Path, *, header: Sequence[str] | None = None) -> Iterator[Row]:
    """Read the rows: strings from CSV and TSV, JSON's values from JSON lines, Python's values from Parquet.

    A .conll file gives one row per sentence, see `read_conll`; a .json file one row per question, see `read_squad`.
    CSV quotes as RFC 4180 says; TSV does not quote. Columns without a name are left out.

    Args:
        file: File with one of the endings of `READERS`.
        header: Names of the columns, for a .csv or .tsv file that does not begin with them.

    Raises:
        InputError: There is no such file, or its content is not what its ending says; the message names the row.
        MissingExtraError: The file is Parquet, and pyarrow is not installed.
    """
    if not file.is_file():
        raise InputError(f"there is no file {file}")
    if not is_table(file):
        raise InputError(f"{file} has an unknown ending; use one of {', '.join(READERS)}")
    try:
        if header is None:
            yield from READERS[file.suffix.lower()](file)
        elif file.suffix.lower() in _SEPARATED:
            yield from _SEPARATED[file.suffix.lower()](file, header)
        else:
            raise InputError(f"{file}: only {' and '.join(_SEPARATED)} files lack the names of their columns")
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not UTF-8 ({error}); convert it first") from error
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error}") from error


def read_column_names(file: Path, *, header: Sequence[str] | None = None) -> list[str]:
    """Read the names of the columns; none where the file has no rows.

    Each row of JSON lines may have names of its own, so all rows of such a file are read.

    Raises:
        InputError: See `read_rows`.
        MissingExtraError: See `read_rows`.
    """
    rows = read_rows(file, header=header)
    if file.suffix.lower() == ".jsonl":
        return list(dict.fromkeys(name for row in rows for name in row))
    return list(next(rows, {}))


def _read_csv(file: Path, header: Sequence[str] | None = None) -> Iterator[Row]:
    return _read_separated(file, header, delimiter=",", strict=True)


def _read_tsv(file: Path, header: Sequence[str] | None = None) -> Iterator[Row]:
    return _read_separated(file, header, delimiter="\t", quoting=csv.QUOTE_NONE)


def _read_separated(file: Path, header: Sequence[str] | None, **dialect: Any) -> Iterator[Row]:
    csv.field_size_limit(sys.maxsize)
    with file.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines, header, **dialect)
        try:
            for number, row in enumerate(reader, start=1):
                if None in row:
                    raise InputError(f"{file}, row {number} has more cells than the header names columns")
                yield {name: cell for name, cell in row.items() if name}
        except csv.Error as error:
            raise InputError(f"{file} is not a table: {error}") from error


def _read_json_lines(file: Path) -> Iterator[Row]:
    with file.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InputError(f"{file}, line {number} is not JSON: {error}") from error
            yield row if isinstance(row, dict) else {"text": row}


def _read_parquet(file: Path) -> Iterator[Row]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise MissingExtraError("reading Parquet", extra="parquet") from None
    try:
        for batch in parquet.ParquetFile(file).iter_batches(batch_size=_PARQUET_ROWS):
            yield from batch.to_pylist()
    except (ArrowException, ValueError) as error:
        raise InputError(f"{file} is not Parquet: {error}") from error


def read_conll(file: Path) -> Iterator[Row]:
    """Read sentences as `text`, `tokens` and `tags`.

    Each line has a token in its first column and the tag in its last one; an empty line ends a sentence. Columns are
    separated by tabs, or by white space in a line without tabs. Lines before a sentence that begin with `# ` are
    comments.
    """
    tokens: list[str] = []
    tags: list[str] = []
    with file.open(encoding="utf-8-sig", newline="\n") as lines:
        for number, ended in enumerate(lines, start=1):
            line = ended.rstrip("\r\n")
            if line.strip() and not (_CONLL_COMMENT.match(line) and not tokens):
                token, tag = _split_conll_line(line, f"{file}, line {number}")
                tokens.append(token)
                tags.append(tag)
            elif tokens and not line.strip():
                yield _make_sentence(tokens, tags)
                tokens, tags = [], []
    if tokens:
        yield _make_sentence(tokens, tags)


def _split_conll_line(line: str, place: str) -> tuple[str, str]:
    cells = line.split("\t") if "\t" in line else line.split()
    if len(cells) < 2 or not cells[0] or not cells[-1].strip():
        raise InputError(f"{place}: {line!r} is not a token and a tag")
    return cells[0], cells[-1].strip()


def _make_sentence(tokens: list[str], tags: list[str]) -> Row:
    text, _ = join_tokens(tokens, characters=all(len(token) == 1 for token in tokens))
    return {"text": text, "tokens": tokens, "tags": tags}


def join_tokens(tokens: Sequence[str], *, characters: bool) -> tuple[str, list[int]]:
    """Return the text that the tokens come from, and the offset of each token in it.

    >>> join_tokens(["New", "York", "!"], characters=False)
    ('New York !', [0, 4, 9])
    >>> join_tokens(["서", "울", " ", "1"], characters=True)
    ('서울 1', [0, 1, 2, 3])

    Args:
        tokens: Words, or characters.
        characters: The tokens are characters, white space among them. Otherwise they are words, and a space stands
            between two of them.
    """
    space = "" if characters else " "
    starts = [0]
    for token in tokens[:-1]:
        starts.append(starts[-1] + len(token) + len(space))
    return space.join(tokens), starts[: len(tokens)]


def read_squad(file: Path) -> Iterator[Row]:
    """Read questions as `id`, `question`, `context` and `answers`, a dict of the lists `text` and `answer_start`.

    Raises:
        InputError: The JSON does not have the form of SQuAD (Rajpurkar et al. 2016).
    """
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
    except UnicodeDecodeError:  # a ValueError that `read_rows` has a message for
        raise
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{file} is not JSON as SQuAD has it: {error!r}") from error


_SEPARATED: Mapping[str, Callable[[Path, Sequence[str]], Iterator[Row]]] = {".csv": _read_csv, ".tsv": _read_tsv}

READERS: Mapping[str, Callable[[Path], Iterator[Row]]] = {
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".jsonl": _read_json_lines,
    ".parquet": _read_parquet,
    ".conll": read_conll,
    ".json": read_squad,
}
"""Reader of a file by its ending."""
