"""Forks of the process: what a child inherits of encort must not wait for the threads of the parent.

A child has only the thread that forked. A lock that another thread held would never be released, and the destructor of
a session would wait for its threads for ever.
`Engine.check_open` refuses to work in a child. This file keeps all other steps in a child from waiting, such as the
end of the process.
"""

import ctypes
import os
import threading
from typing import Any
from weakref import WeakSet, WeakValueDictionary

from encort.runtime.common.errors import EncortError

_locks = WeakSet[Any]()
_kept_objects = WeakValueDictionary[int, Any]()  # by id: not every object has a hash


def new_lock() -> threading.Lock:
    """Return a lock that is free in a forked child, whichever thread held it in the parent."""
    lock = threading.Lock()
    _locks.add(lock)
    return lock


def new_reentrant_lock() -> threading.RLock:
    """Return a reentrant lock that is free in a forked child, whichever thread held it in the parent."""
    lock = threading.RLock()
    _locks.add(lock)
    return lock


def keep_in_children(thing: object) -> None:
    """Never destroy an object in a forked child: its destructor would wait for threads that do not exist there."""
    _kept_objects[id(thing)] = thing


def check_same_process(process: int) -> None:
    """Refuse to work in a forked child of the process with this number.

    Raises:
        EncortError: The process is a fork.
    """
    if os.getpid() != process:
        raise EncortError("this model was loaded before a fork, which its threads did not survive; load it after")


def _after_fork_in_child() -> None:
    for lock in _locks:
        lock._at_fork_reinit()  # the name is private, but it is what the locks of the standard library use
    for thing in _kept_objects.values():
        # A reference that nothing drops. The end of the process destroys whatever a variable holds.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
