"""encort itself, from bundles that `encort export` made; its variants are the precisions."""

from pathlib import Path

from protocol import Embed, main

import encort


def load(variant: str, _: Path, folder: Path, threads: int) -> Embed:
    """Variants: fp32, int8, native-bf16, native-int8."""
    native, _, precision = variant.rpartition("-")
    return encort.load(folder / (native or "stock"), precision=precision, threads=threads).embed


if __name__ == "__main__":
    main(load, packages=("encort", "onnxruntime", "tokenizers"))
