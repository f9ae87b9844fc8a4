"""Texts that differ only in places: made once, filled for many rows.

A structure of dicts, lists, texts, numbers and booleans becomes compact JSON in which a `Place`
stands for what differs; `fill` asks for the values of each place, a list per place, and gives a
text per row. What stands in a place is put in as it is: an id, a time, a number, an amount.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from pipeline.model.money import INT64_MAX

WIDE = 1 << 31


class Place:
    """`form` with a `%s` or `%d` for each of `names`; `bare` stands without quotes."""

    __slots__ = ("bare", "form", "names")

    def __init__(self, form: str, *names: str, bare: bool = False) -> None:
        self.form, self.names, self.bare = form, names, bare


class Template:
    """A structure as JSON with places."""

    def __init__(self, structure: Any) -> None:
        self._names: list[str] = []
        self._form = self._written(structure)

    def fill(
        self, rows: np.ndarray, values: Callable[[str, np.ndarray], Sequence[Any]]
    ) -> list[str]:
        """The text of each of these rows; `values` gives what stands in a place, by its name."""
        if not self._names:
            return [self._form % ()] * len(rows)
        columns = [values(name, rows) for name in self._names]
        return [self._form % row for row in zip(*columns, strict=True)]

    def _written(self, value: Any) -> str:
        if isinstance(value, Place):
            self._names += value.names
            return value.form if value.bare else f'"{value.form}"'
        if isinstance(value, dict):
            pairs = (f"{_plain(name)}:{self._written(v)}" for name, v in value.items())
            return "{" + ",".join(pairs) + "}"
        if isinstance(value, list):
            return "[" + ",".join(self._written(v) for v in value) + "]"
        return _plain(value)


@lru_cache(maxsize=1 << 14, typed=True)
def _plain(value: object) -> str:
    return json.dumps(value).replace("%", "%%")


def escaped(text: str) -> str:
    """A text of others within the form of a place."""
    return json.dumps(text)[1:-1].replace("%", "%%")


def mixed(columns: Sequence[np.ndarray]) -> np.ndarray:
    """One number per row (int64), the same where all columns (numbers of 0 and above) are."""
    found = np.zeros(len(columns[0]) if columns else 0, np.int64)
    span = 1
    for column in columns:
        column = column.reshape(-1).astype(np.int64)
        width = int(column.max(initial=0)) + 1
        if width == 1:
            continue
        if width > WIDE:
            _, column = np.unique(column, return_inverse=True)
            column = column.reshape(-1).astype(np.int64)
            width = int(column.max(initial=0)) + 1
        if span > INT64_MAX // width:
            _, found = np.unique(found, return_inverse=True)
            found = found.reshape(-1).astype(np.int64)
            span = int(found.max(initial=0)) + 1
        found, span = found * width + column, span * width
    return found


def alike(numbers: np.ndarray) -> list[np.ndarray]:
    """The places of each number that occurs."""
    order = np.argsort(numbers, kind="stable")
    cuts = np.flatnonzero(np.diff(numbers[order])) + 1
    return [part for part in np.split(order, cuts) if len(part)]
