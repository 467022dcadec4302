"""Several heads are trained together. They share one encoder, and each gets an ordinary checkpoint."""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from click.testing import CliRunner
from safetensors.torch import load_file

from encort.runtime.cli.main import group
from encort.runtime.common.errors import DatasetError, InputError, OutputExistsError
from encort.training.multi_head import HeadBatchSampler, train_multi_head
from encort.training.prepare import HeadData
from encort.training.settings import TrainingSettings
from encort.training.tasks.sentence_embedding import SentenceEmbedding
from encort.training.tasks.text_classification import TextClassification
from encort.training.tasks.token_classification import TokenClassification

LENGTHS = {"intents": [3, 9, 4, 4, 8], "names": [5, 5, 7]}


def drawn(epoch: int = 0, seed: int = 1) -> list[int]:
    sampler = HeadBatchSampler(LENGTHS, batch_size=2, seed=seed)
    sampler.set_epoch(epoch)
    assert len(list(sampler)) == len(sampler) == 10
    return list(sampler)


def test_every_row_is_drawn_and_each_batch_has_one_head() -> None:
    rows = drawn()
    assert set(rows) == set(range(8))
    for start in range(0, len(rows), 2):
        assert len({row < 5 for row in rows[start : start + 2]}) == 1


def test_seed_and_epoch_decide_the_order() -> None:
    assert drawn(epoch=1) == drawn(epoch=1)
    assert drawn(epoch=0) != drawn(epoch=1)
    assert drawn(seed=1) != drawn(seed=2)


@pytest.fixture
def names(write: Callable[..., Path]) -> Path:
    return write("names.conll", "card\tB-THING\nmy\tO\n\nmy\tO\npin\tB-THING\n\n" * 10)


def test_all_heads_learn_on_one_encoder(
    tiny_encoder: Path, tables: tuple[Path, Path], names: Path, tmp_path: Path
) -> None:
    heads = [f"intents=text-classification:{tables[0]},{tables[1]}", f"names=token-classification:{names}"]
    options = {"model": tiny_encoder, "output": tmp_path / "both", "epochs": 6, "batch-size": 4, "learning-rate": 5e-3}
    flags = [str(part) for name, value in options.items() for part in (f"--{name}", value)]
    result = CliRunner().invoke(group, ["train", "multi-head", "--head", heads[0], "--head", heads[1], *flags])
    assert result.exception is None, result.exception
    report = json.loads(result.stdout)
    assert report["intents"]["metrics"]["validation"]["accuracy"] > 0.9
    assert report["names"]["metrics"]["validation"]["f1"] > 0.9
    first, second = (load_file(tmp_path / "both" / head / "model.safetensors") for head in ("intents", "names"))
    shared = [name for name in first if name in second and name.startswith("bert.")]
    assert len(shared) > 10
    assert all(torch.equal(first[name], second[name]) for name in shared)
    before = load_file(tiny_encoder / "model.safetensors")
    assert any(not torch.equal(first[name], before[name.removeprefix("bert.")]) for name in shared)
    assert not (tmp_path / "both.unfinished").exists()


def test_the_problems_of_all_heads_are_listed_at_once(
    tiny_encoder: Path, write: Callable[..., Path], tmp_path: Path
) -> None:
    table = write("bad.csv", "text,label\nhello,a\n,b\n")
    tags = write("bad.jsonl", '{"tokens": ["my"], "tags": []}\n')
    heads = {
        "intents": HeadData(task=TextClassification(), train=str(table)),
        "names": HeadData(task=TokenClassification(), train=str(tags)),
    }
    with pytest.raises(DatasetError, match=r"(?s)intents: .*no text: row 2.*names: .*fewer tags than tokens: row 1"):
        train_multi_head(heads, model=tiny_encoder, output=tmp_path / "both", settings=TrainingSettings())


def test_a_missing_file_is_reported_with_the_name_of_its_head(
    tiny_encoder: Path, tables: tuple[Path, Path], tmp_path: Path
) -> None:
    heads = {
        "intents": HeadData(task=TextClassification(), train="missing.csv"),
        "names": HeadData(task=TokenClassification(), train=str(tables[0])),
    }
    with pytest.raises(DatasetError, match=r"(?s)intents: there is no file missing.csv\nnames: .*there are no tokens"):
        train_multi_head(heads, model=tiny_encoder, output=tmp_path / "both")


def test_imbalanced_labels_of_a_head_are_logged(
    tiny_encoder: Path, names: Path, write: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = write("imbalanced.csv", "text,label\n" + "hello,greeting\n" * 60 + "my card is lost,card_lost\n" * 2)
    heads = {
        "intents": HeadData(task=TextClassification(), train=str(table)),
        "names": HeadData(task=TokenClassification(), train=str(names)),
    }
    settings = TrainingSettings(epochs=1, batch_size=64)
    with caplog.at_level("WARNING", "encort"):
        train_multi_head(heads, model=tiny_encoder, output=tmp_path / "both", settings=settings)
    warnings = [message for message in caplog.messages if message.startswith("labels are imbalanced")]
    assert len(warnings) == 1
    assert "greeting has " in warnings[0]


@pytest.mark.parametrize("name", ["../intents", "/intents", "a/b", "..", "", "a b", "a.b"])
def test_the_name_of_a_head_is_no_path(
    name: str, tiny_encoder: Path, tables: tuple[Path, Path], tmp_path: Path
) -> None:
    head = HeadData(task=TextClassification(), train=str(tables[0]))
    with pytest.raises(InputError, match=f"the head {name!r} cannot name a folder"):
        train_multi_head({"names": head, name: head}, model=tiny_encoder, output=tmp_path / "both" / "out")
    assert list(tmp_path.iterdir()) == []


def test_heads_that_cannot_share_an_encoder_are_refused(
    tiny_encoder: Path, tables: tuple[Path, Path], tmp_path: Path
) -> None:
    intents = HeadData(task=TextClassification(), train=str(tables[0]))
    for heads, message in (
        ({"intents": intents}, "at least two"),
        ({"intents": intents, "alike": HeadData(task=SentenceEmbedding(), train="x.csv")}, "alike: sentence-embedding"),
    ):
        with pytest.raises(DatasetError, match=message):
            train_multi_head(heads, model=tiny_encoder, output=tmp_path / "both")


# The command.


def multi_head(*arguments: Any) -> Any:
    """Run the command in this process. Its exceptions are raised."""
    result = CliRunner().invoke(group, ["train", "multi-head", *map(str, arguments)])
    if result.exception is not None:
        raise result.exception
    return json.loads(result.stdout)


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, HeadData]]:
    """Return `given(*arguments)`, the heads that the command passes on. Nothing is trained."""
    seen: dict[str, HeadData] = {}

    def run(*arguments: Any) -> Any:
        multi_head(*arguments, "--model", "m", "--output", "o")
        return seen

    monkeypatch.setattr("encort.training.multi_head.train_multi_head", lambda heads, **_: seen.update(heads) or {})
    return run


INTENTS = "intents=text-classification:hub/name:ko"


def test_options_of_a_head_reach_its_data(given: Callable[..., dict[str, HeadData]]) -> None:
    heads = given(
        *("--head", f"{INTENTS},v.csv,t.csv", "--head", "names=token-classification:n.jsonl,,t.jsonl"),
        *("--column", "intents.text=said", "--column", "names.tokens=a.b=c", "--column", "intents.label=meant"),
        *("--header", "intents=id, said,meant"),
    )
    assert list(heads) == ["intents", "names"]
    assert heads["intents"] == HeadData(
        task=heads["intents"].task,
        train="hub/name:ko",
        validation="v.csv",
        test="t.csv",
        columns={"text": "said", "label": "meant"},
        header=["id", "said", "meant"],
    )
    assert heads["names"] == HeadData(
        task=TokenClassification(), train="n.jsonl", test="t.jsonl", columns={"tokens": "a.b=c"}
    )
    assert isinstance(heads["intents"].task, TextClassification)


@pytest.mark.parametrize(
    "head",
    [
        *("intents", "intents=text-classification", "a b=text-classification:x.csv", "a=x:y"),
        *("a=text-classification:,v.csv", "a=text-classification:x.csv,v.csv,t.csv,more.csv"),
    ],
)
def test_a_head_without_name_task_and_files_is_refused(head: str, given: Callable[..., dict[str, HeadData]]) -> None:
    with pytest.raises(InputError, match=r"is not NAME=TASK:TRAIN\[,VALIDATION\[,TEST\]\], .* TASK one of: text-class"):
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
def test_options_of_an_unknown_head_are_refused(
    arguments: Any, message: str, given: Callable[..., dict[str, HeadData]]
) -> None:
    with pytest.raises(InputError, match=message):
        given("--head", INTENTS, *arguments)


def test_each_head_has_its_columns_header_and_test_split(
    tiny_encoder: Path, tables: tuple[Path, Path], names: Path, write: Callable[..., Path], tmp_path: Path
) -> None:
    rows = tables[1].read_text().splitlines(keepends=True)[1:]
    for split, count in (("train", 12), ("validation", 6), ("test", 9)):
        write(f"intents/{split}.csv", "".join(rows[:count]))
    tagged = names.read_text()
    summary = multi_head(
        *("--head", f"intents=text-classification:{tmp_path / 'intents'}"),
        *("--header", "intents=said,meant", "--column", "intents.text=said", "--column", "intents.label=meant"),
        *("--head", f"names=token-classification:{names},{names},{write('test.conll', tagged + tagged)}"),
        *("--model", tiny_encoder, "--output", tmp_path / "both", "--epochs", 1),
    )
    assert summary["intents"]["rows"] == {"train": 12, "validation": 6, "test": 9}
    assert summary["names"]["rows"] == {"train": 20, "validation": 20, "test": 40}
    for head in ("intents", "names"):
        report = json.loads((tmp_path / "both" / head / "training.json").read_text())
        assert report["metrics"] == summary[head]["metrics"]
        assert report["metrics"].keys() == {"validation", "test"}
    # The test data has the same sentences twice.
    assert summary["names"]["metrics"]["test"] == summary["names"]["metrics"]["validation"]


# Stop and resume.

EPOCH = 18
"""Steps per epoch: 15 of the intents, 3 of the names."""


class StoppedError(Exception):
    """Stops a training in the middle."""


@pytest.fixture
def train(tiny_encoder: Path, tables: tuple[Path, Path], names: Path, tmp_path: Path) -> Any:
    """Return `train(output, stop_at=step, ...)`, a training that stops before that step."""
    heads = {
        "intents": HeadData(task=TextClassification(), train=str(tables[0]), validation=str(tables[1])),
        "names": HeadData(task=TokenClassification(), train=str(names)),
    }

    def run(
        output: str,
        *,
        stop_at: int | None = None,
        heads: Mapping[str, HeadData] = heads,
        resume: bool = False,
        **settings: Any,
    ) -> Any:
        class Stop(transformers.TrainerCallback):
            def on_step_begin(self, _args: Any, state: Any, _control: Any, **_kwargs: Any) -> None:
                run.steps.append(state.global_step)
                if state.global_step == stop_at:
                    raise StoppedError

        run.steps = []
        chosen = TrainingSettings(**{"epochs": 3, "batch_size": 8, "learning_rate": 3e-3, "seed": 3, **settings})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("transformers.trainer.DEFAULT_CALLBACKS", [*transformers.trainer.DEFAULT_CALLBACKS, Stop])
            stopped = contextlib.nullcontext() if stop_at is None else pytest.raises(StoppedError)
            with stopped:
                return train_multi_head(
                    heads, model=tiny_encoder, output=tmp_path / output, settings=chosen, resume=resume
                )

    run.heads = heads
    return run


@pytest.mark.parametrize(
    ("stop_at", "save_steps", "saved"),
    [(EPOCH, None, EPOCH), (2 * EPOCH + 5, None, 2 * EPOCH), (26, 7, 21)],
    ids=["after an epoch", "within an epoch", "save steps"],
)
def test_a_resumed_training_ends_with_the_same_weights(
    stop_at: int | None, save_steps: int | None, saved: int, train: Any, tmp_path: Path
) -> None:
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
            [entry["eval_loss"] for entry in run.history if "eval_loss" in entry] for run in (report, whole[head])
        ]
        assert len(losses[0]) == len(losses[1]) > 2
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert not (tmp_path / "both.unfinished").exists()


def test_resume_with_other_heads_is_refused(train: Any) -> None:
    train("both", stop_at=EPOCH + 1)
    other = dataclasses.replace(train.heads["intents"], columns={"text": "text"})
    for heads in ({**train.heads, "intents": other}, dict(reversed(train.heads.items()))):
        with pytest.raises(InputError, match=r"plan has changed: heads \[.*\] became \["):
            train("both", heads=heads, resume=True)
