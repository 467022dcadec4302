"""SQuAD's JSON: articles of paragraphs of questions."""

from collections.abc import Iterator
from typing import Any

from encort.runtime.common.tables.lines import Row


def is_squad(content: Any) -> bool:
    """Return whether JSON has the form of SQuAD (Rajpurkar et al. 2016): a list `data` of articles."""
    articles = content.get("data") if isinstance(content, dict) else None
    return isinstance(articles, list) and any(isinstance(item, dict) and "paragraphs" in item for item in articles)


def squad_rows(content: Any) -> Iterator[Row]:
    """Yield questions as `id`, `question`, `context`, `answers` and `is_impossible`.

    `answers` is a dict of the lists `text` and `answer_start`. It is None where the file has none, as is
    `is_impossible`, which only SQuAD 2 has.

    Raises:
        KeyError, TypeError, ValueError: The content does not have the form of SQuAD.
    """
    for article in content["data"]:
        for paragraph in article["paragraphs"]:
            for item in paragraph["qas"]:
                yield {
                    "id": str(item.get("id", "")),
                    "question": item["question"],
                    "context": paragraph["context"],
                    "answers": _columns(item.get("answers")),
                    "is_impossible": item.get("is_impossible"),
                }


def _columns(answers: Any) -> dict[str, list[Any]] | None:
    if answers is None:
        return None
    return {name: [answer[name] for answer in answers] for name in ("text", "answer_start")}
