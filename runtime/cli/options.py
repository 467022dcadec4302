"""Arguments and options that several commands share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])
Option = Callable[[Any], Any]

FOLDER = click.Path(path_type=Path)
BUNDLE = click.argument("bundle")
"""A folder, or a name of the hub: `open_bundle` tells them apart."""
INPUT = click.option(
    "--input",
    "-i",
    "file",
    type=FOLDER,
    help="Read texts from a .csv, .tsv, .jsonl, .json, .conll or .parquet file, or one text per line; or from a folder "
    "of such tables, or a glob in quotes.",
)
COLUMN = click.option(
    "--column", help="Column of the texts; default: text and text_pair, tokens, or question and context."
)
HEADER = click.option(
    "--header", help="Names of the columns, separated by commas, for a .csv or .tsv file without them."
)
OUTPUT = click.option(
    "--output",
    "-o",
    type=FOLDER,
    help="Write a .jsonl, .npy or .parquet file; default: JSON lines on stdout. An existing file is replaced when the "
    "new one is complete. A name without an ending is a folder of Parquet files, which have the input's columns too.",
)
PROMPT = click.option(
    "--prompt",
    help="Name of the bundle's prompt that is put before each text, or '' for none; default: the bundle's default "
    "prompt. encort inspect lists them.",
)
LOAD_OPTIONS = [
    click.option("--device", default="auto", help="auto, cpu, cuda, or GPUs as cuda:1 or cuda:0,1."),
    click.option(
        "--precision",
        type=click.Choice(["auto", "fp32", "fp16", "bf16", "int8"]),
        default="auto",
        help="Precision of the graph; default: auto, the exporter's first choice. fp16 is for GPUs.",
    ),
    click.option("--threads", type=int, help="Cores to use; default: all that this process may use."),
]
BATCH_OPTIONS = [
    BUNDLE,
    click.argument("texts", nargs=-1),
    INPUT,
    COLUMN,
    HEADER,
    OUTPUT,
    *LOAD_OPTIONS,
    click.option(
        "--overflow",
        type=click.Choice(["truncate", "truncate_left", "error", "window"]),
        help="What to do with texts over the limit; default: window for questions, else truncate.",
    ),
    click.option(
        "--stride",
        type=int,
        help="Tokens that neighbouring windows share; default: a quarter of a window, at most 128.",
    ),
    click.option(
        "--on-error",
        type=click.Choice(["fail", "skip", "column"]),
        default="fail",
        help="For an input that cannot be used: stop, leave it out, or write its error into the field error.",
    ),
    click.option("--resume", is_flag=True, help="Go on with a job that was stopped, from its last finished part."),
    click.option(
        "--part-rows",
        type=click.IntRange(min=1),
        help="Rows per file of a folder, and what a kill may cost; default: 65536.",
    ),
    click.option("--prefix", default="", help="Put before the names of result columns in a folder of Parquet files."),
]
"""Arguments and options of a command that runs texts through a bundle."""


def add_options(*options: Option) -> Callable[[Command], Command]:
    """Return a decorator that adds arguments and options to a command, in this order of the help."""

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add
