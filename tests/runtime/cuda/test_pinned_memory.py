"""Memory for one run at a time, and what CUDA is asked for, with a library of the test's in its place."""

import ctypes
import gc
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encort.runtime.cuda import pinned_memory as host_memory
from encort.runtime.cuda.pinned_memory import HostBuffer, ordinary, page_locked

shapes = st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=3), min_size=1, max_size=5)
dtypes = st.sampled_from([np.int32, np.int64, np.float32])


@given(st.data())
def test_arrays_of_a_run_lie_apart(data):
    buffer = HostBuffer(ordinary)
    for _ in range(3):
        specs = {str(number): (shape, data.draw(dtypes)) for number, shape in enumerate(data.draw(shapes))}
        if not buffer.holds(specs):
            buffer.grow(specs)
        assert buffer.holds(specs)
        arrays = buffer.arrays(specs)
        for number, array in enumerate(arrays.values()):
            array[...] = number
        for number, (name, array) in enumerate(arrays.items()):
            assert (list(array.shape), array.dtype) == (specs[name][0], specs[name][1])
            assert (array == number).all()
            assert array.flags.c_contiguous
            assert array.ctypes.data % array.itemsize == 0


def test_memory_is_taken_once_and_grows_by_powers_of_two():
    sizes = []
    buffer = HostBuffer(lambda size: sizes.append(size) or ordinary(size))
    for rows in (100, 50, 128, 129, 256, 1):
        specs = {"a": ((rows,), np.int64)}
        if not buffer.holds(specs):
            buffer.grow(specs)
        assert buffer.arrays(specs)["a"].shape == (rows,)
    assert sizes == [1024, 2048]


def test_what_is_outgrown_is_given_back_first():
    held = []

    def allocate(size):
        assert all(each() is None for each in held)
        memory = ordinary(size)
        held.append(weakref.ref(memory))
        return memory

    buffer = HostBuffer(allocate)
    for rows in (1, 1000):
        buffer.grow({"a": ((rows,), np.int64)})
    assert [each() is None for each in held] == [True, False]


@pytest.fixture
def cuda(monkeypatch):
    """A CUDA runtime that hands out the process's own memory, and remembers it."""
    held, freed = {}, []

    def allocate(pointer, size, flags):
        assert flags == 1
        block = ctypes.create_string_buffer(size.value)
        pointer._obj.value = ctypes.addressof(block)
        held[pointer._obj.value] = block
        return library.status

    asked, names = [], []
    library = SimpleNamespace(
        cudaHostAlloc=allocate,
        cudaFreeHost=lambda pointer: freed.append(pointer.value),
        cudaGetLastError=lambda: asked.append(library.status),
        status=0,
    )
    monkeypatch.setattr(host_memory.ctypes, "CDLL", lambda name: names.append(name) or library)
    monkeypatch.setattr(host_memory, "CUDA_MAJOR", "13")
    return SimpleNamespace(library=library, held=held, freed=freed, names=names, asked=asked)


def test_page_locked_memory_is_cudas_and_is_given_back(cuda):
    memory = page_locked(96)
    (address,) = cuda.held
    assert (memory.ctypes.data, len(memory), memory.flags.writeable) == (address, 96, True)
    assert cuda.names == ["libcudart.so.13"]
    part = memory.view(np.float32)[3:]
    del memory
    gc.collect()
    assert cuda.freed == []  # a part is in use
    del part
    gc.collect()
    assert cuda.freed == [address]


def test_where_cuda_gives_none_memory_is_ordinary_and_it_is_said(cuda, caplog):
    cuda.library.status = 2
    memory = page_locked(96)
    assert len(memory) == 96
    assert memory.ctypes.data not in cuda.held
    assert "no page-locked memory (CUDA error 2)" in caplog.text
    assert cuda.asked == [2]  # so that nobody else finds the error


def test_without_cuda_memory_is_ordinary_and_it_is_said(caplog):
    assert len(page_locked(96)) == 96
    assert "no page-locked memory (libcudart.so" in caplog.text
