"""The names of tags tell which of them begin, continue and end spans."""

import pytest

from encort.runtime.common.tag_schemes import TagScheme, TagSchemeError


def spans(text: str, names: str = "") -> list[str]:
    """Return the spans of tags as label and words, such as `LOC 0-1`."""
    tags = text.split()
    scheme = TagScheme([*tags, *names.split()])
    runs: list[list[int]] = []
    for number, name in enumerate(tags):
        tag = scheme.tags[name]
        if number and tag.continues(scheme.tags[tags[number - 1]]):
            runs[-1].append(number)
        elif tag.label is not None:
            runs.append([number])
    return [f"{scheme.tags[tags[run[0]]].label} {run[0]}-{run[-1]}" for run in runs]


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("B-LOC I-LOC O B-LOC B-LOC", ["LOC 0-1", "LOC 3-3", "LOC 4-4"]),
        ("b-loc i-loc o", ["loc 0-1"]),
        ("B_LOC I_LOC O", ["LOC 0-1"]),
        ("LOC-B LOC-I O LOC-B", ["LOC 0-1", "LOC 3-3"]),
        ("loc_b loc_i o", ["loc 0-1"]),
        ("B:LOC I:LOC", ["LOC 0-1"]),
        ("S-LOC S-LOC B-LOC I-LOC E-LOC I-LOC", ["LOC 0-0", "LOC 1-1", "LOC 2-4", "LOC 5-5"]),
        ("U-LOC B-LOC L-LOC I-LOC", ["LOC 0-0", "LOC 1-2", "LOC 3-3"]),
        ("B-LOC M-LOC E-LOC W-LOC", ["LOC 0-2", "LOC 3-3"]),
        ("LOC_S LOC_B LOC_E LOC_E", ["LOC 0-0", "LOC 1-2", "LOC 3-3"]),
        ("I-LOC I-LOC O I-PER", ["LOC 0-1", "PER 3-3"]),
        ("LOC LOC O PER", ["LOC 0-1", "PER 3-3"]),
        ("B-GPE-NAM I-GPE-NAM", ["GPE-NAM 0-1"]),
        ("B-E-MAIL I-E-MAIL B-LOC", ["E-MAIL 0-1", "LOC 2-2"]),
        ("B-12_B B-12_I LOC_B", ["B-12 0-1", "LOC 2-2"]),
        ("E-MAIL E-MAIL PHONE", ["E-MAIL 0-1", "PHONE 2-2"]),
        ("S-LOC S-LOC S-PER O", ["LOC 0-0", "LOC 1-1", "PER 2-2"]),
        ("LOC_u o LOC_u", ["LOC 0-0", "LOC 2-2"]),
        ("S-BAHN U-BAHN U-BAHN", ["S-BAHN 0-0", "U-BAHN 1-2"]),
        ("S-LOC PER", ["S-LOC 0-0", "PER 1-1"]),
        ("Börse O", ["Börse 0-0"]),
        ("O B-LOC [CLS] X", ["LOC 1-1"]),
        ("LABEL_0 LABEL_1", ["LABEL_0 0-0", "LABEL_1 1-1"]),
        ("O O", []),
    ],
)
def test_spans_of_every_scheme(tags: str, expected: list[str]) -> None:
    assert spans(tags) == expected


@pytest.mark.parametrize(
    ("tags", "shown"),
    [("O B-LOC PER", "B-LOC and PER"), ("b-loc I-LOC ORG", "b-loc and ORG"), ("LOC_I PER", "LOC_I and PER")],
)
def test_tags_of_no_known_scheme_are_refused(tags: str, shown: str) -> None:
    with pytest.raises(TagSchemeError, match=shown):
        TagScheme(tags.split())


def test_positions_without_labels_are_refused() -> None:
    with pytest.raises(TagSchemeError, match="B, I have positions, but no label; add one to each, such as B-NAME"):
        TagScheme(["O", "B", "I"])


@pytest.mark.parametrize(
    ("names", "name", "expected"),
    [
        ("B-X I-X", "B-X", "B-X I-X I-X"),
        ("B-X I-X", "I-X", "I-X I-X I-X"),
        ("b_x i_x", "b_x", "b_x i_x i_x"),
        ("X-B X-I", "X-B", "X-B X-I X-I"),
        ("S-X B-X I-X E-X", "S-X", "B-X I-X E-X"),
        ("S-X B-X I-X E-X", "E-X", "I-X I-X E-X"),
        ("S-X B-X I-X E-X", "B-X", "B-X I-X I-X"),
        ("U-X B-X", "U-X", "B-X I-X L-X"),
        ("W-X B-X M-X E-X", "W-X", "B-X M-X E-X"),
        ("I-X", "I-X", "I-X I-X I-X"),
        ("X", "X", "X X X"),
        ("B-X", "O", "O O O"),
    ],
)
def test_the_parts_of_a_word_make_the_span_of_the_word(names: str, name: str, expected: str) -> None:
    scheme = TagScheme([*names.split(), "O"])
    assert scheme.split(name, 3) == expected.split()
    assert scheme.split(name, 1) == [name]
