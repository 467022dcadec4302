"""Export and verify every architecture with every head in every variant, and write the tables of docs/architectures.md.

    python -m encort.benchmarks.studies.architectures             verifies all cells, and writes the page
    python -m encort.benchmarks.studies.architectures GTE BERT    verifies these architectures, and prints their tables

The checkpoints are small, with seeded random weights of odd sizes. An export compares every graph with eager PyTorch,
and fails if one differs. It takes some minutes.
"""

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from encort.benchmarks.studies.seeded_checkpoints import HEADS, LIMIT, architectures, save_checkpoint
from encort.export.exporter import export_bundle
from encort.runtime.bundle.manifest import Variant
from encort.runtime.common.errors import EncortError
from encort.runtime.common.output.markdown import table
from encort.runtime.common.output.terminal import echo

PAGE = Path(__file__).resolve().parents[2] / "docs" / "architectures.md"
VARIANTS = {
    "cpu-fp32": "fp32, texts of equal length",
    "cpu-fp32-ragged": "fp32, texts of mixed lengths (ragged)",
    "portable": "fp32, portable graph",
    "cpu-int8": "int8, texts of equal length",
    "cpu-int8-ragged": "int8, texts of mixed lengths (ragged)",
}
"""Title of each variant's table."""
NOT_THERE = "not there"
Cell = Mapping[str, str]
"""Text of each variant's cell; empty for a head that transformers does not have."""
_MARK = re.compile(r"(<!-- cells -->\n).*?(<!-- end -->)", re.DOTALL)


def main(names: Sequence[str]) -> int:
    """Verify the cells, and write or print their tables; return 1 if one failed."""
    rows = {name: kind for name, kind in architectures() if name in names or not names}
    cells: dict[tuple[str, str], Cell] = {}
    for architecture in rows:
        for head in HEADS:
            cells[architecture, head] = verify(architecture, head)
            echo(f"{architecture}, {head}: {cells[architecture, head] or 'not in transformers'}", err=True)
    text = tables(rows, cells)
    if names:
        echo(text)
    else:
        page = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(_MARK.sub(lambda match: f"{match[1]}{text}\n{match[2]}", page), encoding="utf-8")
    return int(any("fails" in cell.values() for cell in cells.values()))


def verify(architecture: str, head: str) -> Cell:
    """Export one checkpoint in all variants, which verifies them; return the differences."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        if not save_checkpoint(architecture, head, folder / "checkpoint"):
            return {}
        try:
            bundle = export_bundle(
                folder / "checkpoint", folder / "bundle", task="fill-mask" if head == "fill-mask" else None
            )
        except EncortError as error:
            echo(f"{architecture}, {head}: {error}", err=True)
            return dict.fromkeys(VARIANTS, "fails")
        variants = {variant.name: variant for variant in bundle.manifest.variants}
        return {name: _difference(variants[name]) for name in VARIANTS if name in variants}


def _difference(variant: Variant) -> str:
    """Return what the export measured: the mean cosine of int8, or the largest difference of all outputs of fp32."""
    if variant.fidelity is None:
        return "not verified"
    if variant.precision == "int8":
        return f"{variant.fidelity.mean_cosine:.5f}"
    return f"{max(variant.fidelity.max_abs_error.values()):.0e}"


def tables(rows: Mapping[str, str], cells: Mapping[tuple[str, str], Cell]) -> str:
    """Return a table for each variant, with one row for each architecture and its tokenizer."""
    parts = []
    for variant, title in VARIANTS.items():
        header = ["architecture", "tokenizer", *HEADS]
        body = [
            [architecture, kind, *(cells[architecture, head].get(variant, NOT_THERE) for head in HEADS)]
            for architecture, kind in rows.items()
        ]
        parts += [f"### {title}", "", *table(header, body), ""]
    return "\n".join([*parts, f"Texts of 1 to {LIMIT} tokens, alone and in batches."])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="architectures; all if there are none")
    sys.exit(main(parser.parse_args().names))
