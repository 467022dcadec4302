"""Write the reference of the command line from the help of the commands."""

import inspect
from collections.abc import Iterator

import click

from encort.runtime.cli.main import group


def command_reference() -> str:
    """Return a Markdown section for each command, in the order of `encort --help`."""
    return "\n".join(line for name in group.list_commands(click.Context(group)) for line in _sections(name, group, 2))


def _sections(name: str, parent: click.Group, level: int, before: str = "encort") -> Iterator[str]:
    path = f"{before} {name}"
    command = parent.get_command(click.Context(parent), name)
    assert command is not None
    context = click.Context(command, info_name=path)
    yield f"\n{'#' * level} {path}\n"
    yield f"```text\n{' '.join([path, *command.collect_usage_pieces(context)])}\n```\n"
    yield _prose(command.help or "")
    yield from _options(command, context)
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            yield from _sections(child, command, level + 1, path)


def _prose(text: str) -> str:
    """Return the help as Markdown: paragraphs after a line with click's mark for examples are code."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(
        f"```text\n{paragraph.removeprefix(chr(8)).strip()}\n```" if paragraph.startswith("\b") else paragraph
        for paragraph in paragraphs
    )


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    rows = [option.get_help_record(context) for option in command.params if isinstance(option, click.Option)]
    if rows:
        yield "\n| option | |\n|---|---|"
    for row in rows:
        if row is not None:
            names, text = (part.replace("|", "\\|") for part in row)
            yield f"| `{names}` | {text} |"
