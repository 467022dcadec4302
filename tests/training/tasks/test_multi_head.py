"""Several heads learn together, and what they leave is one encoder in ordinary checkpoints."""

import contextlib
import dataclasses
import json

import pytest
import torch
import transformers
from click.testing import CliRunner
from safetensors.torch import load_file

from encort.runtime.cli.main import group
from encort.runtime.common.errors import DatasetError, InputError, OutputExistsError
from encort.training.prepare import HeadData
from encort.training.settings import TrainingSettings
from encort.training.tasks.multi_head import HeadBatchSampler, train_multi_head
from encort.training.tasks.sentence_embedding import SentenceEmbedding
from encort.training.tasks.text_classification import TextClassification
from encort.training.tasks.token_classification import TokenClassification

LENGTHS = {"intents": [3, 9, 4, 4, 8], "names": [5, 5, 7]}


def drawn(epoch=0, seed=1):
    sampler = HeadBatchSampler(LENGTHS, batch_size=2, seed=seed)
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
    found = CliRunner().invoke(group, ["train", "multi-head", "--head", heads[0], "--head", heads[1], *flags])
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
        train_multi_head(heads, model=tiny_encoder, output=tmp_path / "both", settings=TrainingSettings())


def test_heads_that_cannot_share_an_encoder_are_refused(tiny_encoder, tables, tmp_path):
    intents = HeadData(task=TextClassification(), train=str(tables[0]))
    for heads, message in (
        ({"intents": intents}, "at least two"),
        ({"intents": intents, "alike": HeadData(task=SentenceEmbedding(), train="x.csv")}, "alike: sentence-embedding"),
    ):
        with pytest.raises(DatasetError, match=message):
            train_multi_head(heads, model=tiny_encoder, output=tmp_path / "both")


# The shell.


def multi_head(*arguments):
    """Run the command in this process; what it raises is raised."""
    found = CliRunner().invoke(group, ["train", "multi-head", *map(str, arguments)])
    if found.exception is not None:
        raise found.exception
    return json.loads(found.stdout)


@pytest.fixture
def given(monkeypatch):
    """`given(*arguments)`: the heads that the command hands on; nothing is trained."""
    seen = {}

    def run(*arguments):
        multi_head(*arguments, "--model", "m", "--output", "o")
        return seen

    monkeypatch.setattr(
        "encort.training.tasks.multi_head.train_multi_head", lambda heads, **_: seen.update(heads) or {}
    )
    return run


INTENTS = "intents=text-classification:hub/name:ko"


def test_what_is_said_of_a_head_is_handed_on(given):
    found = given(
        *("--head", f"{INTENTS},v.csv,t.csv", "--head", "names=token-classification:n.jsonl,,t.jsonl"),
        *("--column", "intents.text=said", "--column", "names.tokens=a.b=c", "--column", "intents.label=meant"),
        *("--header", "intents=id, said,meant"),
    )
    assert list(found) == ["intents", "names"]
    assert found["intents"] == HeadData(
        task=found["intents"].task,
        train="hub/name:ko",
        validation="v.csv",
        test="t.csv",
        columns={"text": "said", "label": "meant"},
        header=["id", "said", "meant"],
    )
    assert found["names"] == HeadData(
        task=TokenClassification(), train="n.jsonl", test="t.jsonl", columns={"tokens": "a.b=c"}
    )
    assert isinstance(found["intents"].task, TextClassification)


@pytest.mark.parametrize(
    "head",
    [
        *("intents", "intents=text-classification", "a b=text-classification:x.csv", "a=x:y"),
        *("a=text-classification:,v.csv", "a=text-classification:x.csv,v.csv,t.csv,more.csv"),
    ],
)
def test_a_head_is_a_name_a_task_and_files(head, given):
    with pytest.raises(InputError, match=r"is not NAME=TASK:TRAIN\[,VALIDATION\[,TEST\]\], .* a task of: text-class"):
        given("--head", head)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--column", "text=said"], "--column 'text=said' is not HEAD.ROLE=NAME, such as intents.text=message"),
        (["--column", "intents.text"], "--column 'intents.text' is not HEAD.ROLE=NAME"),
        (["--column", "intent.text=said"], "names the head 'intent', but the heads are: intents$"),
        (["--header", "intents"], "--header 'intents' is not HEAD=NAMES, such as intents=text,label"),
        (["--header", "text=label,text"], "names the head 'text', but the heads are: intents$"),
        (["--head", INTENTS], "two --head have the same name"),
    ],
)
def test_what_is_of_no_head_is_refused(arguments, message, given):
    with pytest.raises(InputError, match=message):
        given("--head", INTENTS, *arguments)


def test_columns_headers_and_test_splits_are_those_of_the_head(tiny_encoder, tables, names, write, tmp_path):
    rows = tables[1].read_text().splitlines(keepends=True)[1:]
    for split, count in (("train", 12), ("validation", 6), ("test", 9)):
        write(f"intents/{split}.csv", "".join(rows[:count]))
    tagged = names.read_text()
    found = multi_head(
        *("--head", f"intents=text-classification:{tmp_path / 'intents'}"),
        *("--header", "intents=said,meant", "--column", "intents.text=said", "--column", "intents.label=meant"),
        *("--head", f"names=token-classification:{names},{names},{write('test.conll', tagged + tagged)}"),
        *("--model", tiny_encoder, "--output", tmp_path / "both", "--epochs", 1),
    )
    assert found["intents"]["rows"] == {"train": 12, "validation": 6, "test": 9}
    assert found["names"]["rows"] == {"train": 20, "validation": 20, "test": 40}
    for head in ("intents", "names"):
        report = json.loads((tmp_path / "both" / head / "training.json").read_text())
        assert report["metrics"] == found[head]["metrics"]
        assert report["metrics"].keys() == {"validation", "test"}
    # The same sentences twice over.
    assert found["names"]["metrics"]["test"] == found["names"]["metrics"]["validation"]


# What was stopped.

EPOCH = 18
"""Steps of one: 15 of the intents, 3 of the names."""


class StoppedError(Exception):
    """In place of a training that ends in the middle."""


@pytest.fixture
def train(tiny_encoder, tables, names, tmp_path):
    """`train(output, stop_at=step, ...)`: ends without a word when it comes to that step."""
    heads = {
        "intents": HeadData(task=TextClassification(), train=str(tables[0]), validation=str(tables[1])),
        "names": HeadData(task=TokenClassification(), train=str(names)),
    }

    def run(output, *, stop_at=None, heads=heads, resume=False, **settings):
        class Stop(transformers.TrainerCallback):
            def on_step_begin(self, _args, state, _control, **_kwargs):
                run.steps.append(state.global_step)
                if state.global_step == stop_at:
                    raise StoppedError

        run.steps = []
        settings = TrainingSettings(**{"epochs": 3, "batch_size": 8, "learning_rate": 3e-3, "seed": 3, **settings})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("transformers.trainer.DEFAULT_CALLBACKS", [*transformers.trainer.DEFAULT_CALLBACKS, Stop])
            stopped = contextlib.nullcontext() if stop_at is None else pytest.raises(StoppedError)
            with stopped:
                return train_multi_head(
                    heads, model=tiny_encoder, output=tmp_path / output, settings=settings, resume=resume
                )

    run.heads = heads
    return run


@pytest.mark.parametrize(
    ("stop_at", "save_steps", "saved"),
    [(EPOCH, None, EPOCH), (2 * EPOCH + 5, None, 2 * EPOCH), (26, 7, 21)],
    ids=["epoch", "amid", "steps"],
)
def test_wherever_it_stops_the_weights_become_the_same(stop_at, save_steps, saved, train, tmp_path):
    whole = train("whole", save_steps=save_steps)
    train("both", save_steps=save_steps, stop_at=stop_at)
    assert not (tmp_path / "both").exists()
    with pytest.raises(OutputExistsError, match="--resume"):
        train("both", save_steps=save_steps)
    resumed = train("both", save_steps=save_steps, resume=True)
    assert train.steps == list(range(saved, 3 * EPOCH))
    for head, report in resumed.items():
        weights = [(tmp_path / output / head / "model.safetensors").read_bytes() for output in ("whole", "both")]
        assert weights[0] == weights[1]
        assert report.metrics == whole[head].metrics
        losses = [
            [entry["eval_loss"] for entry in each.history if "eval_loss" in entry] for each in (report, whole[head])
        ]
        assert len(losses[0]) == len(losses[1]) > 2
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert not (tmp_path / "both.unfinished").exists()


def test_with_other_heads_it_does_not_go_on(train):
    train("both", stop_at=EPOCH + 1)
    other = dataclasses.replace(train.heads["intents"], columns={"text": "text"})
    for heads in ({**train.heads, "intents": other}, dict(reversed(train.heads.items()))):
        with pytest.raises(InputError, match=r"plan has changed: heads \[.*\] became \["):
            train("both", heads=heads, resume=True)
