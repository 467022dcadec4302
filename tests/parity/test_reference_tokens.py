"""Sentences have the token ids that were published for real vocabularies."""

from pathlib import Path

import pytest

from encort.runtime.text.tokenizer import Tokenizer
from tests.builders import bert_tokenizer

KCBERT = Path(__file__).parents[2] / "examples/kcbert/vocab.txt"


def tokenizer_of(words: list[str], folder: Path, *, lowercase: bool, max_length: int) -> Tokenizer:
    bert_tokenizer(words, do_lower_case=lowercase).save_pretrained(folder)
    return Tokenizer((folder / "tokenizer.json").read_bytes(), max_length=max_length)


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("안녕하세요", [2, 19017, 8482, 3]),
        ("하이!", [2, 15830, 5, 3]),
        (
            "안녕Hugging Face는 인공지능(AI)과 자연어 처리(NLP) 분야에서 "
            "혁신적인 도구와 모델을 제공하는 AI 스타트업이다.",
            [2, 19017, 5121, 4223, 4403, 4403, 18940, 39, 4243, 3],
        ),
        (
            "2016년에 설립된 이 회사는 주로 오픈소스 라이브러리와 사전 학습된 NLP 모델을 제공을 제공한다.",
            [2, 26182, 4113, 20684, 4130, 2451, 22088, 20002, 15999, 3],
        ),
    ],
)
def test_korean_texts_have_the_ids_of_kcbert(text: str, ids: list[int], tmp_path: Path) -> None:
    tokenizer = tokenizer_of(KCBERT.read_text(encoding="utf-8").splitlines(), tmp_path, lowercase=False, max_length=10)
    batch = tokenizer([text])
    assert batch.ids.tolist() == ids
    assert batch.type_ids.tolist() == [0] * len(ids)


def test_an_english_text_has_the_ids_of_bert_base_uncased(tmp_path: Path) -> None:
    # The ids of bert-base-uncased for these words. The other rows of its vocabulary do not matter here.
    known = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]"}
    known |= {1012: ".", 1037: "a", 1045: "i", 2572: "am", 2879: "boy"}
    words = [known.get(row, f"[unused{row}]") for row in range(3000)]
    tokenizer = tokenizer_of(words, tmp_path, lowercase=True, max_length=512)
    assert tokenizer(["I am a boy."]).ids.tolist() == [101, 1045, 2572, 1037, 2879, 1012, 102]
