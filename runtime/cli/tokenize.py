"""The command `encort tokenize`: the tokens of texts, without running the graph."""

import functools
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from encort.runtime.cli.options import BUNDLE, COLUMN, HEADER, INPUT, OUTPUT, PROMPT, add_options

if TYPE_CHECKING:
    from encort.runtime.corpus.inputs import Input, Record
    from encort.runtime.text.token_batch import TokenBatch
    from encort.runtime.text.vocabulary import Vocabulary


@click.command()
@add_options(BUNDLE)
@click.argument("texts", nargs=-1)
@add_options(INPUT, COLUMN, HEADER, OUTPUT, PROMPT)
@click.option("--decode", is_flag=True, help="Each text is token ids, such as '101 1045 102': write their text.")
def tokenize(
    bundle: str,
    texts: tuple[str, ...],
    file: Path | None,
    column: str | None,
    header: str | None,
    output: Path | None,
    prompt: str | None,
    decode: bool,
) -> None:
    """Write the tokens of TEXTS as the model reads them, one record per text.

    Offsets count the characters of the text; special tokens and the tokens of a prompt have none. For a text over the
    limit, "cut" has the offsets of what the model does not read.

    \b
    encort tokenize banking.bundle "Where is my card?"
    encort tokenize banking.bundle --decode "101 1045 2572 1037 2879 1012 102"
    """  # noqa: D301 - click's mark for examples is the character itself
    from encort.runtime.bundle.manifest import TOKENIZER_FILE
    from encort.runtime.cli.readers import read_inputs
    from encort.runtime.cli.writers import open_writer
    from encort.runtime.corpus.row_errors import RowRunner
    from encort.runtime.hub.download import open_bundle
    from encort.runtime.text.tokenizer import Tokenizer

    inputs = read_inputs(texts, file, column, header)
    opened = open_bundle(bundle, files=lambda _: [TOKENIZER_FILE])
    tokenizer = Tokenizer(opened.read(TOKENIZER_FILE), max_length=opened.manifest.max_length)
    text = opened.manifest.prompts.resolve(prompt)
    runner = RowRunner(
        tokenize=functools.partial(tokenizer, prompt=text, return_offsets=True),
        make_records=functools.partial(_token_records, tokenizer.vocabulary),
        on_error="fail",
    )
    with open_writer(output) as writer:
        if decode:
            writer.write([_decoded_record(tokenizer.vocabulary, item) for item in inputs])
            return
        for records_of_chunk in runner.run(inputs):
            writer.write(records_of_chunk)


def _token_records(vocabulary: "Vocabulary", batch: "TokenBatch") -> "list[Record]":
    return [_token_record(vocabulary, batch, index) for index in range(len(batch))]


def _token_record(vocabulary: "Vocabulary", batch: "TokenBatch", index: int) -> "Record":
    from encort.runtime.text.token_prompt import prompt_text

    assert batch.offsets is not None
    start, stop = batch.cu_seqlens[index : index + 2].tolist()
    ids, text = batch.ids[start:stop].tolist(), batch.texts[index]
    parts = (text,) if isinstance(text, str) else text
    skipped = [len(prompt_text(batch.prompt)), 0]
    offsets: list[list[int] | None] = []
    read = [list[int]() for _ in parts]
    for first, last, part in zip(
        *(getattr(batch.offsets, name)[start:stop].tolist() for name in ("starts", "ends", "sequences")), strict=True
    ):
        is_of_text = part >= 0 and last > skipped[part]
        offsets.append([max(0, first - skipped[part]), last - skipped[part]] if is_of_text else None)
        if part >= 0:
            read[part] += [first, last]
    record: dict[str, Any] = {
        "tokens": vocabulary.tokens(ids),
        "ids": ids,
        "type_ids": batch.type_ids[start:stop].tolist(),
        "offsets": offsets,
        "truncated": bool(batch.truncated[index]),
    }
    if batch.truncated[index]:
        record["cut"] = [_cut(*arguments) for arguments in zip(parts, read, skipped, strict=False)]
    return record


def _cut(text: str, read: list[int], skipped: int) -> list[int] | None:
    """Return the offsets of the part of a text that was cut; None if nothing was cut.

    Args:
        text: The text with its prompt.
        read: Offsets of the tokens that are left.
        skipped: Length of the prompt.
    """
    first, last = (min(read), max(read)) if read else (skipped, skipped)
    if text[last:].strip():
        return [max(0, last - skipped), len(text) - skipped]
    return [0, max(0, first - skipped)] if text[skipped:first].strip() else None


def _decoded_record(vocabulary: "Vocabulary", item: "Input") -> "Record":
    from encort.runtime.common.errors import InputError

    if isinstance(item.value, InputError):
        raise item.value
    numbers = re.findall(r"[^\s,\[\]]+", item.value if isinstance(item.value, str) else " ".join(item.value))
    if not numbers or not all(map(str.isdecimal, numbers)):
        raise InputError(f"{item.location}: expected token ids, such as 101 1045 102, got {item.value!r}")
    ids = [int(number) for number in numbers]
    return {"text": vocabulary.decode(ids), "tokens": vocabulary.tokens(ids), "ids": ids}
