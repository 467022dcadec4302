"""The commands `encort compat` and `encort push`, about whole bundles."""

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from encort.runtime.common.output.terminal import echo

if TYPE_CHECKING:
    from encort.runtime.verification.compat import Compatibility

EXIT_CODES = {"same": 0, "rotated": 5, "truncated": 6, "another": 7}
"""Exit code of `encort compat` for each verdict."""
_MEANINGS = {
    "same": "the vectors of both may live in one index",
    "rotated": "the vectors may live in one index only after an orthogonal map of one of them",
    "truncated": "the vectors may live in one index only if the longer ones are cut too",
    "another": "the vectors may not live in one index; embed all texts again",
}


@click.command()
@click.argument("old")
@click.argument("new")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def compat(old: str, new: str, as_json: bool) -> None:
    """Tell whether the embeddings of the bundles OLD and NEW may live in one index.

    Neither bundle is run: both keep the vectors of the same sample texts. The exit code is 0 for the same space, 5 if
    one is a rotation of the other, 6 if one is cut, and 7 for another space.

    \b
    encort compat old.bundle new.bundle
    encort compat my.bundle hf://org/name@v1 --json
    """  # noqa: D301 - click's mark for examples is the character itself
    from encort.runtime.cli.streams import check_stdout
    from encort.runtime.common.output.escaping import dump_json
    from encort.runtime.verification.compat import compat as compare

    check_stdout()
    result = compare(old, new)
    echo(dump_json(asdict(result)) if as_json else _summary(result))
    sys.exit(EXIT_CODES[result.verdict])


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


def _summary(result: "Compatibility") -> str:
    sizes = " and ".join(map(str, dict.fromkeys(result.dimensions)))
    lines = [
        f"{result.verdict}: {_MEANINGS[result.verdict]}",
        f"difference of the vectors: {result.difference:.1e}, of the angles between them: "
        f"{result.difference_of_angles:.1e} ({result.texts} texts, {sizes} values)",
    ]
    lines += [f"ids of the spaces: {old or 'unknown'} (old), {new or 'unknown'} (new)" for old, new in [result.ids]]
    lines += [f"reason: {reason}" for reason in result.reasons]
    return "\n".join([*lines, *(f"warning: {warning}" for warning in result.warnings)])
