"""Work that runs ahead of whoever asks for it, on a thread and so on a core of its own.

Copying 800 bytes out of the page cache costs as much as walking the packet that they are, unpacking
them several times that, and whoever finds where a packet begins waits for each: where the one
before ends is known from its own header only, which the copying core still has at hand and any
other has not. So while one batch is worked on the next block is read, unpacked where it is
compressed, and cut into packets.

Where the process may use one core only there is none to win: then everything is done in turn, and
what was copied is still at hand. What comes out is the same either way, since the thread only goes
on with a generator that was begun. How far ahead it may be is the generator's to say: it waits for
buffers to be given back.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from threading import Thread
from typing import Generic, TypeVar

T = TypeVar("T")
THREAD = "read-ahead"


class Ahead(Generic[T]):
    """The items that are left of an iterator, made by a thread; `at_end` is called by it last."""

    def __init__(self, items: Iterator[T], at_end: Callable[[], None]) -> None:
        self._made: SimpleQueue[T | _Ended] = SimpleQueue()
        self._ended: _Ended | None = None
        arguments = (items, at_end, self._made)
        Thread(target=_make, args=arguments, name=THREAD, daemon=True).start()

    def __iter__(self) -> Ahead[T]:
        return self

    def __next__(self) -> T:
        """The next item; raises what the iterator raised."""
        made = self._made.get() if self._ended is None else self._ended
        if not isinstance(made, _Ended):
            return made
        self._ended = made
        if made.error is not None:
            raise made.error
        raise StopIteration


def has_another_core() -> bool:
    """May this process use more than one core?"""
    return len(os.sched_getaffinity(0)) > 1


class _Ended:
    """There is no more, since the iterator ended or failed."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def _make(items: Iterator[T], at_end: Callable[[], None], made: SimpleQueue[T | _Ended]) -> None:
    error: BaseException | None = None
    try:
        for item in items:
            made.put(item)
    except BaseException as failure:  # raised again by whoever asks for the next item
        error = failure
    try:
        at_end()
    except BaseException as failure:
        error = error or failure
    made.put(_Ended(error))
