"""encort in place of sentence-transformers: `SentenceTransformer.encode` on a bundle that `encort export` made."""

from pathlib import Path
from typing import Any

from protocol import Embed, main

import encort
from encort.integrations.sentence_transformers import SentenceTransformer


def load(variant: str, _: Path, folder: Path, threads: int) -> Embed:
    """Variants: fp32, int8."""
    model = SentenceTransformer(encort.load(folder / "stock", precision=variant, threads=threads))

    def embed(texts: list[str]) -> Any:
        return model.encode(texts, normalize_embeddings=True, show_progress_bar=False)

    return embed


if __name__ == "__main__":
    main(load, packages=("encort", "onnxruntime", "tokenizers"))
