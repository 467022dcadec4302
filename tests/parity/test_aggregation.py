"""Every aggregation gives the spans of the pipeline of transformers, with and without marks of subwords."""

import string
import warnings
from collections.abc import Iterator
from typing import Any, cast

import pytest
import tokenizers
import torch
import transformers
from tokenizers import models, normalizers, pre_tokenizers, processors

from encort.runtime.common.aggregation import Aggregation
from encort.runtime.tasks.results import Span
from encort.runtime.tasks.spans import spans
from encort.runtime.text.graphemes import Graphemes
from encort.runtime.text.tokenizer import Tokenizer

LABELS = ["O", "B-x", "I-x", "B-y", "I-y"]
TEXTS = [
    "I live in Paris.",
    "  two  spaces, (and) signs! ",
    "playing lost-card u.s. don't",
    "unknown ☃ snow☃man [UNK] word",
    "a\ttab\nand a line",
    "état d'Île cafés",
    "x",
    "",
]
SPECIAL = {"<s>": 0, "</s>": 1, "<pad>": 2, "<unk>": 3}
CHARACTERS = [*string.ascii_letters, *string.digits, *string.punctuation, "é"]


def word_piece() -> tokenizers.Tokenizer:
    pieces = [*SPECIAL, *CHARACTERS, *(f"##{c}" for c in CHARACTERS), "play", "##ing", "lost"]
    tokenizer = tokenizers.Tokenizer(models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="<unk>"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    return tokenizer


def byte_level(*, trim_offsets: bool) -> tokenizers.Tokenizer:
    pieces = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), "lo", "Ġt", "Ġlo"]
    merges = [("l", "o"), ("Ġ", "t"), ("Ġ", "lo")]
    tokenizer = tokenizers.Tokenizer(models.BPE({p: i for i, p in enumerate(pieces)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=trim_offsets)
    return tokenizer


def metaspace() -> tokenizers.Tokenizer:
    pieces = dict.fromkeys([*SPECIAL, "▁", *CHARACTERS, "▁P", "ing", "lost", "▁sp"])
    tokenizer = tokenizers.Tokenizer(models.Unigram([(p, -2.0 / len(p)) for p in pieces], unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return tokenizer


TOKENIZERS = {
    "WordPiece": word_piece,
    "byte level": lambda: byte_level(trim_offsets=False),
    "byte level, trimmed": lambda: byte_level(trim_offsets=True),
    "Metaspace": metaspace,
}


@pytest.fixture(scope="module", params=TOKENIZERS)
def pipeline(request: pytest.FixtureRequest) -> Any:
    """A pipeline with a random tagger."""
    backend = TOKENIZERS[request.param]()
    backend.post_processor = processors.Sequence(
        [
            *([backend.post_processor] if backend.post_processor else []),
            processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]),
        ]
    )
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.BertConfig(
        vocab_size=len(tokenizer), id2label=dict(enumerate(LABELS)), initializer_range=0.8, **sizes
    )
    model = transformers.BertForTokenClassification(config).eval()
    return transformers.TokenClassificationPipeline(model=model, tokenizer=tokenizer)


def expected_spans(pipeline: Any, text: str, aggregation: str) -> Iterator[tuple[str, int, int, Any]]:
    """Yield the results of the pipeline, without white space around them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = cast("list[dict[str, Any]]", pipeline(text, aggregation_strategy=aggregation) if text else [])
    for result in results:
        start, end = Graphemes(text).visible(int(result["start"]), int(result["end"]))
        if start < end:
            label = result["entity" if aggregation == "none" else "entity_group"]
            yield label, start, end, pytest.approx(float(result["score"]), abs=1e-5)


def spans_of(pipeline: Any, text: str, aggregation: str) -> list[Span]:
    tokenizer = Tokenizer(pipeline.tokenizer.backend_tokenizer.to_str().encode(), max_length=256)
    batch = tokenizer([text], return_offsets=True)
    with torch.inference_mode():
        logits = pipeline.model(torch.from_numpy(batch.ids)[None]).logits[0].numpy()
    marks = tokenizer.subword_marks
    return spans(logits, LABELS, batch, aggregation=Aggregation(aggregation), marks=marks)[0]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("aggregation", ["none", "simple", "first", "average", "max"])
def test_spans_are_those_of_the_pipeline(pipeline: Any, aggregation: str, text: str) -> None:
    results = [(span.label, span.start, span.end, span.score) for span in spans_of(pipeline, text, aggregation)]
    assert results == list(expected_spans(pipeline, text, aggregation))


def test_the_texts_tell_the_aggregations_apart(pipeline: Any) -> None:
    results = {aggregation: [spans_of(pipeline, text, aggregation) for text in TEXTS] for aggregation in [*Aggregation]}
    assert len({str(spans_of_texts) for spans_of_texts in results.values()}) >= len(Aggregation) - 1
