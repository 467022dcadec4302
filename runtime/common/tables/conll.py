"""CoNLL columns: a token and its tag in each line, and an empty line behind each sentence."""

import re
from collections.abc import Iterator
from pathlib import Path

from encort.runtime.common.errors import InputError
from encort.runtime.common.tables.lines import Row, open_lines
from encort.runtime.common.token_lists import JoinedTokens

_COMMENT = re.compile(r"#+ ")


def read_conll(file: Path) -> Iterator[Row]:
    """Read sentences as `text`, `tokens` and `tags`.

    Each line has a token in its first column and the tag in its last one; an empty line ends a sentence. Columns are
    separated by tabs, or by spaces in a line without tabs. Lines before a sentence that begin with `# ` are comments.

    Raises:
        InputError: A line is not UTF-8, or not a token and a tag.
    """
    tokens: list[str] = []
    tags: list[str] = []
    with open_lines(file) as lines:
        for ended in lines:
            lines.check()
            line = ended.rstrip("\r\n")
            if line.strip() and not (_COMMENT.match(line) and not tokens):
                token, tag = _split_line(line, lines.location)
                tokens.append(token)
                tags.append(tag)
            elif tokens and not line.strip():
                lines.end_record()
                yield _make_sentence(tokens, tags)
                tokens, tags = [], []
    if tokens:
        yield _make_sentence(tokens, tags)


def _split_line(line: str, location: str) -> tuple[str, str]:
    if "\r" in line:
        raise InputError(
            f"{location}: {line[:40]!r} has a carriage return alone, as old Macs end lines; save the file again with "
            "the line ends of Unix or Windows"
        )
    cells = line.split("\t") if "\t" in line else line.strip(" ").split(" ")
    if len(cells) < 2 or not cells[0] or not cells[-1].strip():
        raise InputError(f"{location}: {line!r} is not a token and a tag")
    return cells[0], cells[-1].strip()


def _make_sentence(tokens: list[str], tags: list[str]) -> Row:
    return {"text": JoinedTokens.of(tokens), "tokens": tokens, "tags": tags}
