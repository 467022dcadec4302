"""The built-in sample of real texts: short and long, in several languages, with figures, links and emoji."""

from importlib.resources import files


def sample_texts() -> list[str]:
    """Forty texts, written for encort, that every export is verified with."""
    return files("encort.export").joinpath("samples.txt").read_text(encoding="utf-8").splitlines()


def sample_pairs() -> list[tuple[str, str]]:
    """Every fourth of them with its neighbour."""
    texts = sample_texts()
    return list(zip(texts[::4], texts[1::4], strict=True))
