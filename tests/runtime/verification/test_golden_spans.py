"""`encort verify` counts the texts whose spans are not those of the golden vectors."""

from pathlib import Path

import numpy as np
from click.testing import CliRunner

from encort.export.exporter import export_bundle
from encort.runtime.bundle.bundle import Bundle
from encort.runtime.bundle.manifest import HeadInfo, Task
from encort.runtime.cli.main import group
from encort.runtime.common.aggregation import Aggregation
from encort.runtime.text.token_batch import TokenBatch
from encort.runtime.text.tokenizer import Tokenizer
from encort.runtime.text.words import SubwordMarks
from encort.runtime.verification.golden import verify_bundle
from encort.runtime.verification.golden_spans import count_changed_texts

TAGGER = HeadInfo(name="tags", task=Task.TOKEN_CLASSIFICATION, labels=["O", "B-x", "I-x"], outputs=["logits"])


def sample(bundle: Path) -> TokenBatch:
    tokenizer = Tokenizer((bundle / "tokenizer.json").read_bytes(), max_length=64)
    return tokenizer(["my card", "playing"], return_offsets=True)


def test_a_text_with_another_span_is_counted(classifier_bundle: Path) -> None:
    batch = sample(classifier_bundle)
    golden = np.zeros((len(batch.ids), 3), np.float32)
    golden[:, 0] = 1
    changed = golden.copy()
    changed[1, 1] = 9  # "my"
    assert count_changed_texts([TAGGER], batch, {"logits": golden}, {"logits": golden}, SubwordMarks()) == 0
    assert count_changed_texts([TAGGER], batch, {"logits": changed}, {"logits": golden}, SubwordMarks()) == 1


def test_the_aggregation_of_the_head_decides(classifier_bundle: Path) -> None:
    batch = sample(classifier_bundle)
    golden = np.zeros((len(batch.ids), 3), np.float32)
    golden[:, 0] = 1
    changed = golden.copy()
    changed[6, 1] = 9  # "##ing"
    counts = {
        way: count_changed_texts(
            [HeadInfo(name="t", task=TAGGER.task, labels=TAGGER.labels, outputs=["logits"], aggregation=way)],
            batch,
            {"logits": changed},
            {"logits": golden},
            SubwordMarks(),
        )
        for way in (Aggregation.WORD, Aggregation.SIMPLE, Aggregation.MAX)
    }
    assert counts == {Aggregation.WORD: 0, Aggregation.SIMPLE: 1, Aggregation.MAX: 1}


def test_bundles_without_taggers_have_no_spans(classifier_bundle: Path) -> None:
    assert [check.changed_texts for check in verify_bundle(Bundle.open(classifier_bundle))] == [None] * 2


def test_a_bundle_with_a_tagger_keeps_its_spans(multi_head: Path, tmp_path: Path) -> None:
    bundle = export_bundle(multi_head.parent / "tags", tmp_path / "tags.bundle", variants=["fp32"]).folder
    assert [check.changed_texts for check in verify_bundle(Bundle.open(bundle))] == [0, 0]
    result = CliRunner().invoke(group, ["verify", str(bundle)])
    assert result.stdout.count("; 0 texts with other spans") == 2
