"""Markdown shows texts as they are, even if they look like Markdown or HTML."""

import pytest

from encort.runtime.common.output.markdown import Markdown, escape, table


@pytest.mark.parametrize(
    ("text", "markdown"),
    [
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ('<img src="x" onerror=y>', '&lt;img src="x" onerror=y&gt;'),
        ("&lt;b&gt;", "&amp;lt;b&amp;gt;"),
        ("a|b", "a&#124;b"),
        (r"a\|b", r"a\\&#124;b"),
        ("a\nb\r\n  c\u2028d", "a b c d"),
        ("![x](http://host/x.png)", r"![x]\(http://host/x.png)"),
        ("[x][y]", r"[x]\[y]"),
        ("*a* **b** `c` ~~d~~ $e$", r"\*a\* \*\*b\*\* \`c\` \~\~d\~\~ \$e\$"),
        ("card_lost", "card_lost"),
        ("_a_ __b__", r"\_a\_ \_\_b\_\_"),
        ("<!-- end -->", "&lt;!-- end --&gt;"),
        ("\x1b[2J\ud800", r"\\x1b[2J\\ud800"),
        ("안녕 é", "안녕 é"),
        (None, "None"),
        (0.5, "0.5"),
    ],
)
def test_a_text_is_shown_as_it_is(text: object, markdown: str) -> None:
    assert escape(text) == markdown


def test_a_table_has_one_line_per_row() -> None:
    assert table(["a|b", "c"], [["1\n2", 3], ["<b>"], [Markdown("**x**"), None]]) == [
        "| a&#124;b | c |",
        "| --- | --- |",
        "| 1 2 | 3 |",
        "| &lt;b&gt; |  |",
        "| **x** | None |",
    ]
