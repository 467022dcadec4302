from encort.export.verification.samples import sample_pairs, sample_texts


def test_there_are_forty_different_texts() -> None:
    assert len(sample_texts()) == len(set(sample_texts())) == 40


def test_there_are_ten_different_pairs_of_them() -> None:
    assert len(sample_pairs()) == len(set(sample_pairs())) == 10
    assert {text for pair in sample_pairs() for text in pair} <= set(sample_texts())


def test_no_text_is_blank() -> None:
    assert all(text.strip() for text in sample_texts())


def test_texts_are_short_and_long_and_in_several_languages() -> None:
    lengths = sorted(map(len, sample_texts()))
    assert lengths[0] <= 5
    assert lengths[-1] >= 500
    assert any(not text.isascii() for text in sample_texts())
