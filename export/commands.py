"""`encort export` and `encort verify`: thin commands over `export_bundle` and `verify_bundle`."""

from pathlib import Path
from typing import Any

import click

from encort.runtime.extras import require

_MODULES = ("torch", "transformers", "onnx_ir", "safetensors")
_FOLDER = click.Path(path_type=Path)


@click.command()
@click.argument("checkpoints", nargs=-1, required=True, metavar="CHECKPOINT...")
@click.option("--output", "-o", type=_FOLDER, required=True, help="Bundle folder to make.")
@click.option("--revision", help="Commit, branch or tag of a hub id.")
@click.option("--pooling", type=click.Choice(["mean", "cls", "pooler"]), help="Of embeddings; else the checkpoint's.")
@click.option("--normalize/--no-normalize", default=None, help="Embeddings of length 1; else the checkpoint's.")
@click.option("--max-length", type=int, help="Most tokens of one input; else the checkpoint's limit.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier bundle.")
def export(checkpoints: tuple[str, ...], output: Path, pooling: str | None, **options: Any) -> None:
    r"""Turn a CHECKPOINT (a folder or a hub id), or several with one encoder and a head each, into a verified bundle.

    \b
    encort export build/checkpoint --output banking.bundle
    encort export intents/ entities/ --output support.bundle
    """
    require("encort export", "export", *_MODULES)
    from encort.export.exporter import export_bundle
    from encort.runtime.manifest import Pooling

    chosen = None if pooling is None else Pooling(pooling)
    bundle = export_bundle(checkpoints, output, pooling=chosen, progress=True, **options)
    for variant in bundle.manifest.variants:
        assert variant.fidelity is not None
        click.echo(
            _line(
                variant.name,
                variant.fidelity.max_abs_error,
                f"eager PyTorch, {variant.fidelity.cases} batches",
            )
        )
    click.echo(f"bundle: {output}")


@click.command()
@click.argument("bundle", type=_FOLDER)
@click.option(
    "--checkpoint",
    "checkpoints",
    multiple=True,
    help="Also compare with this checkpoint in eager PyTorch; once for each that the bundle was made of.",
)
def verify(bundle: Path, checkpoints: tuple[str, ...]) -> None:
    """Check every file of BUNDLE and every variant's results on this machine."""
    from encort.runtime.bundle import Bundle
    from encort.runtime.golden import verify_bundle

    opened = Bundle.open(bundle)
    for check in verify_bundle(opened):
        click.echo(_line(check.variant, check.max_abs_error, f"golden vectors, {check.texts} texts"))
    if checkpoints:
        require("encort verify --checkpoint", "export", *_MODULES)
        from encort.export.exporter import verify_against_checkpoint

        for variant, fidelity in verify_against_checkpoint(opened, checkpoints, progress=True):
            click.echo(_line(variant.name, fidelity.max_abs_error, f"eager PyTorch, {fidelity.cases} batches"))


def _line(variant: str, max_abs_error: Any, what: str) -> str:
    errors = ", ".join(f"{name} {error:.1e}" for name, error in max_abs_error.items())
    return f"{variant}: largest difference to {what}: {errors}"
