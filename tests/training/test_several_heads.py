"""Several heads learn together, and what they leave is one encoder in ordinary checkpoints."""

import json

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from encort.runtime.cli import group
from encort.runtime.errors import DatasetError, InputError
from encort.training.sentence_embedding import SentenceEmbedding
from encort.training.settings import TrainingSettings
from encort.training.several_heads import Alternating, HeadData, train_several_heads
from encort.training.text_classification import TextClassification
from encort.training.token_classification import TokenClassification

LENGTHS = {"intents": [3, 9, 4, 4, 8], "names": [5, 5, 7]}


def drawn(epoch=0, seed=1):
    sampler = Alternating(LENGTHS, batch_size=2, seed=seed)
    sampler.set_epoch(epoch)
    assert len(list(sampler)) == len(sampler) == 10
    return list(sampler)


def test_every_row_is_drawn_and_a_batch_is_of_one_head():
    rows = drawn()
    assert set(rows) == set(range(8))
    for start in range(0, len(rows), 2):
        assert len({row < 5 for row in rows[start : start + 2]}) == 1


def test_the_order_is_that_of_the_seed_and_the_epoch():
    assert drawn(epoch=1) == drawn(epoch=1)
    assert drawn(epoch=0) != drawn(epoch=1)
    assert drawn(seed=1) != drawn(seed=2)


@pytest.fixture
def names(write):
    return write("names.conll", "card\tB-THING\nmy\tO\n\nmy\tO\npin\tB-THING\n\n" * 10)


def test_all_heads_learn_on_one_encoder(tiny_encoder, tables, names, tmp_path):
    heads = [f"intents=text-classification:{tables[0]},{tables[1]}", f"names=token-classification:{names}"]
    options = {"model": tiny_encoder, "output": tmp_path / "both", "epochs": 6, "batch-size": 4, "learning-rate": 5e-3}
    flags = [str(part) for name, value in options.items() for part in (f"--{name}", value)]
    found = CliRunner().invoke(group, ["train", "several-heads", "--head", heads[0], "--head", heads[1], *flags])
    assert found.exception is None, found.exception
    report = json.loads(found.stdout)
    assert report["intents"]["metrics"]["validation"]["accuracy"] > 0.9
    assert report["names"]["metrics"]["validation"]["f1"] > 0.9
    first, second = (load_file(tmp_path / "both" / head / "model.safetensors") for head in ("intents", "names"))
    shared = [name for name in first if name in second and name.startswith("bert.")]
    assert len(shared) > 10
    assert all(torch.equal(first[name], second[name]) for name in shared)
    before = load_file(tiny_encoder / "model.safetensors")
    assert any(not torch.equal(first[name], before[name.removeprefix("bert.")]) for name in shared)
    assert not (tmp_path / "both.unfinished").exists()


def test_the_problems_of_all_heads_are_told_at_once(tiny_encoder, write, tmp_path):
    table = write("bad.csv", "text,label\nhello,a\n,b\n")
    tags = write("bad.jsonl", '{"tokens": ["my"], "tags": []}\n')
    heads = {
        "intents": HeadData(task=TextClassification(), train=str(table)),
        "names": HeadData(task=TokenClassification(), train=str(tags)),
    }
    with pytest.raises(DatasetError, match=r"(?s)intents: .*no text: row 2.*names: .*fewer tags than tokens: row 1"):
        train_several_heads(heads, model=tiny_encoder, output=tmp_path / "both", settings=TrainingSettings())


def test_heads_that_cannot_share_an_encoder_are_refused(tiny_encoder, tables, tmp_path):
    intents = HeadData(task=TextClassification(), train=str(tables[0]))
    for heads, message in (
        ({"intents": intents}, "at least two"),
        ({"intents": intents, "alike": HeadData(task=SentenceEmbedding(), train="x.csv")}, "alike: sentence-embedding"),
    ):
        with pytest.raises(DatasetError, match=message):
            train_several_heads(heads, model=tiny_encoder, output=tmp_path / "both")


@pytest.mark.parametrize("head", ["intents", "intents=text-classification", "a b=text-classification:x.csv", "a=x:y"])
def test_a_head_is_a_name_a_task_and_a_file(head, tmp_path):
    arguments = ["train", "several-heads", "--head", head, "--model", "x", "--output", str(tmp_path / "both")]
    found = CliRunner().invoke(group, arguments)
    assert isinstance(found.exception, InputError)
