"""`encort export` and `encort verify`: thin commands over `export_bundle` and `verify_bundle`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from encort.runtime.common.extras import require

if TYPE_CHECKING:
    from encort.runtime.bundle.manifest import Fidelity, Variant
    from encort.runtime.verification.golden import GoldenCheck

_MODULES = (
    *("torch", "transformers", "onnx_ir", "optimum.exporters.onnx"),
    *("safetensors", "scipy", "matplotlib", "tqdm"),
)
_FOLDER = click.Path(path_type=Path)


@click.command()
@click.argument("checkpoints", nargs=-1, required=True, metavar="CHECKPOINT...")
@click.option("--output", "-o", type=_FOLDER, required=True, help="Bundle folder to make.")
@click.option("--revision", help="Commit, branch or tag of a hub id.")
@click.option("--pooling", type=click.Choice(["mean", "cls", "pooler"]), help="Of embeddings; else the checkpoint's.")
@click.option("--normalize/--no-normalize", default=None, help="Embeddings of length 1; else the checkpoint's.")
@click.option("--max-length", type=int, help="Most tokens of one input; else the checkpoint's limit.")
@click.option(
    "--variant",
    "variants",
    type=click.Choice(["fp32", "int8", "portable", "cuda-fp16", "cuda-fp32"]),
    multiple=True,
    help="Make only these; else all for CPUs that the model allows.",
)
@click.option("--calibration", type=_FOLDER, help="Texts as they will be served, a few hundred, for int8.")
@click.option("--column", help="Column of the calibration texts; else text, and text_pair where there is one.")
@click.option(
    "--evaluation",
    type=_FOLDER,
    help="Labelled data, in any form that encort train reads: take the fastest graph that loses little on it.",
)
@click.option("--evaluation-column", "columns", multiple=True, help="ROLE=NAME of its column, such as text=message.")
@click.option("--evaluation-header", "header", help="Names of its columns, by commas, if the file lacks them.")
@click.option("--max-drop", type=float, default=0.5, help="Points of the metric that int8 may lose on it.")
@click.option("--weight-bits", type=click.Choice(["7", "8"]), help="Of int8: 8 with VNNI, 7 without; else this CPU's.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier bundle.")
def export(
    checkpoints: tuple[str, ...],
    output: Path,
    pooling: str | None,
    variants: tuple[str, ...],
    calibration: Path | None,
    column: str | None,
    columns: tuple[str, ...],
    header: str | None,
    weight_bits: str | None,
    **options: Any,
) -> None:
    """Turn a CHECKPOINT (a folder or a hub id), or several with one encoder and a head each, into a verified bundle.

    \b
    encort export build/checkpoint --output banking.bundle
    encort export intents/ entities/ --output support.bundle
    encort export build/checkpoint --output banking.bundle --calibration messages.csv
    """  # noqa: D301 - click's mark for examples is the character itself
    require("encort export", "export", *_MODULES)
    from encort.export.exporter import export_bundle
    from encort.export.int8.search import TABLE_FILE
    from encort.export.variants import VariantKind
    from encort.runtime.bundle.manifest import Pooling
    from encort.runtime.cli.readers import read_texts
    from encort.runtime.common.labelled_rows import parse_columns, parse_header

    bundle = export_bundle(
        checkpoints,
        output,
        pooling=None if pooling is None else Pooling(pooling),
        variants=[VariantKind(name) for name in variants] or None,
        calibration=None if calibration is None else list(read_texts((), calibration, column)),
        evaluation_columns=parse_columns(columns, option="--evaluation-column"),
        evaluation_header=None if header is None else parse_header(header),
        weight_bits=None if weight_bits is None else int(weight_bits),
        progress=True,
        **options,
    )
    if TABLE_FILE in bundle.manifest.files:
        click.echo(bundle.path(TABLE_FILE).read_text(encoding="utf-8"))
    for variant in bundle.manifest.variants:
        assert variant.fidelity is not None
        click.echo(_certificate(variant, variant.fidelity))
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
    from encort.runtime.bundle.bundle import Bundle
    from encort.runtime.verification.golden import verify_bundle

    opened = Bundle.open(bundle)
    checks = verify_bundle(opened)
    for check in checks:
        click.echo(_line(check.variant, check, f"golden vectors, {check.texts} texts"))
    for name in {variant.name for variant in opened.manifest.variants} - {check.variant for check in checks}:
        click.echo(
            f"{name}: made for a processor or a device that this machine lacks; not checked, and not served here"
        )
    if checkpoints:
        require("encort verify --checkpoint", "export", *_MODULES)
        from encort.export.exporter import verify_against_checkpoint

        for variant, fidelity in verify_against_checkpoint(opened, checkpoints, progress=True):
            click.echo(_certificate(variant, fidelity))


def _certificate(variant: "Variant", fidelity: "Fidelity") -> str:
    stands_in = "" if variant.device == "cpu" else f", on the CPU in place of {variant.device}"
    return _line(variant.name, fidelity, f"eager PyTorch, {fidelity.cases} batches{stands_in}")


def _line(variant: str, measured: "Fidelity | GoldenCheck", what: str) -> str:
    errors = ", ".join(f"{name} {error:.1e}" for name, error in measured.max_abs_error.items())
    cosine = f"cosine mean {measured.mean_cosine:.5f}, min {measured.min_cosine:.5f}"
    return f"{variant}: {cosine}; largest difference to {what}: {errors}"
