"""Load bundles with Optimum's ORTModel classes and with sentence-transformers, in their own environment."""

import importlib.metadata
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from optimum import onnxruntime as optimum
from sentence_transformers import SentenceTransformer
from transformers import AutoTokenizer

CLASSES = {
    "feature-extraction": optimum.ORTModelForFeatureExtraction,
    "text-classification": optimum.ORTModelForSequenceClassification,
    "token-classification": optimum.ORTModelForTokenClassification,
    "question-answering": optimum.ORTModelForQuestionAnswering,
}
CLOSE = {"rtol": 0, "atol": 1e-4}


def main(folder: Path) -> None:
    """Compare every bundle of the folder with `expected.json`."""
    for name, expected in json.loads((folder / "expected.json").read_text(encoding="utf-8")).items():
        check_model(folder / name, expected)
        if expected["task"] == "feature-extraction":
            check_sentence_transformers(folder / name, expected)
        print(f"optimum: {name} ({expected['file']}) gives the results of eager transformers")  # noqa: T201
    packages = ("optimum-onnx", "transformers", "sentence-transformers", "onnxruntime")
    print(", ".join(f"{package} {importlib.metadata.version(package)}" for package in packages))  # noqa: T201


def check_model(bundle: Path, expected: dict[str, Any]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(bundle)
    inputs = dict(tokenizer(texts(expected), padding=True, truncation=True, return_tensors="np"))
    for name, array in expected["inputs"].items():
        np.testing.assert_array_equal(inputs[name], array, err_msg=name)
    outputs = CLASSES[expected["task"]].from_pretrained(bundle, local_files_only=True)(**inputs)
    mask = inputs["attention_mask"] == 1
    for name, rows in expected["outputs"].items():
        array = np.array(rows, np.float32)
        kept = mask if array.shape[:2] == mask.shape else ...  # the results of padding are undefined
        np.testing.assert_allclose(outputs[name][kept], array[kept], err_msg=f"{bundle}: {name}", **CLOSE)


def check_sentence_transformers(bundle: Path, expected: dict[str, Any]) -> None:
    options = {"provider": "CPUExecutionProvider"}
    model = SentenceTransformer(str(bundle), backend="onnx", model_kwargs=options, local_files_only=True)
    embeddings = model.encode(expected["texts"], normalize_embeddings=True)
    np.testing.assert_allclose(embeddings, expected["results"], err_msg=str(bundle), **CLOSE)


def texts(expected: dict[str, Any]) -> list[Any]:
    """Return texts, or pairs as tuples."""
    return [tuple(text) if isinstance(text, list) else text for text in expected["texts"]]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
