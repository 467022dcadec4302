"""encort itself, from a bundle that `encort export` made; its variants are the precisions."""

from pathlib import Path

from protocol import Embed, main

import encort


def load(variant: str, _: Path, folder: Path, threads: int) -> Embed:
    """Variants: fp32, int8."""
    return encort.load(folder / "bundle", precision=variant, threads=threads).embed


if __name__ == "__main__":
    main(load, packages=("encort", "onnxruntime", "tokenizers"))
