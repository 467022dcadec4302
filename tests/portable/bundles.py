"""Tiny bundles with a portable graph, and the results of eager transformers for each of them."""

import json
import os
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import transformers

from tests.builders import ENVIRONMENT, save_checkpoint, save_heads

TEXTS = ["my card is lost", "hello", "the PIN: changed!", "play the card, change my pin " * 3, "a"]
PAIRS = [
    ("my card?", "hello the card is lost, change my pin"),
    ("pin?", "play the card"),
    ("who?", "hello, my pin is lost"),
    ("is the card lost", "the pin is lost, the card is my card"),
    ("a", "hello"),
]
"""Texts without unknown tokens, which the pipelines of transformers.js leave out."""
TASKS = {
    "topics": "text-classification",
    "moods": "text-classification",
    "tags": "token-classification",
    "answers": "question-answering",
}
"""Pipelines of the heads of `tests.builders` that other libraries know."""


def write_bundles(folder: Path) -> None:
    """Export one bundle for an encoder and for each head, and write the expected results into `expected.json`.

    The graph is at the top of some bundles, and at `onnx/model.onnx` of the others. One bundle has its weights beside
    the graph, as a large model has.
    """
    os.environ |= ENVIRONMENT
    transformers.logging.set_verbosity_error()
    from encort.export import portable
    from encort.export.exporter import export_bundle

    checkpoints = folder / "checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / "encoder").mkdir()
    encoder = save_checkpoint(checkpoints / "encoder", seed=1)
    save_heads(encoder, checkpoints)
    sources = {
        "encoder": [encoder],
        "large": [encoder],
        "without-types": [_save_distilbert(encoder, checkpoints / "without-types")],
        "several-heads": [checkpoints / "topics", checkpoints / "tags"],
        **{name: [checkpoints / name] for name in TASKS},
    }
    expected = {}
    for number, (name, checkpoint) in enumerate(sources.items()):
        file = ("model.onnx", "onnx/model.onnx")[number % 2]
        with patch.object(portable, "_LARGEST_FILE", 1000 if name == "large" else portable._LARGEST_FILE):
            bundle = export_bundle(checkpoint, folder / name, variants=["fp32", "portable"], portable_file=file)
        task = TASKS.get(name, "feature-extraction")
        base = encoder if name == "several-heads" else checkpoint[0]
        weights_file = bundle.portable().weights_file
        expected[name] = {"task": task, "file": file, "weights_file": weights_file, **_expected(base, task)}
    (folder / "expected.json").write_text(json.dumps(expected, ensure_ascii=False), encoding="utf-8")


def _save_distilbert(encoder: Path, folder: Path) -> Path:
    shutil.copytree(encoder, folder)
    sizes = {"dim": 40, "n_layers": 2, "n_heads": 5, "hidden_dim": 72, "max_position_embeddings": 64}
    vocabulary = json.loads((encoder / "config.json").read_text())["vocab_size"]
    torch.manual_seed(3)
    config = transformers.DistilBertConfig(vocab_size=vocabulary, initializer_range=0.3, **sizes)
    transformers.DistilBertModel(config).save_pretrained(folder)
    return folder


@torch.inference_mode()
def _expected(checkpoint: Path, task: str) -> dict[str, Any]:
    """Return inputs, the outputs of eager transformers for them, and the results of its pipeline."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    loader = getattr(transformers, json.loads((checkpoint / "config.json").read_text())["architectures"][0])
    model = loader.from_pretrained(checkpoint, attn_implementation="eager").eval()
    texts = PAIRS if task == "question-answering" else TEXTS
    batch = dict(tokenizer(texts, padding=True, truncation=True, max_length=64, return_tensors="pt"))
    if model.config.model_type == "distilbert":
        batch.pop("token_type_ids", None)
    outputs = {name: value.tolist() for name, value in model(**batch).items() if name != "pooler_output"}
    return {
        "texts": texts,
        "inputs": {name: value.tolist() for name, value in batch.items()},
        "outputs": outputs,
        "results": _results(task, model, tokenizer, texts),
    }


def _results(task: str, model: Any, tokenizer: Any, texts: list[Any]) -> list[Any]:
    if task == "feature-extraction":
        vectors = []
        for text in texts:
            inputs = dict(tokenizer(text, return_tensors="pt"))
            if model.config.model_type == "distilbert":
                inputs.pop("token_type_ids", None)
            vectors.append(model(**inputs).last_hidden_state.mean(1))
        return torch.nn.functional.normalize(torch.cat(vectors), dim=1).tolist()
    if task == "question-answering":
        return [_answer(model, tokenizer, *pair) for pair in texts]
    pipeline = transformers.pipeline(task, model=model, tokenizer=tokenizer)
    if task == "token-classification":
        return [[_plain(token) for token in pipeline(text, ignore_labels=[])] for text in texts]
    return [[_plain(label) for label in pipeline(text, top_k=None)] for text in texts]


def _answer(model: Any, tokenizer: Any, question: str, context: str) -> dict[str, Any]:
    """Return the best answer: its probabilities are those among the context's tokens and the first token."""
    tokens = tokenizer(question, context, return_tensors="pt")
    result = model(**tokens)
    kept = [0, *(index for index, part in enumerate(tokens.sequence_ids(0)) if part == 1)]
    start, end = (logits[0, kept].softmax(0)[1:] for logits in (result.start_logits, result.end_logits))
    scores = torch.triu(start[:, None] * end)
    first, last = divmod(int(scores.argmax()), len(end))
    ids = tokens["input_ids"][0, kept[first + 1] : kept[last + 1] + 1]
    return {"answer": tokenizer.decode(ids), "score": float(scores.max())}


def _plain(result: dict[str, Any]) -> dict[str, Any]:
    return {"label": result.get("label", result.get("entity")), "score": float(result["score"])}
