"""Built-in sample texts: short and long, in several languages, with numbers, links and emoji."""

from importlib.resources import files

from encort.export.source.export_source import ExportSource
from encort.runtime.text.token_batch import Text


def sample_texts() -> list[str]:
    """Return forty texts, written for encort. Every export is verified with them."""
    return files("encort.export.verification").joinpath("samples.txt").read_text(encoding="utf-8").splitlines()


def sample_pairs() -> list[tuple[str, str]]:
    """Return ten pairs: every fourth sample text with the text after it."""
    texts = sample_texts()
    return list(zip(texts[::4], texts[1::4], strict=True))


def texts_for(source: ExportSource) -> list[Text]:
    """Return the samples that the model accepts: pairs alone, or texts and pairs."""
    return [*([] if source.is_pairwise else sample_texts()), *sample_pairs()]
