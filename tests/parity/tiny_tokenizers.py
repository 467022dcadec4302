"""Difficult texts, and small tokenizers of every kind, made in code."""

import unicodedata
from pathlib import Path
from typing import Any

import tokenizers
import transformers
from tokenizers import models, normalizers, pre_tokenizers, processors

from tests.builders import bert_tokenizer

DIFFICULT = [
    "",
    " ",
    "\t\n\r\x0b\x0c\u0085\u2028\u2029",
    "hello my card is lost",
    "Hello, MY Card!",
    "👨‍👩‍👧‍👦 👍🏽 🏳️‍🌈 🇰🇷 ❤️",
    "😀" * 40,
    "שלום עולם مرحبا بالعالم \u202eabc\u202c",
    "e\u0301 é n\u0303o\u0308 " + "a" + "\u0301" * 30,
    "\u0301\u0308 \u20dd",
    "中文字符 漢字 かな カナ ﾊﾝｶｸ \uff46\uff55\uff4c\uff4c",
    "中文" * 60,
    "안녕하세요 하이 \u1112\u1161\u11ab 각힣",
    "a\0b \0 c",
    "\x01\x7f\u200b\u200d\ufeff\ufffd\u00ad",
    "[MASK] [CLS] [SEP] [PAD] [UNK] my[MASK]card [mask] [MASK ]",
    "<mask> <s> </s> <pad> <unk> my <mask>card<mask> <MASK> < mask>",
    "[MASK]" * 30 + "<mask>" * 30,
    "   my   card   <mask>   [MASK]   ",
    "a" * 99 + " " + "b" * 100 + " " + "c" * 101 + " " + "d" * 5000,
    "1234567890 3.14 1,000 ½ ² Ⅷ ①",
    "don't we'll I'M it's o'clock --- ... ?!?!",
    "Straße ΣΑΣ ΌΣΟΣ İstanbul \u0131I ﬁne Ǆ ǆ",
    "my_card@bank.com https://example.com/?q=안녕#x",
    "▁my ▁ card Ġmy ##ing",
    "\U0010ffff \U000e0041 \ue000 \ufdd0 \uffff",
    "the card " * 100,
]
PAIRS = [
    ("", ""),
    ("", "my card is lost"),
    ("my card is lost", ""),
    ("hello?", "the card " * 60),
    ("the card " * 60, "hello?"),
    ("the card " * 60, "my pin " * 60),
    ("my <mask> card", "[MASK] is lost"),
    *zip(DIFFICULT, reversed(DIFFICULT), strict=True),
]
CORPUS = ["hello my card is lost", "안녕하세요 하이", "the card changed, playing played", "é 😀 中文", *DIFFICULT[4:16]]


def bert(vocabulary: list[str], *, lowercase: bool, **settings: Any) -> Any:
    characters = "".join(DIFFICULT)
    letters = sorted({*characters, *characters.lower(), *unicodedata.normalize("NFD", characters)} - {*" \n\t\r\0"})
    letters = [letter for letter in letters if letter.isprintable()]
    rows = dict.fromkeys([*vocabulary, "Hello", "MY", "##ß", *letters, *(f"##{letter}" for letter in letters)])
    return bert_tokenizer(list(rows), do_lower_case=lowercase, **settings)


def roberta(folder: Path, **settings: Any) -> Any:
    trained = tokenizers.ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trained.train_from_iterator(CORPUS, vocab_size=340, min_frequency=1, special_tokens=special)
    trained.save_model(str(folder))
    return transformers.RobertaTokenizerFast.from_pretrained(folder, **settings)


def xlm_roberta() -> Any:
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    words = ["▁", "▁hello", "▁card", "▁my", "▁the", "lost", "▁안녕", "하세요", "▁하이", "中文", "ing", "<mask>"]
    letters = sorted({letter for letter in "".join(CORPUS) if letter.isprintable()} - {" ", "▁", "😀"})
    scores = [*((word, 0.0) for word in special), *((word, -2.0 - number / 8) for number, word in enumerate(words))]
    scores += [(letter, -9.0 - number / 100) for number, letter in enumerate(letters)]
    backend = tokenizers.Tokenizer(models.Unigram(scores, unk_id=3))
    backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(tokenizers.Regex(" {2,}"), " ")])
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    backend.post_processor = processors.TemplateProcessing(
        single=["<s>", "$A", "</s>"],
        pair=["<s>", "$A", "</s>", "</s>", "$B", "</s>"],
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    return transformers.XLMRobertaTokenizerFast(tokenizer_object=backend)
