"""What every system of the race speaks: one JSON line in, one JSON line out, each in its own process.

    python PEER.py prepare VARIANT CHECKPOINT FOLDER TEXTS.json    makes what it serves, once, in FOLDER
    python PEER.py serve VARIANT CHECKPOINT FOLDER THREADS         answers requests until its input ends

It says first what it is, `{"versions": {...}}`, when it has embedded a first text. A request is
`{"calls": [[text, ...], ...], "output": FILE or null}`: each call embeds its texts, tokenization included, and is timed
by itself. The answer is `{"seconds": [...], "peak_mib": ...}`, with the embeddings of all calls in FILE, `(texts,
dim)` float32. A failure is `{"error": "..."}`.

This file and its neighbours but one import nothing of encort: they run where encort is not installed.
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
"""Texts to `(texts, dim)` float32, in their order."""
Load = Callable[[str, Path, Path, int], Embed]
"""Variant, checkpoint, prepared folder and threads to what embeds."""
Prepare = Callable[[str, Path, Path, list[str]], None]
"""Variant, checkpoint, folder to fill, and texts to calibrate on."""

BATCH = 8
"""Texts a batch, for systems that leave it to their user: of 4, 8, 16, 32 and 64 the fastest, or within 6 % of it, for
MiniLM on two cores of a Xeon with AMX. The usual 32 was slower for all of them."""


def main(load: Load, *, packages: Sequence[str], prepare: Prepare | None = None) -> None:
    """Do what the command line says.

    Args:
        packages: Whose versions are told.
    """
    answers = _only_answers_on_stdout()
    mode, variant, checkpoint, folder, last = sys.argv[1:]
    try:
        if mode == "prepare":
            if prepare is not None:
                prepare(variant, Path(checkpoint), Path(folder), json.loads(Path(last).read_text(encoding="utf-8")))
            return
        os.environ["RAYON_NUM_THREADS"] = last  # of Hugging Face's tokenizers
        embed = load(variant, Path(checkpoint), Path(folder), int(last))
        embed(["the first text, which may be slow"])
        _say(answers, versions={name: version(name) for name in packages})
        for line in sys.stdin:
            _say(answers, **_answer(embed, json.loads(line)))
    except Exception as error:
        _say(answers, error=f"{type(error).__name__}: {error}")
        raise


def _answer(embed: Embed, request: Any) -> dict[str, Any]:
    seconds, found = [], []
    for texts in request["calls"]:
        begin = time.perf_counter()
        found.append(np.asarray(embed(texts), np.float32))
        seconds.append(time.perf_counter() - begin)
    if request["output"] is not None:
        np.save(request["output"], np.concatenate(found))
    return {"seconds": seconds, "peak_mib": _peak_mib()}


def _peak_mib() -> float:
    """Most memory of this process; `getrusage` would count that of the process which started it."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def _only_answers_on_stdout() -> Any:
    """The real standard output; whatever a library prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def _say(answers: Any, **words: Any) -> None:
    answers.write(json.dumps(words) + "\n")
    answers.flush()


def max_length(checkpoint: Path) -> int:
    """Most tokens of a text, by the checkpoint's sentence-transformers files."""
    return int(json.loads((checkpoint / "sentence_bert_config.json").read_text(encoding="utf-8"))["max_seq_length"])


def fast_tokenizer(checkpoint: Path) -> Any:
    """Hugging Face's tokenizer that cuts texts at the limit and pads nothing."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length(checkpoint))
    return tokenizer


def padded(encodings: Sequence[Any]) -> dict[str, Any]:
    """Inputs of a BERT graph from what `fast_tokenizer` gave, each `(batch, sequence)` int64."""
    longest = max(len(each) for each in encodings)
    for each in encodings:
        each.pad(longest)
    return {
        "input_ids": np.array([each.ids for each in encodings]),
        "attention_mask": np.array([each.attention_mask for each in encodings]),
        "token_type_ids": np.array([each.type_ids for each in encodings]),
    }


def mean_pooled(hidden: Any, mask: Any) -> Any:
    """Sentence embeddings of length 1 by the mean of the tokens that count.

    Args:
        hidden: `(batch, sequence, dim)`, an array of numpy or a tensor of torch.
        mask: `(batch, sequence)`, 1 on tokens that count, of the same dtype.
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
    """Embeddings by batches of that size, in the order in which the items come or, with lengths, the longest first.

    Args:
        items: Texts, or what a tokenizer made of them.
        over: `map`, or that of a pool of threads.
    """
    order = np.arange(len(items)) if lengths is None else np.argsort(-np.asarray(lengths), kind="stable")
    batches = [[items[i] for i in order[start : start + size]] for start in range(0, len(items), size)]
    found = np.concatenate([np.asarray(part) for part in over(run, batches)])
    result = np.empty_like(found)
    result[order] = found
    return result
