"""`encort export` and `encort verify`: thin commands over `export_bundle` and `verify_bundle`."""

from pathlib import Path
from typing import Any

import click

from encort.runtime.extras import require

_MODULES = ("torch", "transformers", "onnx_ir", "safetensors")
_FOLDER = click.Path(path_type=Path)


@click.command()
@click.argument("checkpoint")
@click.option("--output", "-o", type=_FOLDER, required=True, help="Bundle folder to make.")
@click.option("--revision", help="Commit, branch or tag of a hub id.")
@click.option("--pooling", type=click.Choice(["mean", "cls", "pooler"]), help="Of embeddings; else the checkpoint's.")
@click.option("--normalize/--no-normalize", default=None, help="Embeddings of length 1; else the checkpoint's.")
@click.option("--max-length", type=int, help="Most tokens of one input; else the checkpoint's limit.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier bundle.")
def export(checkpoint: str, output: Path, pooling: str | None, **options: Any) -> None:
    r"""Turn CHECKPOINT (a folder or a hub id) into a verified bundle.

    \b
    encort export build/checkpoint --output banking.bundle
    """
    require("encort export", "export", *_MODULES)
    from encort.export.exporter import export_bundle
    from encort.runtime.manifest import Pooling

    chosen = None if pooling is None else Pooling(pooling)
    bundle = export_bundle(checkpoint, output, pooling=chosen, progress=True, **options)
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
@click.option("--checkpoint", help="Compare with this checkpoint in eager PyTorch; else with the golden vectors.")
def verify(bundle: Path, checkpoint: str | None) -> None:
    """Check every file of BUNDLE and every variant's results on this machine."""
    from encort.runtime.bundle import Bundle
    from encort.runtime.golden import verify_bundle

    opened = Bundle.open(bundle)
    for check in verify_bundle(opened):
        click.echo(_line(check.variant, check.max_abs_error, f"golden vectors, {check.texts} texts"))
    if checkpoint is not None:
        require("encort verify --checkpoint", "export", *_MODULES)
        from encort.export.exporter import verify_against_checkpoint

        for variant, fidelity in verify_against_checkpoint(opened, checkpoint, progress=True):
            click.echo(_line(variant.name, fidelity.max_abs_error, f"eager PyTorch, {fidelity.cases} batches"))


def _line(variant: str, max_abs_error: Any, what: str) -> str:
    errors = ", ".join(f"{name} {error:.1e}" for name, error in max_abs_error.items())
    return f"{variant}: largest difference to {what}: {errors}"
