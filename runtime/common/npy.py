"""An .npy file that grows: rows are appended, and the header says at the end how many there are."""

import io
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray


def npy_header(dtype: np.dtype[Any], rows: int, width: int) -> bytes:
    """Return the header of an array `(rows, width)`. Its length does not depend on the number of rows."""
    header = io.BytesIO()
    # numpy leaves room for the digits of the first axis, so that a file can grow.
    np.lib.format.write_array_header_1_0(
        header, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (rows, width)}
    )
    return header.getvalue()


class NpyRows:
    """Appends rows to a file that is open for writing. `finish` makes it an .npy file."""

    def __init__(self, file: IO[bytes]) -> None:
        """Write into an empty file."""
        self._file, self._rows = file, 0
        self._like: NDArray[Any] | None = None

    def append(self, rows: NDArray[Any]) -> None:
        """Write rows, `(n, width)`, of the dtype and width of the rows before them."""
        if self._like is None:
            self._like = rows[:0]
            self._file.write(npy_header(rows.dtype, 0, rows.shape[1]))
        self._file.write(np.ascontiguousarray(rows).data)
        self._rows += len(rows)

    def finish(self) -> None:
        """Write the number of rows into the header. Something must have been appended, if only no rows."""
        assert self._like is not None, "append no rows to give a width"
        self._file.seek(0)
        self._file.write(npy_header(self._like.dtype, self._rows, self._like.shape[1]))
