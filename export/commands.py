"""The commands `encort export` and `encort verify`, on top of `export_bundle` and `verify_bundle`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from encort.export.options import PoolingName, PortableFile, TaskName, VariantName, WeightBits
from encort.runtime.common.extras import require
from encort.runtime.common.output.terminal import echo

if TYPE_CHECKING:
    from encort.runtime.bundle.bundle import Bundle
    from encort.runtime.bundle.manifest import Fidelity, Variant
    from encort.runtime.verification.golden import GoldenCheck

_MODULES = ("torch", "transformers", "onnx_ir", "safetensors", "scipy", "matplotlib", "tqdm")
_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("checkpoints", nargs=-1, required=True, metavar="CHECKPOINT...")
@click.option("--output", "-o", type=_PATH, required=True, help="Bundle folder to make.")
@click.option(
    "--task",
    type=click.Choice(get_args(TaskName)),
    help="Keep the head of a masked language model, which fills masks; default: its encoder alone, for embeddings.",
)
@click.option("--adapter", help="Task whose adapter is merged, as jina-embeddings-v3 has them; default: none.")
@click.option("--revision", help="Commit, branch or tag of a hub id.")
@click.option(
    "--pooling", type=click.Choice(get_args(PoolingName)), help="Pooling of embeddings; default: the checkpoint's."
)
@click.option(
    "--normalize/--no-normalize", default=None, help="Whether embeddings have length 1; default: as in the checkpoint."
)
@click.option("--max-length", type=int, help="Largest number of tokens of one input; default: the checkpoint's limit.")
@click.option(
    "--variant",
    "variants",
    type=click.Choice(get_args(VariantName)),
    multiple=True,
    help="Make only this variant; can be repeated; default: all variants for CPUs that the model allows.",
)
@click.option(
    "--calibration", type=_PATH, help="File of a few hundred texts for int8, of the kind that will be served."
)
@click.option("--column", help="Column of the calibration texts; default: text and text_pair, or question and context.")
@click.option(
    "--header",
    "calibration_header",
    help="Names of the columns of the calibration texts, separated by commas, if their .csv or .tsv file has none.",
)
@click.option(
    "--evaluation",
    type=_PATH,
    help="Labelled data in a form that encort train reads. The fastest graph that loses at most --max-drop is chosen.",
)
@click.option(
    "--evaluation-column",
    "columns",
    multiple=True,
    help="ROLE=NAME of a column of the labelled data, such as text=message.",
)
@click.option(
    "--evaluation-header",
    "header",
    help="Names of the columns of the labelled data, separated by commas, if its file has none.",
)
@click.option(
    "--max-drop", type=float, default=0.5, help="Points of the metric that int8 may lose on the labelled data."
)
@click.option(
    "--weight-bits",
    type=click.Choice(get_args(WeightBits)),
    help="Bits of int8 weights: 8 for CPUs with VNNI, 7 for others; default: the best for this CPU.",
)
@click.option(
    "--portable-file",
    type=click.Choice(get_args(PortableFile)),
    default="model.onnx",
    help="Path of the portable graph; transformers.js and model hubs expect onnx/model.onnx.",
)
@click.option("--overwrite", is_flag=True, help="Replace an earlier bundle.")
def export(
    checkpoints: tuple[str, ...],
    output: Path,
    variants: tuple[VariantName, ...],
    calibration: Path | None,
    column: str | None,
    calibration_header: str | None,
    columns: tuple[str, ...],
    header: str | None,
    **options: Any,
) -> None:
    """Turn a CHECKPOINT (a folder or a hub id) into a verified bundle.

    Several checkpoints with the same encoder and one head each become one bundle.

    \b
    encort export build/checkpoint --output banking.bundle
    encort export intents/ entities/ --output support.bundle
    encort export build/checkpoint --output banking.bundle --calibration messages.csv
    """  # noqa: D301 - click's mark for examples is the character itself
    require("encort export", "export", *_MODULES)
    from encort.runtime.cli.readers import read_texts
    from encort.runtime.common.folders import check_writable
    from encort.runtime.common.labelled_rows.columns import parse_columns, parse_header

    # What can be checked before seconds of imports.
    check_writable(output)
    texts = None if calibration is None else list(read_texts((), calibration, column, calibration_header))
    from encort.export.exporter import export_bundle
    from encort.export.int8.candidates import TABLE_FILE

    bundle = export_bundle(
        checkpoints,
        output,
        variants=variants or None,
        calibration=texts,
        evaluation_columns=parse_columns(columns, option="--evaluation-column"),
        evaluation_header=None if header is None else parse_header(header),
        progress=True,
        **options,
    )
    if TABLE_FILE in bundle.manifest.files:
        echo(bundle.read(TABLE_FILE).decode())
    for variant in bundle.manifest.variants:
        assert variant.fidelity is not None
        echo(_certificate(variant, variant.fidelity))
    echo(f"bundle: {output}")


@click.command()
@click.argument("bundle")
@click.option(
    "--checkpoint",
    "checkpoints",
    multiple=True,
    help="Also compare with this checkpoint in eager PyTorch; repeat the option for each checkpoint of the bundle.",
)
def verify(bundle: str, checkpoints: tuple[str, ...]) -> None:
    """Check every file of BUNDLE, and the results of every variant on this machine."""
    from encort.runtime.cli.streams import check_stdout
    from encort.runtime.common.errors import NotVerifiedError
    from encort.runtime.hub.download import open_bundle
    from encort.runtime.verification.golden import verify_bundle

    check_stdout()
    opened = open_bundle(bundle)
    checks = verify_bundle(opened)
    for check in checks:
        changed = "" if check.changed_texts is None else f"; {check.changed_texts} texts with other spans"
        echo(_line(check.variant, check, f"golden vectors, {check.texts} texts") + changed)
    for name in {variant.name for variant in opened.manifest.variants} - {check.variant for check in checks}:
        echo(f"{name}: made for a processor or a device that this machine lacks; not checked, and not served here")
    measured = _compare(opened, checkpoints) if checkpoints else []
    for variant, fidelity in measured:
        echo(_certificate(variant, fidelity))
    if not checks and not measured:
        raise NotVerifiedError(
            f"{bundle}: this machine can run no variant, so no results were checked; verify it where it will be "
            "served, or compare it with its checkpoint (--checkpoint)"
        )
    checked = {check.variant for check in checks} | {variant.name for variant, _ in measured}
    echo(f"verified: {bundle}, {len(checked)} of {len(opened.manifest.variants)} variants")


def _compare(bundle: "Bundle", checkpoints: tuple[str, ...]) -> "list[tuple[Variant, Fidelity]]":
    require("encort verify --checkpoint", "export", *_MODULES)
    from encort.export.verification.against_checkpoint import verify_against_checkpoint

    return verify_against_checkpoint(bundle, checkpoints, progress=True)


def _certificate(variant: "Variant", fidelity: "Fidelity") -> str:
    where = "" if variant.device == "cpu" else f", on the CPU in place of {variant.device}"
    line = _line(variant.name, fidelity, f"eager PyTorch, {fidelity.cases} batches{where}")
    texts = variant.calibration
    if texts is None:
        return line
    line += f"; calibrated on {texts.seen + texts.judged:,} of {texts.given:,} texts, {texts.judged:,} held back"
    if texts.mean_cosine is None or texts.min_cosine is None:
        return line
    return f"{line} (cosine mean {texts.mean_cosine:.5f}, min {texts.min_cosine:.5f})"


def _line(variant: str, measured: "Fidelity | GoldenCheck", reference: str) -> str:
    errors = ", ".join(f"{name} {error:.1e}" for name, error in measured.max_abs_error.items())
    cosine = f"cosine mean {measured.mean_cosine:.5f}, min {measured.min_cosine:.5f}"
    return f"{variant}: {cosine}; largest difference to {reference}: {errors}"
