"""CoNLL columns: a token and its tag in each line, and an empty line behind each sentence."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from encort.runtime.common.errors import InputError
from encort.runtime.common.tables.lines import Row, open_lines

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
