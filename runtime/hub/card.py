"""The page of a bundle on the hub (`README.md`), made of its manifest: how to use it, and how exact it is."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from encort.runtime.bundle.manifest import (
    PORTABLE,
    SENTENCE_EMBEDDING,
    Embedding,
    Fidelity,
    HeadInfo,
    Manifest,
    Source,
    Task,
    Variant,
)
from encort.runtime.common.output.escaping import dump_json
from encort.runtime.common.output.markdown import escape, table
from encort.runtime.hub.names import PREFIX

CARD_FILE = "README.md"
CARD_MARK = "<!-- Written by encort push. To keep a page of your own, remove this line. -->"
"""Line that tells the pages which may be replaced."""
PLOT_FILE = "search.svg"

_PIPELINES = {
    Task.FEATURE_EXTRACTION: "feature-extraction",
    Task.TOKEN_CLASSIFICATION: "token-classification",
    Task.QUESTION_ANSWERING: "question-answering",
    Task.FILL_MASK: "fill-mask",
}
"""The hub's names of tasks; all others are text classification."""
_CALLS = {
    Task.TEXT_REGRESSION: ("score", '["a text", "another text"]', "float32, (2,)"),
    Task.TOKEN_CLASSIFICATION: ("tag", '["a text", "another text"]', "spans with labels and offsets"),
    Task.QUESTION_ANSWERING: ("answer", '[("a question", "its context")]', "answers with scores and offsets"),
    Task.FILL_MASK: ("fill", '["a text with one [MASK]"]', "words with scores"),
    Task.NEXT_SENTENCE_PREDICTION: ("classify", '[("a text", "the next one")]', "labels with scores"),
}
"""Method, arguments and result of the call for a task; all others classify texts."""


def make_card(manifest: Manifest, repo: str) -> str:
    """Return the page of a bundle, in Markdown. Names from the manifest are shown as they are.

    Args:
        manifest: Manifest of the bundle.
        repo: Repository of the page, `org/name`.
    """
    blocks = [
        ["---", *_metadata(manifest), "---"],
        [CARD_MARK],
        [f"# {escape(repo.partition('/')[2])}"],
        [_introduction(manifest)],
        ["## Use", "", "```bash", 'pip install "encort[hub]"', "```"],
        ["```python", *_code(manifest, repo), "```"],
        ["## Differences from PyTorch", "", *_certificates(manifest)],
        [f"![Loss and speed of the 8-bit candidates]({PLOT_FILE})"] if PLOT_FILE in manifest.files else [],
        ["## Details", "", *(f"- {line}" for line in _details(manifest))],
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def _metadata(manifest: Manifest) -> Iterator[str]:
    """Yield lines of YAML; strings are written as JSON, which YAML reads."""
    yield "library_name: encort"
    yield f"pipeline_tag: {_pipeline(manifest)}"
    licences = {source.license for source in manifest.sources if source.license is not None}
    if len(licences) == 1:
        yield f"license: {dump_json(licences.pop())}"
    models = list(dict.fromkeys(source.base_model for source in manifest.sources if source.base_model is not None))
    if models:
        yield f"base_model: {dump_json(models)}"
    yield f"tags: {dump_json(['encort', 'onnx', *_other_tools(manifest)])}"


def _pipeline(manifest: Manifest) -> str:
    if manifest.task is Task.FEATURE_EXTRACTION and manifest.embedding is not None:
        return "sentence-similarity"
    return _PIPELINES.get(manifest.task, "text-classification")


def _other_tools(manifest: Manifest) -> list[str]:
    is_portable = any(variant.name == PORTABLE for variant in manifest.variants)
    return ["sentence-transformers"] if is_portable and manifest.embedding is not None else []


def _introduction(manifest: Manifest) -> str:
    sources = " and ".join(_source(source) for source in manifest.sources)
    version = escape(manifest.tools.get("encort", "of an unknown version"))
    return f"ONNX graphs of {sources}, verified against PyTorch by encort {version} when they were exported."


def _source(source: Source) -> str:
    if source.revision is None:  # a folder, whose path says more about the author's disk than about the model
        return f"{escape(Path(source.model).name)} ({escape(source.architecture)})"
    return f"{escape(source.model)} ({escape(source.architecture)}, revision {escape(source.revision)})"


def _code(manifest: Manifest, repo: str) -> Iterator[str]:
    yield "import encort"
    yield ""
    yield f'with encort.load("{PREFIX}{repo}") as model:'
    if manifest.embedding is not None:
        yield f'    embeddings = model.embed(["a text", "another text"])  # float32, (2, {_dimension(manifest)})'
    elif manifest.late_interaction is not None:
        yield '    best = model.rank("a query", ["a text", "another text"])  # by their token vectors, the best first'
    if manifest.heads:
        call, texts, result = _CALLS.get(
            manifest.heads[0].task, ("classify", '["a text", "another text"]', "labels with scores")
        )
        yield f"    results = model.{call}({texts})  # {result}"


def _dimension(manifest: Manifest) -> str:
    embedding = manifest.embedding
    if embedding is not None and embedding.truncate_dim is not None:
        return str(embedding.truncate_dim)
    return next(v.outputs[SENTENCE_EMBEDDING][-1] for v in manifest.variants if SENTENCE_EMBEDDING in v.outputs)


def _certificates(manifest: Manifest) -> list[str]:
    header = [
        "variant",
        "precision",
        "mean cosine",
        "smallest cosine",
        "largest difference of a vector",
        "changed labels",
        "metric",
    ]
    measured = [(variant, variant.fidelity) for variant in manifest.variants if variant.fidelity is not None]
    return table(header, [_certificate(variant, fidelity) for variant, fidelity in measured])


def _certificate(variant: Variant, fidelity: Fidelity) -> Sequence[object]:
    metric, flips = fidelity.metric, fidelity.label_flips
    return [
        variant.name,
        variant.precision,
        f"{fidelity.mean_cosine:.5f}",
        f"{fidelity.min_cosine:.5f}",
        f"{fidelity.max_abs_error[variant.vector]:.1e}",
        "" if flips is None else flips,
        ""
        if metric is None
        else f"{metric.name} {metric.before:.2f} → {metric.after:.2f} ({metric.examples} examples)",
    ]


def _details(manifest: Manifest) -> Iterator[str]:
    if manifest.embedding is not None:
        yield _embedding(manifest.embedding)
    for head in manifest.heads:
        yield _head(head)
    yield f"At most {manifest.max_length} tokens per text; longer texts are cut, or read in windows."
    yield "Every file has its SHA-256 in `encort.json`. Loading checks it, and runs no code from this repository."
    for variant in manifest.variants:
        if variant.name == PORTABLE:
            yield (
                f"{escape(variant.file)} has standard operators, for other tools such as Optimum and transformers.js. "
                'sentence-transformers reads it with `backend="onnx"`, and needs to be told the pooling above.'
            )


def _embedding(embedding: Embedding) -> str:
    pooling, norm = " and ".join(embedding.pooling), "length 1" if embedding.normalize else "any length"
    prompts = "".join(f"; prompt {escape(name)}: {escape(dump_json(text))}" for name, text in embedding.prompts.items())
    return f"Embeddings: pooling {escape(pooling)}, {norm}, compared by {embedding.similarity}{prompts}"


def _head(head: HeadInfo) -> str:
    labels = ", ".join(map(escape, head.labels)) or "none"
    return f"Head {escape(head.name)}: {head.task}; labels: {labels}"
