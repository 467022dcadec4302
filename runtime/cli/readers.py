"""Texts for the command line: from arguments, a file, or standard input."""

from collections.abc import Iterator
from pathlib import Path

from encort.runtime.cli.streams import decode_argument, open_stdin
from encort.runtime.common.errors import InputError
from encort.runtime.common.labelled_rows.columns import parse_header
from encort.runtime.common.tables.lines import Lines, check_readable, open_lines, without_end
from encort.runtime.common.tables.rows import READERS, is_table, scan_rows
from encort.runtime.corpus.inputs import Input, read_text
from encort.runtime.text.token_batch import Text


def read_texts(
    arguments: tuple[str, ...], file: Path | None, column: str | None, header: str | None = None
) -> Iterator[Text]:
    """Return the texts of `read_inputs`.

    Raises:
        InputError: See `read_inputs`; or an input is no text, which the message names.
    """
    return map(_get_text, read_inputs(arguments, file, column, header))


def read_inputs(
    arguments: tuple[str, ...], file: Path | None, column: str | None, header: str | None = None
) -> Iterator[Input]:
    """Return inputs from the arguments, else from a file, else from the lines of standard input.

    Args:
        arguments: Texts of the command line.
        file: A table by its ending, see `READERS`, or a file with one text per line; `-` is stdin.
        column: Column of a table, with texts or with lists of words; None: `text` with `text_pair` if it exists, or
            `tokens`, or `question` with `context`.
        header: Names of the columns, separated by commas, for a .csv or .tsv file that does not begin with them.

    Raises:
        InputError: There are both arguments and a file, or no texts; or the file cannot be read.
    """
    if arguments and file is not None:
        raise InputError("give texts as arguments or with --input, not both")
    for option, value in (("--column", column), ("--header", header)):
        if value is not None and (file is None or not is_table(file)):
            raise InputError(f"{option} is for tables ({', '.join(READERS)}); leave it out for other texts")
    if arguments:
        texts = map(decode_argument, arguments)
        return (Input(location=f"text {number}", value=text) for number, text in enumerate(texts, start=1))
    if file is None or str(file) == "-":
        return _line_inputs(Lines(open_stdin().buffer, "standard input"))
    check_readable(file)
    return _table_inputs(file, column, header) if is_table(file) else _file_inputs(file)


def _get_text(item: Input) -> Text:
    if isinstance(item.value, InputError):
        raise item.value
    return item.value


def _file_inputs(file: Path) -> Iterator[Input]:
    try:
        with open_lines(file) as lines:
            yield from _line_inputs(lines)
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error}") from error


def _line_inputs(lines: Lines) -> Iterator[Input]:
    for line in lines:
        yield Input(location=lines.location, value=lines.error() or without_end(line))


def _table_inputs(file: Path, column: str | None, header: str | None) -> Iterator[Input]:
    names = None if header is None else parse_header(header)
    for number, row in enumerate(scan_rows(file, header=names), start=1):
        location = f"{file}, row {number}"
        yield Input(location=location, value=row if isinstance(row, InputError) else read_text(row, column, location))
