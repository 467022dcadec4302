"""Lines of the command line cannot steer the terminal."""

import io
import logging

import pytest

from encort.runtime.common.output.terminal import echo, log_to_stderr


def test_lines_are_printed_with_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    echo("one\x1b[31m\r\ntwo\x9b\udcff")
    echo("wrong\x07", err=True)
    assert capsys.readouterr() == ("one\\x1b[31m\\x0d\ntwo\\x9b\\udcff\n", "wrong\\x07\n")


def test_warnings_are_printed_once_on_the_stderr_of_the_time(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = logging.getLogger("encort")
    monkeypatch.setattr(logger, "handlers", [])
    with monkeypatch.context() as patch:
        patch.setattr("sys.stderr", io.StringIO())
        log_to_stderr()
    log_to_stderr()
    logger.warning("one line")
    assert capsys.readouterr().err == "one line\n"


def test_warnings_are_printed_with_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("encort")
    before = list(logger.handlers)
    try:
        log_to_stderr()
        logger.warning("the label %s is frequent", "a\x1b]0;b\x07")
    finally:
        logger.handlers[:] = before
    assert capsys.readouterr().err == "the label a\\x1b]0;b\\x07 is frequent\n"
