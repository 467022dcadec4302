"""Records of many inputs, of which some may be bad: they stop the command, are left out, or give an error."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

from encort.runtime.common.errors import InputError
from encort.runtime.corpus.inputs import Input, Record
from encort.runtime.engine.pending import prefetch
from encort.runtime.text.token_batch import Text, TokenBatch

OnError = Literal["fail", "skip", "column"]
"""Handling of inputs that cannot be used: stop with the error, leave the input out, or write its error."""

CHUNK = 1024
"""Inputs that are read at a time: enough to fill micro-batches, few enough that results appear soon."""


@dataclass(kw_only=True)
class RowRunner:
    """Makes records of inputs, in their order.

    Attributes:
        tokenize: Makes a batch of texts; raises `InputError` if one of them cannot be used.
        make_records: Makes one record per text of a batch; raises `InputError` likewise.
        chunk: Inputs that are read at a time.
        on_error: See `OnError`. With `"column"` every record has the field `error`, which is None for good inputs.
        inputs: Number of inputs so far.
        errors: Number of inputs so far that cannot be used.
        first_error: Error of the first of them.
    """

    tokenize: Callable[[Sequence[Text]], TokenBatch]
    make_records: Callable[[TokenBatch], Sequence[Record]]
    on_error: OnError
    chunk: int = field(default_factory=lambda: CHUNK)
    inputs: int = 0
    errors: int = 0
    first_error: InputError | None = None

    def run(self, inputs: Iterable[Input]) -> Iterator[list[Record]]:
        """Yield the records of the next inputs. The inputs behind them are tokenized meanwhile.

        Raises:
            InputError: An input cannot be used, with `on_error="fail"`; or the inputs cannot be read any further.
        """
        remaining = iter(inputs)
        chunks = iter(lambda: _Chunk(inputs=list(itertools.islice(remaining, self.chunk))), _Chunk(inputs=[]))
        with ThreadPoolExecutor(max_workers=1) as thread:
            for chunk, batch in prefetch(lambda chunk: thread.submit(self._tokenize, chunk), chunks):
                records = self._make_records(chunk, batch)
                self._count(chunk)
                yield list(self._merge(chunk, records))

    def _tokenize(self, chunk: "_Chunk") -> "tuple[_Chunk, TokenBatch]":
        for number, item in enumerate(chunk.inputs):
            if isinstance(item.value, InputError):
                self._add_error(chunk, number, item.value)
        try:
            return chunk, self.tokenize(chunk.texts)
        except InputError:
            self._find_errors(chunk, self.tokenize)
            return chunk, self.tokenize(chunk.texts)

    def _make_records(self, chunk: "_Chunk", batch: TokenBatch) -> Sequence[Record]:
        try:
            return self.make_records(batch)
        except InputError:
            self._find_errors(chunk, lambda texts: self.make_records(self.tokenize(texts)))
            return self.make_records(self.tokenize(chunk.texts))

    def _find_errors(self, chunk: "_Chunk", attempt: Callable[[Sequence[Text]], object]) -> None:
        """Add the error of each input with which an attempt fails when it is the only one."""
        for number, error in _bisect(chunk, chunk.good, attempt):
            self._add_error(chunk, number, _locate(error, chunk.inputs[number].location))

    def _add_error(self, chunk: "_Chunk", number: int, error: InputError) -> None:
        if self.on_error == "fail":
            raise error
        chunk.errors[number] = error

    def _count(self, chunk: "_Chunk") -> None:
        self.inputs += len(chunk.inputs)
        self.errors += len(chunk.errors)
        if self.first_error is None and chunk.errors:
            self.first_error = chunk.errors[min(chunk.errors)]

    def _merge(self, chunk: "_Chunk", records: Sequence[Record]) -> Iterator[Record]:
        """Yield the records of the good inputs, and those of the errors between them."""
        if self.on_error != "column":
            yield from records
            return
        good = iter(records)
        for number in range(len(chunk.inputs)):
            error = chunk.errors.get(number)
            yield {**next(good), "error": None} if error is None else {"error": str(error)}


@dataclass(kw_only=True)
class _Chunk:
    """Inputs that are run together.

    Attributes:
        inputs: The inputs.
        errors: Errors by the position of the input.
    """

    inputs: Sequence[Input]
    errors: dict[int, InputError] = field(default_factory=dict)

    @property
    def good(self) -> list[int]:
        """Positions of the inputs without an error."""
        return [number for number in range(len(self.inputs)) if number not in self.errors]

    @property
    def texts(self) -> list[Text]:
        """Texts of the inputs without an error."""
        return self.texts_at(self.good)

    def texts_at(self, numbers: Sequence[int]) -> list[Text]:
        """Return the texts at some positions."""
        values = [self.inputs[number].value for number in numbers]
        return [value for value in values if not isinstance(value, InputError)]


def _bisect(
    chunk: _Chunk, numbers: Sequence[int], attempt: Callable[[Sequence[Text]], object]
) -> Iterator[tuple[int, InputError]]:
    """Yield position and error of the inputs with which an attempt fails, in order."""
    try:
        attempt(chunk.texts_at(numbers))
    except InputError as error:
        if len(numbers) == 1:
            yield numbers[0], error
        else:
            middle = len(numbers) // 2
            yield from _bisect(chunk, numbers[:middle], attempt)
            yield from _bisect(chunk, numbers[middle:], attempt)


def _locate(error: InputError, location: str) -> InputError:
    """Return the error of a single text with the location of its input."""
    message = str(error)
    name = "text 0"
    return type(error)(f"{location}{message[len(name) :]}" if message.startswith(name) else f"{location}: {message}")
