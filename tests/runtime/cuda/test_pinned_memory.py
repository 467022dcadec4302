"""Host buffers, their pool, and the calls into CUDA, with a fake CUDA library."""

import ctypes
import gc
import threading
import weakref
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encort.runtime.cuda import pinned_memory
from encort.runtime.cuda.pinned_memory import (
    Allocate,
    BufferPool,
    Bytes,
    HostBuffer,
    allocate_pageable,
    allocate_pinned,
)
from encort.runtime.engine.session import TensorSpecs
from encort.runtime.engine.thread_pool import ThreadPool

shapes = st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=3), min_size=1, max_size=5)
dtypes = st.sampled_from([np.int32, np.int64, np.float32])


def integers(count: int) -> TensorSpecs:
    return {"a": ((count,), np.int64)}


def recording(sizes: list[int]) -> Allocate:
    """Return an allocator that writes down the sizes."""

    def allocate(size: int) -> Bytes:
        sizes.append(size)
        return allocate_pageable(size)

    return allocate


@given(st.data())
def test_arrays_of_a_run_do_not_overlap(data: st.DataObject) -> None:
    buffer = HostBuffer(allocate_pageable)
    for _ in range(3):
        specs = {str(number): (shape, data.draw(dtypes)) for number, shape in enumerate(data.draw(shapes))}
        if not buffer.fits(specs):
            buffer.grow(specs)
        assert buffer.fits(specs)
        arrays = buffer.arrays(specs)
        for number, array in enumerate(arrays.values()):
            array[...] = number
        for number, (name, array) in enumerate(arrays.items()):
            assert (list(array.shape), array.dtype) == (specs[name][0], specs[name][1])
            assert (array == number).all()
            assert array.flags.c_contiguous
            assert array.ctypes.data % array.itemsize == 0


def test_a_buffer_is_reused_and_grows_to_powers_of_two() -> None:
    sizes: list[int] = []
    buffer = HostBuffer(recording(sizes))
    for count in (100, 50, 128, 129, 256, 1):
        specs = integers(count)
        if not buffer.fits(specs):
            buffer.grow(specs)
        assert buffer.arrays(specs)["a"].shape == (count,)
    assert sizes == [1024, 2048]


def test_a_buffer_that_grows_frees_its_old_memory_first() -> None:
    blocks: list[weakref.ref[Bytes]] = []

    def allocate(size: int) -> Bytes:
        assert all(block() is None for block in blocks)
        memory = allocate_pageable(size)
        blocks.append(weakref.ref(memory))
        return memory

    buffer = HostBuffer(allocate)
    for count in (1, 1000):
        buffer.grow(integers(count))
    assert [block() is None for block in blocks] == [True, False]


@pytest.fixture
def device_thread() -> Iterator[ThreadPool]:
    thread = ThreadPool(1, name="test")
    yield thread
    thread.close()


def test_a_buffer_is_lent_again_after_its_run(device_thread: ThreadPool) -> None:
    sizes: list[int] = []
    pool = BufferPool(recording(sizes), device_thread)
    for _ in range(3):
        with pool.borrow(integers(128)) as arrays:
            assert arrays["a"].shape == (128,)
    assert sizes == [1024]


def test_runs_at_the_same_time_have_different_buffers(device_thread: ThreadPool) -> None:
    pool = BufferPool(allocate_pageable, device_thread)
    with pool.borrow(integers(8)) as first, pool.borrow(integers(8)) as second:
        assert not np.shares_memory(first["a"], second["a"])


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_buffer_is_not_lent_again_after_an_error(device_thread: ThreadPool, error: type[BaseException]) -> None:
    pool = BufferPool(allocate_pageable, device_thread)
    with pool.borrow(integers(8)) as arrays:
        lost = arrays["a"]

    def fail() -> None:
        with pool.borrow(integers(8)) as arrays:
            assert np.shares_memory(lost, arrays["a"])
            raise error

    with pytest.raises(error):
        fail()
    with pool.borrow(integers(8)) as first, pool.borrow(integers(8)) as second:
        assert not any(np.shares_memory(lost, arrays["a"]) for arrays in (first, second))


def test_memory_is_allocated_in_the_thread_of_the_device(device_thread: ThreadPool) -> None:
    threads: list[threading.Thread] = []

    def allocate(size: int) -> Bytes:
        threads.append(threading.current_thread())
        return allocate_pageable(size)

    with BufferPool(allocate, device_thread).borrow(integers(8)):
        assert threads == [device_thread.submit(threading.current_thread).result()]


def test_a_closed_pool_keeps_no_buffer(device_thread: ThreadPool) -> None:
    blocks: list[weakref.ref[Bytes]] = []

    def allocate(size: int) -> Bytes:
        memory = allocate_pageable(size)
        blocks.append(weakref.ref(memory))
        return memory

    pool = BufferPool(allocate, device_thread)
    with pool.borrow(integers(8)) as arrays, pool.borrow(integers(8)):
        pass
    with pool.borrow(integers(8)) as arrays:
        pool.close()
    del arrays
    gc.collect()
    assert [block() for block in blocks] == [None, None]


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A CUDA runtime that hands out the memory of the process, and writes down what it is asked for."""
    blocks: dict[int, Any] = {}
    freed: list[int] = []

    def allocate(pointer: Any, size: ctypes.c_size_t, flags: int) -> int:
        assert flags == 1
        block = ctypes.create_string_buffer(size.value)
        pointer._obj.value = ctypes.addressof(block)
        blocks[pointer._obj.value] = block
        return int(library.status)

    errors_read: list[int] = []
    names: list[str] = []
    library = SimpleNamespace(
        cudaHostAlloc=allocate,
        cudaFreeHost=lambda pointer: freed.append(pointer.value),
        cudaGetLastError=lambda: errors_read.append(library.status),
        status=0,
    )
    monkeypatch.setattr(pinned_memory.ctypes, "CDLL", lambda name: names.append(name) or library)
    monkeypatch.setattr(pinned_memory, "CUDA_MAJOR", "13")
    return SimpleNamespace(library=library, blocks=blocks, freed=freed, names=names, errors_read=errors_read)


def test_pinned_memory_comes_from_cuda_and_is_freed_with_its_last_view(cuda: SimpleNamespace) -> None:
    memory = allocate_pinned(96)
    (address,) = cuda.blocks
    assert (memory.ctypes.data, len(memory), memory.flags.writeable) == (address, 96, True)
    assert cuda.names == ["libcudart.so.13"]
    view = memory.view(np.float32)[3:]
    del memory
    gc.collect()
    assert cuda.freed == []
    del view
    gc.collect()
    assert cuda.freed == [address]


def test_memory_is_pageable_with_a_warning_if_cuda_refuses(
    cuda: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    cuda.library.status = 2
    memory = allocate_pinned(96)
    assert len(memory) == 96
    assert memory.ctypes.data not in cuda.blocks
    assert "no page-locked memory (CUDA error 2)" in caplog.text
    assert cuda.errors_read == [2]  # so that the next call into CUDA does not find the error


def test_memory_is_pageable_with_a_warning_without_cuda(caplog: pytest.LogCaptureFixture) -> None:
    assert len(allocate_pinned(96)) == 96
    assert "no page-locked memory (libcudart.so" in caplog.text
