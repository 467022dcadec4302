"""A bundle of an adapter gives the results of the model with the adapter on it."""

import json
import shutil
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import encort
from encort.export.exporter import export_bundle
from encort.export.source.adapters import MERGED_KINDS
from encort.export.source.checkpoint import Checkpoint
from encort.runtime.common.errors import CheckpointError, MissingExtraError
from tests.conftest import MakeCheckpoint

peft = pytest.importorskip("peft")

TEXTS = ["my card is lost", "hello", "play ing the card " * 30]
LORA = {"r": 4, "target_modules": ["query", "value", "dense"], "init_lora_weights": False}
KINDS: Mapping[str, Callable[[], Any]] = {
    "LoRA": lambda: peft.LoraConfig(**LORA, bias="lora_only"),
    "DoRA": lambda: peft.LoraConfig(**LORA, use_dora=True, use_rslora=True),
    "IA3": lambda: peft.IA3Config(
        target_modules=["key", "output.dense"], feedforward_modules=["output.dense"], init_ia3_weights=False
    ),
}
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "ADALORA": {"total_step": 10},
    "BOFT": {"boft_block_size": 4},
    "C3A": {"block_size": 8},
    "FOURIERFT": {"n_frequency": 20},
    "IA3": {"feedforward_modules": []},
    "LN_TUNING": {"target_modules": ["LayerNorm"]},
    "MISS": {"r": 4},
    "OFT": {"oft_block_size": 4},
    "RANDLORA": {"r": 4, "randlora_alpha": 1},
    "ROAD": {"group_size": 4},
    "SHIRA": {"r": 2},
    "VBLORA": {"vector_length": 8, "num_vectors": 16, "topk": 2},
    "WAVEFT": {"n_frequency": 20},
}
"""Settings of kinds of adapters whose defaults do not fit a small encoder."""


@pytest.fixture(scope="module")
def base(make_checkpoint: MakeCheckpoint) -> Path:
    return make_checkpoint(seed=71)


def adapt(model: Any, config: Any, folder: Path) -> Any:
    """Save an adapter on a model, and return the model with it."""
    torch.manual_seed(9)
    adapted = peft.get_peft_model(model, config)
    for name, weight in adapted.named_parameters():
        if "ia3" in name or "modules_to_save" in name:
            torch.nn.init.normal_(weight, mean=1.0, std=0.5)
    adapted.save_pretrained(folder)
    return adapted.eval()


def encoder(folder: Path) -> Any:
    return transformers.AutoModel.from_pretrained(folder, attn_implementation="eager")


def saved_lora(base: Path, folder: Path) -> Path:
    adapt(encoder(base), peft.LoraConfig(**LORA), folder)
    return folder


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_is_merged(kind: str, base: Path, tmp_path: Path) -> None:
    model = adapt(encoder(base), KINDS[kind](), tmp_path / "adapter")
    bundle = export_bundle(tmp_path / "adapter", tmp_path / "bundle", variants=["fp32"]).folder
    with encort.load(bundle, threads=1) as loaded:
        found, plain = loaded.embed_tokens(TEXTS), encoder(base)
        batch = loaded.tokenize(TEXTS)
    for row, states in enumerate(found):
        rows = batch.rows(np.array([row]))
        inputs = {name: torch.from_numpy(rows[name]) for name in ("input_ids", "token_type_ids", "attention_mask")}
        with torch.inference_mode():
            expected = model(**inputs).last_hidden_state[0].numpy()
            assert np.abs(expected - plain(**inputs).last_hidden_state[0].numpy()).max() > 0.01
        np.testing.assert_allclose(states, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", MERGED_KINDS)
def test_every_merged_kind_gives_the_model_of_peft(kind: str, base: Path, tmp_path: Path) -> None:
    kinds = peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING
    if kind not in kinds:
        pytest.skip(f"PEFT {peft.__version__} has no {kind}")
    torch.manual_seed(9)
    config = kinds[kind](**{"target_modules": ["query", "value"], **SETTINGS.get(kind, {})})
    adapted = peft.get_peft_model(encoder(base), config).eval()
    for weight in adapted.parameters():
        if weight.requires_grad:
            weight.data += 0.3 * torch.randn_like(weight)
    adapted.save_pretrained(tmp_path)
    ids = torch.arange(5, 17).reshape(2, 6)
    with torch.inference_mode():
        expected = adapted(ids).last_hidden_state
        assert (expected - encoder(base)(ids).last_hidden_state).abs().max() > 1e-3
        found = Checkpoint.open(str(tmp_path)).model(ids).last_hidden_state
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_a_head_that_was_trained_with_the_adapter_is_a_part_of_it(base: Path, tmp_path: Path) -> None:
    head = transformers.AutoModelForSequenceClassification.from_pretrained(base, num_labels=5)
    model = adapt(head, peft.LoraConfig(**LORA, task_type="SEQ_CLS"), tmp_path / "adapter")
    bundle = export_bundle(tmp_path / "adapter", tmp_path / "bundle", variants=["fp32"])
    assert bundle.manifest.heads[0].labels == [f"LABEL_{number}" for number in range(5)]
    inputs = transformers.AutoTokenizer.from_pretrained(base)(TEXTS[:1], return_tensors="pt")
    with torch.inference_mode():
        expected = model(**inputs).logits.numpy()
    with encort.load(bundle.folder, threads=1) as loaded:
        np.testing.assert_allclose(loaded.logits(TEXTS[:1]), expected, rtol=0, atol=1e-4)
    # Names of labels are not a part of an adapter; a config.json beside it gives them.
    head.config.id2label = dict(enumerate("abcde"))
    head.config.save_pretrained(tmp_path / "adapter")
    assert Checkpoint.open(str(tmp_path / "adapter")).labels == list("abcde")


def test_a_sentence_transformers_folder_may_hold_an_adapter(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers", minversion="6")
    # transformers 5.24 asks for a version of PEFT that is not released yet.
    monkeypatch.setattr("transformers.integrations.peft.check_peft_version", lambda **_: None)
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize

    model = sentence_transformers.SentenceTransformer(str(base), device="cpu", prompts={"query": "the pin "})
    model.append(Dense(model.get_embedding_dimension(), 12)).append(Normalize())
    plain = model.encode(TEXTS)
    torch.manual_seed(9)
    model.add_adapter(peft.LoraConfig(**LORA, task_type="FEATURE_EXTRACTION"))
    model.save_pretrained(str(tmp_path / "adapter"), create_model_card=False)
    assert not (tmp_path / "adapter" / "model.safetensors").exists()
    saved = sentence_transformers.SentenceTransformer(str(tmp_path / "adapter"), device="cpu")
    expected = saved.encode(TEXTS)
    assert np.abs(expected - plain).max() > 0.01
    bundle = export_bundle(tmp_path / "adapter", tmp_path / "bundle", variants=["fp32"]).folder
    with encort.load(bundle, threads=1) as loaded:
        np.testing.assert_allclose(loaded.embed(TEXTS), expected, rtol=0, atol=1e-5)
        queries = saved.encode(TEXTS, prompt_name="query")
        np.testing.assert_allclose(loaded.embed(TEXTS, prompt="query"), queries, rtol=0, atol=1e-5)


@pytest.mark.parametrize("settings", [{"hidden_size": 20}, {"num_hidden_layers": 2}, {"num_hidden_layers": 4}], ids=str)
def test_an_adapter_of_another_base_model_is_refused(
    settings: dict[str, int], base: Path, make_checkpoint: MakeCheckpoint, tmp_path: Path
) -> None:
    folder = saved_lora(base, tmp_path / "adapter")
    edit(folder / "adapter_config.json", base_model_name_or_path=str(make_checkpoint(**settings)))
    with pytest.raises(CheckpointError, match="does not fit its base model"):
        Checkpoint.open(str(folder))


def test_an_adapter_of_another_architecture_is_refused(base: Path, tmp_path: Path) -> None:
    folder = saved_lora(base, tmp_path / "adapter")
    config = transformers.DistilBertConfig(vocab_size=200, dim=40, n_layers=1, n_heads=5, hidden_dim=56)
    transformers.DistilBertModel(config).save_pretrained(tmp_path / "other")
    edit(folder / "adapter_config.json", base_model_name_or_path=str(tmp_path / "other"))
    with pytest.raises(CheckpointError, match="does not fit its base model"):
        Checkpoint.open(str(folder))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base_model_name_or_path": None}, "names no base model"),
        ({"base_model_name_or_path": "/nowhere/base"}, "there is no checkpoint folder /nowhere/base; set it to the"),
        ({"megatron_config": {"a": 1}, "megatron_core": "os"}, "Megatron"),
        ({"peft_type": None}, "peft_type is None, a kind that encort does not merge; it merges kinds"),
        ({"peft_type": ["LORA"]}, r"peft_type is \['LORA'\], a kind that encort does not merge"),
    ],
    ids=str,
)
def test_an_adapter_that_cannot_be_read_is_refused(
    changes: dict[str, Any], message: str, base: Path, tmp_path: Path
) -> None:
    folder = saved_lora(base, tmp_path / "adapter")
    edit(folder / "adapter_config.json", **changes)
    with pytest.raises(CheckpointError, match=message):
        Checkpoint.open(str(folder))


def test_pickled_and_damaged_adapters_are_refused(base: Path, tmp_path: Path) -> None:
    folder = saved_lora(base, tmp_path / "adapter")
    file = folder / "adapter_model.safetensors"
    file.write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=r"adapter_model.safetensors cannot be loaded"):
        Checkpoint.open(str(folder))
    shutil.move(file, folder / "adapter_model.bin")
    with pytest.raises(CheckpointError, match=r"has no adapter_model.safetensors; pickled weights are not read"):
        Checkpoint.open(str(folder))


def test_peft_never_builds_an_adapter_of_another_kind(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some kinds load files that their settings name, anywhere on the machine."""
    folder = saved_lora(base, tmp_path / "adapter")
    monkeypatch.setattr(peft.PeftModel, "from_pretrained", lambda *_, **__: pytest.fail("PEFT was called"))
    others = {kind.value for kind in peft.PeftType} - {*MERGED_KINDS}
    assert {"PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "XLORA"} <= others
    for kind in others:
        edit(folder / "adapter_config.json", peft_type=kind)
        with pytest.raises(CheckpointError, match=f"peft_type is '{kind}', a kind that encort does not merge"):
            Checkpoint.open(str(folder))


def test_an_adapter_needs_peft(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = saved_lora(base, tmp_path / "adapter")
    monkeypatch.setattr(
        "encort.runtime.common.extras.find_spec", lambda name: None if name == "peft" else find_spec(name)
    )
    with pytest.raises(MissingExtraError, match=r'pip install "encort\[peft\]"'):
        Checkpoint.open(str(folder))
