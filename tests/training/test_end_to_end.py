import numpy as np
import torch
import transformers

import encort
from encort.export.exporter import export_bundle

TEXTS = ["my card is lost", "hello", "change the pin", "안녕하세요", "the pin of my card is lost now " * 20, ""]


def test_what_was_trained_is_what_is_served(trained, tmp_path):
    export_bundle(trained.folder, tmp_path / "trained.bundle", variants=["fp32"])
    tokenizer = transformers.AutoTokenizer.from_pretrained(trained.folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(trained.folder).eval()
    with torch.inference_mode():
        expected = model(**tokenizer(TEXTS, padding=True, truncation=True, return_tensors="pt")).logits.softmax(-1)
    with encort.load(tmp_path / "trained.bundle") as served:
        assert served.manifest.heads[0].labels == trained.report.labels
        results = served.classify(TEXTS)
    assert [list(result.scores) for result in results] == [trained.report.labels] * len(TEXTS)
    scores = np.array([list(result.scores.values()) for result in results])
    np.testing.assert_allclose(scores, expected.numpy(), rtol=0, atol=1e-5)
    assert [result.label for result in results[:3]] == ["card_lost", "greeting", "change_pin"]
