"""Channels with outliers, as ModernBERT and DeBERTa have them: the search finds what to leave in fp32, and says so."""

import json
from pathlib import Path

import pytest
import torch
import transformers

from encort.benchmarks.studies.seeded_checkpoints import save_checkpoint
from encort.export.exporter import export_bundle
from encort.export.int8 import search
from encort.export.verification.samples import sample_texts


def save_modernbert_with_outliers(folder: Path) -> Path:
    """Save a small text classifier with norms that make two channels forty times as large as the others."""
    save_checkpoint("ModernBERT", "text classification", folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("_norm.weight") and ".layers." in name:
                weight[3] *= 40
                weight[17] *= -40
    model.save_pretrained(folder)
    return folder


def save_own_labels(folder: Path, file: Path) -> Path:
    """Save the sample texts with the labels that the model itself gives, so that full precision scores 100 %."""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    rows = []
    for text in sample_texts():
        tokens = tokenizer(text, return_tensors="pt", truncation=True)
        with torch.inference_mode():
            logits = model(tokens["input_ids"], tokens["attention_mask"]).logits
        rows.append({"text": text, "label": model.config.id2label[int(logits.argmax())]})
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_the_search_leaves_layers_with_outliers_in_fp32_and_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = save_modernbert_with_outliers(tmp_path / "checkpoint")
    labelled = save_own_labels(checkpoint, tmp_path / "labelled.jsonl")
    monkeypatch.setattr(search, "_SMOOTHINGS", {"chosen per tensor": search.STRENGTHS})
    monkeypatch.setattr(search._Judge, "_seconds", lambda judge, model: 2.0 if model is judge._full else 1.0)
    options = {"variants": ["fp32", "int8"], "evaluation": labelled, "max_drop": 0.0, "weight_bits": 7}
    bundle = export_bundle(checkpoint, tmp_path / "bundle", **options)
    _, everything, *others = json.loads(bundle.read("search.json"))["candidates"]
    assert everything["drop"] > 0, "without outliers in int8, the search would have nothing to do"
    assert others[-1]["chosen"]
    assert others[-1]["drop"] <= 0
    assert others[-1]["excluded"]
    assert (
        "int8 leaves in fp32 what lost most: " + ", ".join(others[-1]["excluded"]) in bundle.read("search.md").decode()
    )
