"""The `encort` command: a lazy group of all commands, and the exit codes of errors."""

import os
import sys
from importlib import import_module

import click

from encort.runtime.cli.streams import prepare_streams
from encort.runtime.common.errors import EncortError
from encort.runtime.common.folders import shorten_path
from encort.runtime.common.output.terminal import echo, log_to_stderr, printable_lines

COMMANDS = {
    "train": ("encort.training.commands:train", "Fine-tune an encoder on labelled data."),
    "export": ("encort.export.commands:export", "Turn a checkpoint into a verified bundle."),
    "verify": ("encort.export.commands:verify", "Check a bundle's results on this machine."),
    "inspect": ("encort.runtime.cli.inspect:inspect", "Show heads, limits and certificates of a bundle."),
    "compat": ("encort.runtime.cli.bundles:compat", "Tell whether the embeddings of two bundles fit into one index."),
    "push": ("encort.runtime.cli.bundles:push", "Upload a bundle to the Hugging Face hub."),
    "bench": ("encort.benchmarks.commands:bench", "Measure speed and memory of a bundle on this machine."),
    "embed": ("encort.runtime.cli.commands:embed", "Write sentence embeddings of texts."),
    "predict": ("encort.runtime.cli.commands:predict", "Write predictions for texts, from a head of the bundle."),
    "rank": ("encort.runtime.cli.commands:rank", "Write documents in the order of their scores for a query."),
    "serve": ("encort.runtime.cli.serve:serve", "Serve bundles over HTTP."),
    "tokenize": ("encort.runtime.cli.tokenize:tokenize", "Show the tokens of texts, and what is cut of them."),
}
"""Module and help line of each command. They are strings, so that a command does not import what another one needs."""


class LazyGroup(click.Group):
    """A group that imports a command when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names of all commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's
        """Import a command; None for an unknown name."""
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name][0].split(":")
        command: click.Command = getattr(import_module(module), name)
        return command

    def invoke(self, ctx: click.Context) -> object:
        """Run a command; the message of a wrong usage cannot steer the terminal."""
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            raise click.UsageError(printable_lines(error.format_message()), error.ctx) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the help lines without importing the commands."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(package_name="encort", message="encort %(version)s")
def group() -> None:
    """Fine-tune BERT-family encoders, export them to verified ONNX bundles, serve them from ONNX Runtime."""


def main() -> None:
    """Run the command line. An error of encort is printed as one line on stderr and gives its exit code."""
    prepare_streams()
    log_to_stderr()
    try:
        group()
    except EncortError as error:
        echo(f"encort: {error}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:  # a full disk, a folder without permission, a path that is too long
        echo(f"encort: {_describe(error)}", err=True)
        sys.exit(EncortError.exit_code)


def _describe(error: OSError) -> str:
    """Return the message with a path of bounded length."""
    return str(error) if error.filename is None else f"{shorten_path(os.fsdecode(error.filename))}: {error.strerror}"
