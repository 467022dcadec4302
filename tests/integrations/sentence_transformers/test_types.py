"""Types as a user's editor sees them."""

from pathlib import Path

from tests.contract.test_typing import errors_of_a_type_checker

GOOD = """
from typing import Literal

import numpy as np
import torch

import encort
from encort.integrations.sentence_transformers import CrossEncoder, SentenceTransformer

model = SentenceTransformer("my.bundle", device="cpu", prompts={"query": "query: "}, truncate_dim=256)
array: np.ndarray = model.encode(["a", "b"], prompt_name="query", batch_size=64, normalize_embeddings=True)
tensor: torch.Tensor = model.encode("a", convert_to_tensor=True)
tokens: list[torch.Tensor] = model.encode(("a",), output_value="token_embeddings")
queries: np.ndarray = model.encode_query(["a"], precision="binary")
scores: torch.Tensor = model.similarity(array, tensor)
name: Literal["cosine", "dot", "euclidean", "manhattan"] = model.similarity_fn_name
model.max_seq_length = 128
dimension: int = model.get_embedding_dimension()
with model.truncate_embeddings(64):
    model.to("cuda").encode(np.array(["a"]), show_progress_bar=True)
reranker = CrossEncoder(encort.load("my.bundle", threads=2), activation_fn=torch.nn.Sigmoid())
numbers: np.ndarray = reranker.predict([("a", "b")], apply_softmax=True)
best: int = reranker.rank("a", ["b"], top_k=1)[0]["corpus_id"]
"""

BAD = [
    'model.encode(["a"], precision="int4")',
    'model.encode(["a"], output_value="cls")',
    'model.encode(["a"], normalize=True)',
    'number: int = model.encode(["a"])',
    'array: str = model.encode(["a"], convert_to_tensor=True)',
    "model.encode(5)",
    'SentenceTransformer("my.bundle", dimensions=3)',
    'CrossEncoder("my.bundle").predict([("a", "b")], top_k=3)',
    "model.fit()",
]


def test_a_right_script_has_no_type_error(tmp_path: Path) -> None:
    assert errors_of_a_type_checker(GOOD, tmp_path) == []


def test_every_wrong_call_is_a_type_error(tmp_path: Path) -> None:
    imports = "from encort.integrations.sentence_transformers import CrossEncoder, SentenceTransformer"
    source = "\n".join([imports, 'model = SentenceTransformer("my.bundle")', *BAD])
    lines = {line for line, _ in errors_of_a_type_checker(source, tmp_path)}
    assert [BAD[number] for number in range(len(BAD)) if number + 3 not in lines] == []
