"""Folders that were published with code of their own give the results of that code, which is not run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from click.testing import CliRunner

import encort
from encort.export.exporter import export_bundle
from encort.export.source.checkpoint import Checkpoint
from encort.export.verification.against_checkpoint import verify_against_checkpoint
from encort.runtime.cli.main import group
from encort.runtime.common.checkpoints.config import read_settings
from encort.runtime.common.errors import CheckpointError, InputError
from tests.builders import save_tokenizer
from tests.parity import published

TEXTS = ["a", "my card is lost", "change the pin, my pin is lost!", "the card " * 100]
POOLING = "sentence_transformers.models.Pooling"
MODELS: dict[str, tuple[str, dict[str, Any], dict[str, Any], Callable[..., torch.Tensor]]] = {
    "nomic": ("NomicBertConfig", published.nomic_bert_settings(), published.nomic_bert_weights(), published.nomic_bert),
    "gte": ("GteConfig", published.gte_settings(), published.gte_weights(), published.gte),
}


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> tuple[dict[str, Any], dict[str, Any], Callable[..., torch.Tensor]]:
    class_name, *rest = MODELS[request.param]
    if not hasattr(transformers, class_name):
        pytest.skip(f"this transformers has no {class_name}")
    return tuple(rest)


def test_published_folders_give_the_results_of_their_own_code(
    model: tuple[dict[str, Any], dict[str, Any], Callable[..., torch.Tensor]],
    bundle: Callable[[Path], Path],
    tmp_path: Path,
) -> None:
    settings, weights, run = model
    folder = published.save(tmp_path / "published", settings, weights)
    (folder / "modeling.py").write_text("raise SystemExit('this code must not run')")
    save_tokenizer(folder)
    with encort.load(bundle(folder)) as served:
        embeddings = served.embed_tokens(TEXTS)
        ids = [torch.from_numpy(served.tokenize([text]).ids) for text in TEXTS]
    assert len(embeddings[-1]) == 64, "the tokenizer's limit is reached"
    for found, of_text in zip(embeddings, ids, strict=True):
        np.testing.assert_allclose(found, run(weights, of_text), atol=1e-4, rtol=0)


@pytest.mark.skipif(not hasattr(transformers, "GteConfig"), reason="this transformers has no GTE")
def test_a_published_reranker_of_gte_gives_its_scores(bundle: Callable[[Path], Path], tmp_path: Path) -> None:
    settings = published.gte_settings(
        architectures=["NewForSequenceClassification"], id2label={"0": "LABEL_0"}, label2id={"LABEL_0": 0}
    )
    weights = published.gte_weights(prefix="new.")
    random = torch.Generator().manual_seed(1)
    size = published.HIDDEN
    pooler, logits = (0.3 * torch.randn(*shape, generator=random) for shape in ((size, size), (1, size)))
    head = {"new.pooler.dense.weight": pooler, "classifier.weight": logits}
    biases = {"new.pooler.dense.bias": torch.full((size,), 0.2), "classifier.bias": torch.full((1,), -0.4)}
    folder = published.save(tmp_path / "published", settings, {**weights, **head, **biases})
    save_tokenizer(folder)
    pairs = [("is it lost?", "my card is lost"), ("hello", "the card " * 60)]
    with encort.load(bundle(folder)) as model:
        ids = [torch.from_numpy(model.tokenize([pair]).ids) for pair in pairs]
        firsts = torch.stack([published.gte(published.gte_weights(), of_pair)[0] for of_pair in ids])
        expected = torch.tanh(firsts @ pooler.T + 0.2) @ logits.T - 0.4
        np.testing.assert_allclose(model.score(pairs), expected[:, 0], atol=1e-4, rtol=0)


@pytest.mark.skipif(not hasattr(transformers, "GteConfig"), reason="this transformers has no GTE")
def test_heads_of_other_classes_that_the_settings_name_are_left_out(tmp_path: Path) -> None:
    """gte-multilingual-base names NewForTokenClassification too, whose head gives weights of words."""
    settings = published.gte_settings(
        architectures=["NewModel", "NewForTokenClassification"], type_vocab_size=1, id2label={"0": "LABEL_0"}
    )
    head = {"classifier.weight": torch.ones(1, published.HIDDEN), "classifier.bias": torch.zeros(1)}
    weights = {**published.gte_weights(prefix="new.", types=1), **head}
    folder = published.save(tmp_path / "published", settings, weights)
    save_tokenizer(folder)
    assert Checkpoint.open(str(folder)).task == "feature-extraction"
    published.save(folder, {**settings, "architectures": ["NewModel"]}, weights)
    with pytest.raises(CheckpointError, match="has weights that GteModel does not use"):
        Checkpoint.open(str(folder))


@pytest.mark.skipif(not hasattr(transformers, "NomicBertConfig"), reason="this transformers has no NomicBERT")
def test_the_encoder_of_a_published_masked_language_model_is_found(
    bundle: Callable[[Path], Path], tmp_path: Path
) -> None:
    """nomic-bert-2048 has a head that predicts words, and an encoder with the prefix `bert.`."""
    settings = published.nomic_bert_settings(architectures=["NomicBertForPreTraining"])
    weights = published.nomic_bert_weights()
    head = {"cls.predictions.transform.dense.weight": torch.ones(published.HIDDEN, published.HIDDEN)}
    folder = published.save(
        tmp_path / "published", settings, {**{f"bert.{name}": each for name, each in weights.items()}, **head}
    )
    save_tokenizer(folder)
    with encort.load(bundle(folder)) as model:
        ids = torch.from_numpy(model.tokenize(TEXTS[1:2]).ids)
        np.testing.assert_allclose(
            model.embed_tokens(TEXTS[1:2])[0], published.nomic_bert(weights, ids), atol=1e-4, rtol=0
        )


@pytest.mark.skipif(not hasattr(transformers, "JinaEmbeddingsV3Config"), reason="this transformers has no jina v3")
@pytest.mark.parametrize("task", [None, 0, 1])
def test_an_adapter_of_jina_embeddings_v3_is_merged(task: int | None, tmp_path: Path) -> None:
    weights = published.jina_weights()
    folder = published.save(tmp_path / "published", published.jina_settings(), weights)
    modules = [{"path": "", "type": "custom_st.Transformer"}, {"path": "1_Pooling", "type": POOLING}]
    (folder / "modules.json").write_text(json.dumps(modules))
    save_tokenizer(folder)
    adapter = None if task is None else published.TASKS[task]
    made = export_bundle(folder, tmp_path / "b", adapter=adapter, variants=["fp32"])
    with encort.load(made.folder) as model:
        ids = [torch.from_numpy(model.tokenize([text]).ids) for text in TEXTS]
        found = model.embed_tokens(TEXTS)
    for embeddings, of_text in zip(found, ids, strict=True):
        np.testing.assert_allclose(embeddings, published.jina(weights, of_text, task=task), atol=1e-4, rtol=0)


@pytest.mark.skipif(not hasattr(transformers, "JinaEmbeddingsV3Config"), reason="this transformers has no jina v3")
def test_a_bundle_remembers_its_adapter(tmp_path: Path) -> None:
    folder = published.save(tmp_path / "published", published.jina_settings(), published.jina_weights())
    save_tokenizer(folder)
    made = export_bundle(folder, tmp_path / "b", adapter="text-matching", variants=["fp32"])
    assert verify_against_checkpoint(made, folder), "the general model would differ"
    shown = CliRunner().invoke(group, ["inspect", str(made.folder)]).output
    assert f"{folder} (jina_embeddings_v3, with adapter text-matching)" in shown


def test_code_that_chooses_an_adapter_is_accepted_only_where_there_are_adapters(tmp_path: Path) -> None:
    folder = published.save(tmp_path, {"model_type": "bert"}, {})
    (folder / "modules.json").write_text(json.dumps([{"path": "", "type": "custom_st.Transformer"}]))
    with pytest.raises(CheckpointError, match=r"has a module 'custom_st\.Transformer'"):
        Checkpoint.open(str(folder))


@pytest.mark.skipif(not hasattr(transformers, "JinaEmbeddingsV3Config"), reason="this transformers has no jina v3")
def test_an_adapter_that_is_not_there_is_an_error_that_names_the_others(tmp_path: Path) -> None:
    folder = published.save(tmp_path, published.jina_settings(), published.jina_weights())
    with pytest.raises(InputError, match=r"no adapter 'separation'; it has retrieval\.query, text-matching"):
        Checkpoint.open(str(folder), adapter="separation")


REFUSED = [
    (published.jina_settings, "position_embedding_type", "absolute"),
    (published.jina_settings, "lora_rank", 0),
    *((published.nomic_bert_settings, name, value) for name, value in {"prenorm": True, "causal": True}.items()),
    (published.nomic_bert_settings, "rotary_emb_fraction", 0.5),
    (published.nomic_bert_settings, "rotary_scaling_factor", 2),
    (published.nomic_bert_settings, "qkv_proj_bias", True),
    (published.nomic_bert_settings, "activation_function", "gelu"),
    (published.nomic_bert_settings, "moe_every_n_layers", 2),
    (published.gte_settings, "layer_norm_type", "rms_norm"),
    (published.gte_settings, "pack_qkv", False),
    (published.gte_settings, "logn_attention_scale", True),
    (published.gte_settings, "rope_scaling", {"type": "dynamic", "factor": 2.0}),
    (published.gte_settings, "rope_scaling", {"type": "ntk", "factor": 2.0, "mixed_b": 0.5}),
    (published.gte_settings, "rope_scaling", "ntk"),
]


@pytest.mark.parametrize(("settings", "name", "value"), REFUSED)
def test_settings_with_which_transformers_computes_otherwise_are_refused(
    settings: Callable[..., dict[str, Any]], name: str, value: Any, tmp_path: Path
) -> None:
    published.save(tmp_path, settings(**{name: value}), {})
    with pytest.raises(CheckpointError, match=name):
        read_settings(tmp_path)


def test_settings_that_are_left_out_have_the_defaults_of_the_published_code(tmp_path: Path) -> None:
    without = published.nomic_bert_settings()
    del without["rotary_emb_fraction"]  # then there are no rotary positions
    published.save(tmp_path, without, {})
    with pytest.raises(CheckpointError, match=r"rotary_emb_fraction=0\.0"):
        read_settings(tmp_path)


def test_code_that_is_not_known_is_refused_still(tmp_path: Path) -> None:
    folder = published.save(tmp_path, {"model_type": "bert", "auto_map": {"AutoModel": "own.Own"}}, {})
    with pytest.raises(CheckpointError, match="code of its own"):
        Checkpoint.open(str(folder))
