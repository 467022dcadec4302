"""The command `encort push`."""

import click

from encort.runtime.common.output.terminal import echo


@click.command()
@click.argument("bundle")
@click.argument("repo")
@click.option("--private/--public", default=None, help="Kind of a new repository; default: as the hub decides.")
@click.option("--revision", help="Branch to commit to, created if it does not exist; default: main.")
@click.option("--message", help="Message of the commit.")
def push(bundle: str, repo: str, private: bool | None, revision: str | None, message: str | None) -> None:
    """Upload BUNDLE to the Hugging Face hub, as REPO (org/name), with a page made of its certificates.

    The token is that of HF_TOKEN or `hf auth login`.

    \b
    encort push my.bundle org/name --private
    encort push my.bundle org/name --revision next --message "Calibrated on messages of May"
    """  # noqa: D301 - click's mark for examples is the character itself
    from encort.runtime.hub.push import push as upload

    echo(f"pushed: {upload(bundle, repo, private=private, revision=revision, message=message)}")
