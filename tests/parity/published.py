"""NomicBERT, GTE and jina-embeddings-v3 with the names of weights and settings of their authors, in eager PyTorch.

Written after `nomic-ai/nomic-bert-2048` (modeling_hf_nomic_bert.py), `Alibaba-NLP/new-impl` (modeling.py) and
`jinaai/xlm-roberta-flash-implementation` (modeling_lora.py), with the formulas of the papers alone, so that nothing of
transformers is in this oracle.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import embedding, gelu, layer_norm, linear, silu

Weights = Mapping[str, Tensor]
TASKS, RANK = ["retrieval.query", "text-matching"], 2
"""Tasks of jina-embeddings-v3, and the rank of their adapters."""
HIDDEN, LAYERS, HEADS, INNER = 48, 2, 3, 256
"""Sizes. NomicBERT widens its feed-forward layers to a multiple of 256."""


def nomic_bert_settings(**changes: Any) -> dict[str, Any]:
    """Return `config.json` with the names of GPT-2, as nomic-embed-text-v1.5 has it."""
    return {
        "model_type": "nomic_bert",
        "architectures": ["NomicBertModel"],
        "auto_map": {"AutoModel": "nomic-ai/nomic-bert-2048--modeling_hf_nomic_bert.NomicBertModel"},
        **{"n_embd": HIDDEN, "n_layer": LAYERS, "n_head": HEADS, "n_inner": INNER - 6, "n_positions": 90},
        **{"activation_function": "swiglu", "layer_norm_epsilon": 1e-3, "type_vocab_size": 2},
        **{"rotary_emb_base": 1000, "rotary_emb_fraction": 1.0, "rotary_emb_interleaved": False},
        **{"rotary_emb_scale_base": None, "rotary_scaling_factor": None, "pad_vocab_size_multiple": 64},
        **{"qkv_proj_bias": False, "mlp_fc1_bias": False, "mlp_fc2_bias": False, "prenorm": False, "causal": False},
        **{"use_flash_attn": True, "use_rms_norm": False, "max_trained_positions": 2048, "vocab_size": 150},
        **changes,
    }


def nomic_bert_weights() -> dict[str, Tensor]:
    """Return seeded weights by the names of the published files."""
    seeded = _Seeded()
    # 150 tokens, widened to a multiple of 64.
    seeded.table("embeddings.word_embeddings", 192)
    seeded.table("embeddings.token_type_embeddings", 2)
    seeded.norm("emb_ln")
    for number in range(LAYERS):
        layer = f"encoder.layers.{number}"
        seeded.linear(f"{layer}.attn.Wqkv", HIDDEN, 3 * HIDDEN)
        seeded.linear(f"{layer}.attn.out_proj", HIDDEN, HIDDEN)
        seeded.linear(f"{layer}.mlp.fc11", HIDDEN, INNER)
        seeded.linear(f"{layer}.mlp.fc12", HIDDEN, INNER)
        seeded.linear(f"{layer}.mlp.fc2", INNER, HIDDEN)
        seeded.norm(f"{layer}.norm1")
        seeded.norm(f"{layer}.norm2")
    return seeded.weights


def nomic_bert(weights: Weights, ids: Tensor, *, epsilon: float = 1e-3, base: float = 1000.0) -> Tensor:
    """Return the hidden states of one text, `(sequence, hidden)`, from its ids, `(sequence,)`."""
    inverse = base ** -(torch.arange(0, HIDDEN // HEADS, 2) / (HIDDEN // HEADS))
    rows = embedding(ids, weights["embeddings.word_embeddings.weight"])
    x = _norm(weights, "emb_ln", rows + weights["embeddings.token_type_embeddings.weight"][0], epsilon)
    for number in range(LAYERS):
        layer = f"encoder.layers.{number}"
        context = _attend(_linear(weights, f"{layer}.attn.Wqkv", x).chunk(3, -1), inverse)
        x = _norm(weights, f"{layer}.norm1", x + _linear(weights, f"{layer}.attn.out_proj", context), epsilon)
        up, gate = (_linear(weights, f"{layer}.mlp.{name}", x) for name in ("fc11", "fc12"))
        x = _norm(weights, f"{layer}.norm2", x + _linear(weights, f"{layer}.mlp.fc2", up * silu(gate)), epsilon)
    return x


def gte_settings(**changes: Any) -> dict[str, Any]:
    """Return `config.json` as gte-base-en-v1.5 has it: no token types, and fixed NTK scaling of rotary positions."""
    return {
        "model_type": "new",
        "architectures": ["NewModel"],
        "auto_map": {"AutoModel": "Alibaba-NLP/new-impl--modeling.NewModel"},
        **{"hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS},
        **{"intermediate_size": 70, "max_position_embeddings": 90, "type_vocab_size": 0, "vocab_size": 150},
        **{"layer_norm_type": "layer_norm", "layer_norm_eps": 2e-3, "hidden_act": "gelu", "pad_token_id": 0},
        **{"position_embedding_type": "rope", "rope_theta": 500.0, "rope_scaling": {"type": "ntk", "factor": 2.0}},
        **{"pack_qkv": True, "unpad_inputs": False, "use_memory_efficient_attention": False},
        **{"logn_attention_scale": False, "logn_attention_clip1": False},
        **changes,
    }


def gte_weights(*, prefix: str = "", types: int = 0) -> dict[str, Tensor]:
    """Return seeded weights by the names of the published files; models with a head have the prefix `new.`."""
    seeded = _Seeded()
    seeded.table("embeddings.word_embeddings", 150)
    if types:
        seeded.table("embeddings.token_type_embeddings", types)
    seeded.norm("embeddings.LayerNorm")
    for number in range(LAYERS):
        layer = f"encoder.layer.{number}"
        seeded.linear(f"{layer}.attention.qkv_proj", HIDDEN, 3 * HIDDEN, has_bias=True)
        seeded.linear(f"{layer}.attention.o_proj", HIDDEN, HIDDEN, has_bias=True)
        seeded.linear(f"{layer}.mlp.up_gate_proj", HIDDEN, 140)
        seeded.linear(f"{layer}.mlp.down_proj", 70, HIDDEN, has_bias=True)
        seeded.norm(f"{layer}.attn_ln")
        seeded.norm(f"{layer}.mlp_ln")
    return {f"{prefix}{name}": weight for name, weight in seeded.weights.items()}


def gte(weights: Weights, ids: Tensor, *, theta: float = 500.0, factor: float = 2.0) -> Tensor:
    """Return the hidden states of one text, `(sequence, hidden)`, from its ids, `(sequence,)`."""
    size = HIDDEN // HEADS
    inverse = (theta * factor) ** -(torch.arange(0, size, 2) / size) / factor ** (2 / size)
    x = embedding(ids, weights["embeddings.word_embeddings.weight"])
    if "embeddings.token_type_embeddings.weight" in weights:
        x = x + weights["embeddings.token_type_embeddings.weight"][0]
    x = _norm(weights, "embeddings.LayerNorm", x, 2e-3)
    for number in range(LAYERS):
        layer = f"encoder.layer.{number}"
        context = _attend(_linear(weights, f"{layer}.attention.qkv_proj", x).chunk(3, -1), inverse)
        x = _norm(weights, f"{layer}.attn_ln", x + _linear(weights, f"{layer}.attention.o_proj", context), 2e-3)
        up, gate = _linear(weights, f"{layer}.mlp.up_gate_proj", x).chunk(2, -1)
        x = _norm(weights, f"{layer}.mlp_ln", x + _linear(weights, f"{layer}.mlp.down_proj", up * gelu(gate)), 2e-3)
    return x


def jina_settings(**changes: Any) -> dict[str, Any]:
    """Return `config.json` as jina-embeddings-v3 has it, with two tasks."""
    return {
        "model_type": "xlm-roberta",
        "architectures": ["XLMRobertaModel"],
        "auto_map": {"AutoModel": "jinaai/xlm-roberta-flash-implementation--modeling_lora.XLMRobertaLoRA"},
        **{"hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "hidden_act": "gelu"},
        **{"intermediate_size": 70, "max_position_embeddings": 90, "type_vocab_size": 1, "vocab_size": 150},
        **{"layer_norm_eps": 2e-3, "pad_token_id": 0, "position_embedding_type": "rotary", "rotary_emb_base": 700.0},
        **{"lora_adaptations": TASKS, "lora_alpha": 3, "lora_rank": RANK, "load_trained_adapters": True},
        **{"use_flash_attn": True, "emb_pooler": "mean", "task_instructions": dict.fromkeys(TASKS, "")},
        **changes,
    }


def jina_weights() -> dict[str, Tensor]:
    """Return seeded weights by the names of the published files."""
    seeded = _Seeded()
    seeded.adapted_table("roberta.embeddings.word_embeddings", 150)
    seeded.adapted_table("roberta.embeddings.token_type_embeddings", 1)
    seeded.norm("roberta.emb_ln")
    for number in range(LAYERS):
        layer = f"roberta.encoder.layers.{number}"
        seeded.adapted_linear(f"{layer}.mixer.Wqkv", HIDDEN, 3 * HIDDEN)
        seeded.adapted_linear(f"{layer}.mixer.out_proj", HIDDEN, HIDDEN)
        seeded.adapted_linear(f"{layer}.mlp.fc1", HIDDEN, 70)
        seeded.adapted_linear(f"{layer}.mlp.fc2", 70, HIDDEN)
        seeded.norm(f"{layer}.norm1")
        seeded.norm(f"{layer}.norm2")
    seeded.adapted_linear("roberta.pooler.dense", HIDDEN, HIDDEN)
    return seeded.weights


def jina(weights: Weights, ids: Tensor, *, task: int | None) -> Tensor:
    """Return the hidden states of one text, `(sequence, hidden)`, from its ids, `(sequence,)`."""

    def adapted(name: str, x: Tensor) -> Tensor:
        parts = f"roberta.{name}.parametrizations.weight"
        result = linear(x, weights[f"{parts}.original"], weights[f"roberta.{name}.bias"])
        if task is None:
            return result
        down, up = weights[f"{parts}.0.lora_A"][task], weights[f"{parts}.0.lora_B"][task]
        return result + linear(linear(x, down), up) * 3 / RANK

    def rows(name: str, numbers: Tensor) -> Tensor:
        parts = f"roberta.embeddings.{name}.parametrizations.weight"
        result = embedding(numbers, weights[f"{parts}.original"])
        if task is None:
            return result
        return result + weights[f"{parts}.0.lora_A"][task][numbers] @ weights[f"{parts}.0.lora_B"][task] * 3 / RANK

    size = HIDDEN // HEADS
    inverse = 700.0 ** -(torch.arange(0, size, 2) / size)
    x = rows("word_embeddings", ids) + rows("token_type_embeddings", torch.zeros_like(ids))
    x = _norm(weights, "roberta.emb_ln", x, 2e-3)
    for number in range(LAYERS):
        layer = f"encoder.layers.{number}"
        context = _attend(adapted(f"{layer}.mixer.Wqkv", x).chunk(3, -1), inverse)
        x = _norm(weights, f"roberta.{layer}.norm1", x + adapted(f"{layer}.mixer.out_proj", context), 2e-3)
        inner = adapted(f"{layer}.mlp.fc2", gelu(adapted(f"{layer}.mlp.fc1", x)))
        x = _norm(weights, f"roberta.{layer}.norm2", x + inner, 2e-3)
    return x


def save(folder: Path, settings: Mapping[str, Any], weights: Weights) -> Path:
    """Write a folder as it is published, without its tokenizer."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(settings))
    save_file(dict(weights), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


class _Seeded:
    """Seeded weights."""

    def __init__(self) -> None:
        self.weights: dict[str, Tensor] = {}
        self._random = torch.Generator().manual_seed(0)

    def table(self, name: str, rows: int) -> None:
        self.weights[f"{name}.weight"] = self._normal(rows, HIDDEN)

    def linear(self, name: str, inputs: int, outputs: int, *, has_bias: bool = False) -> None:
        self.weights[f"{name}.weight"] = self._normal(outputs, inputs)
        if has_bias:
            self.weights[f"{name}.bias"] = self._normal(outputs)

    def adapted_table(self, name: str, rows: int) -> None:
        self.weights[f"{name}.parametrizations.weight.original"] = self._normal(rows, HIDDEN)
        self.weights[f"{name}.parametrizations.weight.0.lora_A"] = self._normal(len(TASKS), rows, RANK)
        self.weights[f"{name}.parametrizations.weight.0.lora_B"] = self._normal(len(TASKS), RANK, HIDDEN)

    def adapted_linear(self, name: str, inputs: int, outputs: int) -> None:
        self.weights[f"{name}.parametrizations.weight.original"] = self._normal(outputs, inputs)
        self.weights[f"{name}.parametrizations.weight.0.lora_A"] = self._normal(len(TASKS), RANK, inputs)
        self.weights[f"{name}.parametrizations.weight.0.lora_B"] = self._normal(len(TASKS), outputs, RANK)
        self.weights[f"{name}.bias"] = self._normal(outputs)

    def norm(self, name: str) -> None:
        self.weights[f"{name}.weight"] = 1 + self._normal(HIDDEN)
        self.weights[f"{name}.bias"] = self._normal(HIDDEN)

    def _normal(self, *shape: int) -> Tensor:
        return 0.3 * torch.randn(*shape, generator=self._random)


def _linear(weights: Weights, name: str, x: Tensor) -> Tensor:
    return linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))


def _norm(weights: Weights, name: str, x: Tensor, epsilon: float) -> Tensor:
    return layer_norm(x, (HIDDEN,), weights[f"{name}.weight"], weights[f"{name}.bias"], epsilon)


def _attend(projections: tuple[Tensor, ...], inverse: Tensor) -> Tensor:
    """Return attention over all tokens, with rotary positions of these inverse frequencies."""
    query, key, value = (x.unflatten(-1, (HEADS, -1)).transpose(0, 1) for x in projections)
    query, key = _rotate(query, inverse), _rotate(key, inverse)
    scores = query @ key.transpose(1, 2) / math.sqrt(query.shape[-1])
    return (scores.softmax(-1) @ value).transpose(0, 1).flatten(1)


def _rotate(x: Tensor, inverse: Tensor) -> Tensor:
    """Turn value `i` and value `i + size / 2` of each head as one complex number."""
    first, second = x.chunk(2, -1)
    turned = torch.complex(first, second) * torch.exp(1j * torch.outer(torch.arange(x.shape[1]), inverse))
    return torch.cat([turned.real, turned.imag], -1)
