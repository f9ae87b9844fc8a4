"""Which of the changed keys of the rules make a row come out otherwise: found out, not guessed.

Given are two sets of rule files, the rows that differ, and somebody who can say which of these rows
come out as under the new rules when some of the edits are made and others are not. A key is
responsible for a row if without it the row does not change so, or, where no key is needed because
several would do, if it alone changes the row so; where neither holds, the keys of a smallest set
that does are. What only people read (titles, terms) is never responsible and never tried. Where one
key is left nothing has to be tried at all.

Edits that no rules could hold one without the other (a kind and what it asks for, a name that moves
from one partner to another, all keys of a new file) are made together. More than KEYS_MAX of them
are taken table by table, then file by file; after REPLAYS_MAX trials what is not known stays so and
is said to be.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time
from typing import Any

from pipeline.rulebook.locate import KeyPath, line_of, locate, show_path
from pipeline.rulebook.model import Rulebook, RulebookError
from pipeline.rulebook.read import from_texts

KEYS_MAX = 16  # tried one by one
REPLAYS_MAX = 2 * KEYS_MAX
FILES = 2  # how far edits are taken together: 0 by key, 1 by table, 2 by file
READ_BY_PEOPLE = frozenset({"title", "terms"})

Row = tuple[str, str]  # what it is, and its id
Texts = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Change:
    """One key of the rules that differs; `line` is in the new file, or in the old one where it
    went.
    """

    file: str
    line: int
    key: str
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.key} {self._told()}"

    def _told(self) -> str:
        """What was and what is; of a list only what came and went."""
        old, new = (json.loads(text) if text else None for text in (self.old, self.new))
        if not isinstance(old, list) or not isinstance(new, list):
            return f"{self.old or '(none)'} -> {self.new or '(none)'}"
        came, went = [v for v in new if v not in old], [v for v in old if v not in new]
        told = [
            f"{verb} {', '.join(json.dumps(value, ensure_ascii=False) for value in values)}"
            for verb, values in (("gains", came), ("loses", went))
            if values
        ]
        return "; ".join(told) or "has another order, or a value more than once"


@dataclass(frozen=True, slots=True)
class Edit:
    """A change that may matter, as something that is made or not."""

    change: Change
    path: KeyPath


Group = tuple[Edit, ...]  # made together


@dataclass(frozen=True, slots=True)
class Cause:
    """The changes that are responsible for a row; not `known` where that was not found out."""

    changes: tuple[Change, ...]
    known: bool = True


def changes(old: Texts, new: Texts) -> Iterator[Change]:
    """Every key that differs between two sets of rule files, with its line; examples left aside."""
    for change, _ in _changed(old, new):
        yield change


def _changed(old: Texts, new: Texts) -> Iterator[tuple[Change, KeyPath]]:
    for name in sorted({*old, *new}):
        texts = old.get(name, ""), new.get(name, "")
        if texts[0] == texts[1]:
            continue
        before, after = (_shown(text) for text in texts)
        for path in sorted({*before, *after}, key=show_path):
            a, b = before.get(path), after.get(path)
            if path[0] != "example" and (a is None or b is None or a[0] != b[0]):
                line = b[1] if b else a[1] if a else 1
                shown = (a[0] if a else "", b[0] if b else "")
                yield Change(name, line, show_path(path), *shown), path


def _shown(text: str) -> dict[KeyPath, tuple[str, int]]:
    """Every leaf of a TOML text: its value as text, and its line."""
    lines = locate(text)
    return {
        path: (json.dumps(value, ensure_ascii=False, default=str), line_of(lines, path))
        for path, value in _leaves(text).items()
    }


def _leaves(text: str) -> dict[KeyPath, Any]:
    """Every value of a TOML text that is no table, by its path."""
    leaves: dict[KeyPath, Any] = {}

    def walk(value: Any, path: KeyPath) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(inner, (*path, key))
        elif isinstance(value, list) and any(isinstance(v, dict) for v in value):
            for index, inner in enumerate(value):
                walk(inner, (*path, index))
        else:
            leaves[path] = value

    walk(tomllib.loads(text), ())
    return leaves


class Mixture:
    """Two sets of rule files and what lies between them: some edits made, the others not."""

    def __init__(self, old: Texts, new: Texts) -> None:
        self.old, self.new = old, new
        self.edits = tuple(
            Edit(change, path)
            for change, path in _changed(old, new)
            if change.file not in old or change.file not in new or path[-1] not in READ_BY_PEOPLE
        )

    def rulebook(self, made: Collection[Edit]) -> Rulebook | None:
        """The old rules with these edits made; None where those are no rules."""
        texts: dict[str, str] = {}
        for name in sorted({*self.old, *self.new}):
            mine = [edit for edit in made if edit.change.file == name]
            if name not in self.old or name not in self.new:
                source = self.new if mine else self.old
                if name in source:
                    texts[name] = source[name]
            else:
                mixed = self._mixed(name, mine) if mine else self.old[name]
                if mixed is None:
                    return None
                texts[name] = mixed
        try:
            return from_texts(texts)
        except RulebookError:
            return None

    def _mixed(self, name: str, made: Sequence[Edit]) -> str | None:
        leaves, new = _leaves(self.old[name]), _leaves(self.new[name])
        for edit in made:
            leaves.pop(edit.path, None)
            if edit.path in new:
                leaves[edit.path] = new[edit.path]
        top: dict[Any, Any] = {}
        for path, value in leaves.items():
            at = top
            for part in path[:-1]:
                at = at.setdefault(part, {})
                if not isinstance(at, dict):
                    return None  # a key of what is no table here
            if path[-1] in at:
                return None
            at[path[-1]] = value
        return "".join(f"{_quoted(key)} = {_toml(value)}\n" for key, value in top.items())

    def groups(self) -> list[Group]:
        """The edits by what can be made, and left, without the others."""
        level, cells = 0, self._cells(self.edits, 0)
        while len(cells) > KEYS_MAX and level < FILES:
            level += 1
            cells = self._cells(self.edits, level)
        found: list[Group] = []
        while len(cells) > 1 or (cells and found):
            loose = [cell for cell in cells if self._is_loose(cell)]
            found += loose
            bound = [edit for cell in cells if cell not in loose for edit in cell]
            if bound and level > FILES:
                return [self.edits]  # not even all that are left come without the others
            level += 1
            cells = self._cells(bound, level)
        return sorted([*found, *cells], key=lambda group: self.edits.index(group[0]))

    def _is_loose(self, cell: Group) -> bool:
        others = [edit for edit in self.edits if edit not in cell]
        return self.rulebook(cell) is not None and self.rulebook(others) is not None

    def _cells(self, edits: Iterable[Edit], level: int) -> list[Group]:
        """Edits by key, by table, by file, or all together."""
        cells: dict[tuple[str | int, ...], list[Edit]] = {}
        for edit in edits:
            file, path = edit.change.file, edit.path
            if level > FILES:
                cell: tuple[str | int, ...] = ()
            elif level == FILES or file not in self.old or file not in self.new:
                cell = (file,)
            elif level == 1 or self._is_new_table(file, path):
                cell = (file, *path[:-1])
            else:
                cell = (file, *path)
            cells.setdefault(cell, []).append(edit)
        return [tuple(cell) for cell in cells.values()]

    def _is_new_table(self, file: str, path: KeyPath) -> bool:
        """Does only one side have the table that this key stands in?"""
        table = path[:-1]
        return bool(table) and not all(
            any(other[: len(table)] == table for other in _leaves(side[file]))
            for side in (self.old, self.new)
        )


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _toml(value: Any) -> str:
    """A value in one line; a dict by numbers is an array of tables."""
    if isinstance(value, dict):
        if value and all(isinstance(key, int) for key in value):
            return _toml([value[index] for index in sorted(value)])
        return "{" + ", ".join(f"{_quoted(k)} = {_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    return repr(value)


AsNew = Callable[[Group], frozenset[Row]]


def causes(groups: Sequence[Group], rows: Collection[Row], as_new: AsNew) -> dict[Row, Cause]:
    """The cause of every row; `as_new` tells which come out as under the new rules where just these
    edits are made. It is asked at most REPLAYS_MAX times.
    """
    if len(groups) == 1:
        return dict.fromkeys(rows, _cause(groups, {0}))
    return _Search(groups, frozenset(rows), as_new).run()


def _cause(groups: Sequence[Group], numbers: Collection[int], known: bool = True) -> Cause:
    found = (edit.change for number in sorted(numbers) for edit in groups[number])
    return Cause(tuple(c for c in found if c.key.rpartition(".")[2] not in READ_BY_PEOPLE), known)


@dataclass(slots=True)
class _Search:
    """One search; groups go by their numbers."""

    groups: Sequence[Group]
    rows: frozenset[Row]
    as_new: AsNew
    asked: int = 0
    told: dict[frozenset[int], frozenset[Row]] = field(default_factory=dict)

    def run(self) -> dict[Row, Cause]:
        everything = frozenset(range(len(self.groups)))
        needed: dict[Row, set[int]] = {row: set() for row in self.rows}
        whole = True
        for number in sorted(everything):
            same = self.ask(everything - {number})
            whole = whole and same is not None
            for row in self.rows - same if same is not None else ():
                needed[row].add(number)
        if whole:
            self._alone(needed)
        for row in sorted(self.rows):
            if whole and not needed[row]:
                needed[row] = self._least(row)
        return {
            row: _cause(self.groups, numbers, whole and bool(numbers))
            for row, numbers in needed.items()
        }

    def _alone(self, needed: dict[Row, set[int]]) -> None:
        """Rows for which no group is needed: any of several would do."""
        left = frozenset(row for row, numbers in needed.items() if not numbers)
        for number in range(len(self.groups)) if left else ():
            for row in left & (self.ask(frozenset({number})) or frozenset()):
                needed[row].add(number)

    def _least(self, row: Row) -> set[int]:
        """Groups that together change this row so, and none of which could be left; empty where
        that was not found out.
        """
        kept = frozenset(range(len(self.groups)))
        for number in sorted(kept):
            same = self.ask(kept - {number})
            if same is None:
                return set()
            if row in same:
                kept -= {number}
        return set(kept)

    def ask(self, numbers: frozenset[int]) -> frozenset[Row] | None:
        """The rows that these groups change as all do; None where no more trials are left."""
        if not numbers:
            return frozenset()
        if numbers not in self.told:
            if self.asked == REPLAYS_MAX:
                return None
            self.asked += 1
            made = tuple(edit for number in sorted(numbers) for edit in self.groups[number])
            self.told[numbers] = self.as_new(made)
        return self.told[numbers]
