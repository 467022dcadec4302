"""The protocol between the race and its systems: each system reads and writes lines of JSON in its own process.

    python PEER.py prepare VARIANT CHECKPOINT FOLDER TEXTS.json    makes what it serves, once, in FOLDER
    python PEER.py serve VARIANT CHECKPOINT FOLDER THREADS         answers requests until its input ends

The first line comes when the system has embedded a first text: `{"versions": {...}}`. A request is
`{"calls": [[text, ...], ...], "output": FILE or null}`. The system embeds the texts of each call, tokenization
included, and times each call. It answers `{"seconds": [...], "peak_mib": ...}`, and writes the embeddings of all calls
to FILE, `(texts, dim)` float32. A failure is `{"error": "..."}`.

The scripts in this folder import nothing from encort, except encort_runtime.py and drop_in.py: it is not in the
environments of the others.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

Embed = Callable[[list[str]], Any]
"""Takes texts, returns their embeddings `(texts, dim)` float32 in the same order."""
Load = Callable[[str, Path, Path, int], Embed]
"""Takes variant, checkpoint, prepared folder and threads; returns the function that embeds."""
Prepare = Callable[[str, Path, Path, list[str]], None]
"""Takes variant, checkpoint, folder to fill, and texts to calibrate with."""

BATCH = 8
"""Texts per batch, for systems that leave the size to their user.

Of 4, 8, 16, 32 and 64 this was the fastest, or within 6 % of it, for MiniLM on two cores of a Xeon with AMX. The usual
32 was slower for all systems."""


def main(load: Load, *, packages: Sequence[str], prepare: Prepare | None = None) -> None:
    """Run the script's command line.

    Args:
        load: Loads the system.
        packages: Packages whose versions are reported.
        prepare: Makes what the system serves; None if it serves the checkpoint itself.
    """
    answers = _reserve_stdout()
    mode, variant, checkpoint, folder, last = sys.argv[1:]
    try:
        if mode == "prepare":
            if prepare is not None:
                prepare(variant, Path(checkpoint), Path(folder), json.loads(Path(last).read_text(encoding="utf-8")))
            return
        os.environ["RAYON_NUM_THREADS"] = last  # read by Hugging Face's tokenizers
        embed = load(variant, Path(checkpoint), Path(folder), int(last))
        embed(["the first text, which may be slow"])
        _write(answers, versions={name: version(name) for name in packages})
        for line in sys.stdin:
            _write(answers, **_answer(embed, json.loads(line)))
    except Exception as error:
        _write(answers, error=f"{type(error).__name__}: {error}")
        raise


def _answer(embed: Embed, request: Any) -> dict[str, Any]:
    seconds, embeddings = [], []
    for texts in request["calls"]:
        start = time.perf_counter()
        embeddings.append(np.asarray(embed(texts), np.float32))
        seconds.append(time.perf_counter() - start)
    if request["output"] is not None:
        np.save(request["output"], np.concatenate(embeddings))
    return {"seconds": seconds, "peak_mib": _peak_mib()}


def _peak_mib() -> float:
    """Return the peak memory of this process; `getrusage` would count the parent process too."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def _reserve_stdout() -> Any:
    """Return the real standard output, and send everything that libraries print to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def _write(answers: Any, **values: Any) -> None:
    answers.write(json.dumps(values) + "\n")
    answers.flush()


def max_length(checkpoint: Path) -> int:
    """Return the most tokens of a text, from the checkpoint's sentence-transformers files."""
    return int(json.loads((checkpoint / "sentence_bert_config.json").read_text(encoding="utf-8"))["max_seq_length"])


def fast_tokenizer(checkpoint: Path) -> Any:
    """Return Hugging Face's tokenizer, with truncation at the limit and without padding."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length(checkpoint))
    return tokenizer


def padded(encodings: Sequence[Any]) -> dict[str, Any]:
    """Return inputs of a BERT graph, each `(batch, sequence)` int64.

    Args:
        encodings: Encodings by `fast_tokenizer`.
    """
    longest = max(len(encoding) for encoding in encodings)
    for encoding in encodings:
        encoding.pad(longest)
    return {
        "input_ids": np.array([encoding.ids for encoding in encodings]),
        "attention_mask": np.array([encoding.attention_mask for encoding in encodings]),
        "token_type_ids": np.array([encoding.type_ids for encoding in encodings]),
    }


def mean_pooled(hidden: Any, mask: Any) -> Any:
    """Return sentence embeddings of length 1: the normalized mean of the tokens, without padding.

    Args:
        hidden: `(batch, sequence, dim)`, a numpy array or a torch tensor.
        mask: `(batch, sequence)`, 1 on tokens and 0 on padding, of the same dtype.
    """
    mean = (mask[:, None] @ hidden)[:, 0] / mask.sum(1)[:, None]
    return mean / (mean**2).sum(1)[:, None] ** 0.5


def in_batches(
    items: Sequence[Any],
    size: int,
    run: Callable[[Any], Any],
    *,
    lengths: Sequence[int] | None = None,
    over: Callable[..., Any] = map,
) -> Any:
    """Return embeddings that were computed in batches, in the order of the items.

    Args:
        items: Texts, or encodings of a tokenizer.
        size: Items per batch.
        run: Embeds one batch.
        lengths: Length of each item; with it the longest items are batched first, otherwise the order is kept.
        over: `map`, or that of a pool of threads.
    """
    order = np.arange(len(items)) if lengths is None else np.argsort(-np.asarray(lengths), kind="stable")
    batches = [[items[i] for i in order[start : start + size]] for start in range(0, len(items), size)]
    sorted_embeddings = np.concatenate([np.asarray(part) for part in over(run, batches)])
    embeddings = np.empty_like(sorted_embeddings)
    embeddings[order] = sorted_embeddings
    return embeddings
