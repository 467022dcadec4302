"""Masked language modelling: which tokens are predicted, and a checkpoint that fills masks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import encort
from encort.export.exporter import export_bundle
from encort.training.features import IGNORED
from encort.training.tasks.masked_language import MaskedLanguageModeling, MaskedNetwork, choose_tokens

Run = Any  # of tests/training/conftest.py, which cannot be imported

TEXTS = ["my card is lost", "change the pin", "hello my card", "play the card " * 40]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    file = tmp_path / "texts.csv"
    file.write_text("text\n" + "\n".join(TEXTS * 6) + "\n", encoding="utf-8")
    return file


def network(seed: int = 0) -> MaskedNetwork:
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    model = transformers.BertForMaskedLM(transformers.BertConfig(vocab_size=50, **sizes))
    return MaskedNetwork(model, mask=4, tokens=50)


def test_a_share_of_the_tokens_is_chosen_and_at_least_one_of_each_row() -> None:
    torch.manual_seed(0)
    may = torch.rand(400, 50) < 0.9
    chosen = choose_tokens(torch.rand(400, 50), may)
    assert not (chosen & ~may).any()
    assert 0.14 < chosen.sum() / may.sum() < 0.16
    short = choose_tokens(torch.rand(300, 3), torch.ones(300, 3, dtype=torch.bool))
    assert short.any(dim=1).all()


def test_chosen_tokens_are_mostly_masked() -> None:
    net, seen = network(), []
    net.model.register_forward_pre_hook(lambda _m, _a, inputs: seen.append(inputs["input_ids"]), with_kwargs=True)
    ids = torch.full((200, 60), 9)
    predicted = net(labels=ids, input_ids=ids)["predicted"]
    chosen = predicted != IGNORED
    assert (seen[0][~chosen] == 9).all()
    assert 0.75 < (seen[0][chosen] == 4).float().mean() < 0.85
    assert 0.05 < (seen[0][chosen] == 9).float().mean() < 0.15


def test_evaluation_masks_a_text_alike_whatever_is_beside_it() -> None:
    net = network().eval()
    ids = torch.randint(5, 50, (3, 20), generator=torch.Generator().manual_seed(1))
    padded = torch.nn.functional.pad(ids[:1], (0, 9))
    labels = torch.nn.functional.pad(ids[:1], (0, 9), value=IGNORED)
    with torch.no_grad():
        together = net(labels=ids, input_ids=ids)["predicted"][0] != IGNORED
        alone = net(labels=labels, input_ids=padded)["predicted"][0] != IGNORED
    assert torch.equal(together, alone[:20])
    training = [net.train()(labels=ids, input_ids=ids)["predicted"] != IGNORED for _ in range(2)]
    assert not torch.equal(*training)


def test_a_trained_checkpoint_fills_masks_and_starts_other_tasks(
    train_tiny: Callable[..., Run], rows: Path, tmp_path: Path
) -> None:
    run = train_tiny(task=MaskedLanguageModeling(), train=rows, validation=rows, epochs=9)
    losses = [entry["eval_loss"] for entry in run.report.history if "eval_loss" in entry]
    assert losses[-1] < losses[0]
    assert run.report.metrics["validation"]["accuracy"] > 0.15
    bundle = export_bundle(run.folder, tmp_path / "b", task="fill-mask", variants=["fp32"]).folder
    with encort.load(bundle, threads=1) as model:
        (mask,) = model.fill(["my card is [MASK]"], top_k=2)[0]
    assert np.isfinite([word.score for word in mask.words]).all()
    table = tmp_path / "labels.csv"
    table.write_text("text,label\n" + "".join(f"{t},{t[:2]}\n" for t in TEXTS[:3] * 6), encoding="utf-8")
    again = train_tiny(model=run.folder, train=table, validation=table, output=tmp_path / "c", epochs=1)
    assert set(again.report.labels) == {"my", "ch", "he"}


def test_a_stopped_training_ends_with_the_weights_of_a_whole_one(
    train_tiny: Callable[..., Run], rows: Path, tmp_path: Path
) -> None:
    class StoppedError(Exception):
        """Ends a training."""

    class Stop(transformers.TrainerCallback):  # type: ignore[misc] # untyped
        def on_step_begin(self, _args: Any, state: Any, _control: Any, **_kwargs: Any) -> None:
            if state.global_step == 9:
                raise StoppedError

    options = {"task": MaskedLanguageModeling(), "train": rows, "validation": rows, "epochs": 2}
    whole = train_tiny(**options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("transformers.trainer.DEFAULT_CALLBACKS", [*transformers.trainer.DEFAULT_CALLBACKS, Stop])
        with pytest.raises(StoppedError):
            train_tiny(**options, output=tmp_path / "c")
    resumed = train_tiny(**options, output=tmp_path / "c", resume=True)
    assert resumed.weights == whole.weights
