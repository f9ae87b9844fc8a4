"""Which line of a TOML text a key stands on: the reader of the standard library does not say.

Given a text that `tomllib` has accepted, `locate` walks it once more, looking only for keys:
headers, dotted and quoted keys, arrays of tables, inline tables and arrays over many lines. Values
are skipped, not read; strings of all four kinds are skipped as one, so that a `[` or `#` inside
them is not taken for structure. A key path is a tuple of names and, inside arrays, indexes:
`("accrual", 0, "rate")`. Every path of the parsed document has a line; a table that is only implied
has that of its first key.

Grammar: TOML 1.0.0, sections Keys, String, Array, Inline Table, Table, Array of Tables.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_left
from collections.abc import Mapping

KeyPath = tuple[str | int, ...]

BARE = re.compile(r"[A-Za-z0-9_-]+")
SPACE = re.compile(r"[ \t]*")
# Blank lines, comments and spaces between statements and inside arrays.
GAP = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}'  # up to two quotes may stand right before the closing three
    r"|'''.*?'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
SCALAR = re.compile(r"[^,\]}#\n]*")


def locate(text: str) -> dict[KeyPath, int]:
    """The line (from 1) of every key path of a valid TOML text."""
    return _Walk(text).document()


def line_of(lines: Mapping[KeyPath, int], path: KeyPath) -> int:
    """The line of a path, or of the nearest thing around it that is there; 1 for the document."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 1)


def show_path(path: KeyPath) -> str:
    """A key path as people write it: `accrual[0].rate`."""
    shown = ""
    for part in path:
        if isinstance(part, int):
            shown += f"[{part}]"
        else:
            name = part if BARE.fullmatch(part) else '"' + part.replace('"', '\\"') + '"'
            shown += f".{name}" if shown else name
    return shown


def syntax_error(error: tomllib.TOMLDecodeError, text: str) -> tuple[int, str]:
    """Line and message of what the TOML reader refused."""
    message = str(error)
    found = re.search(r" \(at line (\d+), column \d+\)$", message)
    if found:
        return int(found[1]), message[: found.start()]
    return max(text.count("\n") + (not text.endswith("\n")), 1), message.removesuffix(
        " (at end of document)"
    )


class _Walk:
    """One pass over a text; `at` is the place reached."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0
        self.ends = [found.start() for found in re.finditer("\n", text)]
        self.lines: dict[KeyPath, int] = {}
        self.lengths: dict[KeyPath, int] = {}  # arrays of tables seen so far

    def document(self) -> dict[KeyPath, int]:
        table: KeyPath = ()
        self.skip(GAP)
        while self.at < len(self.text):
            if self.text[self.at] == "[":
                table = self.header()
            else:
                self.pair(table)
            self.skip(GAP)
        return self.lines

    def skip(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self.text, self.at)
        assert found, f"not TOML at {self.at}"
        self.at = found.end()
        return found[0]

    def note(self, path: KeyPath) -> None:
        if path not in self.lines:
            self.lines[path] = bisect_left(self.ends, self.at) + 1

    def header(self) -> KeyPath:
        many = self.text.startswith("[[", self.at)
        self.at += 1 + many
        path: KeyPath = ()
        names = self.names()
        for number, name in enumerate(names):
            path += (name,)
            self.note(path)
            if many and number == len(names) - 1:
                self.lengths[path] = self.lengths.get(path, 0) + 1
            if path in self.lengths:
                path += (self.lengths[path] - 1,)
                self.note(path)
        self.at += 1 + many
        return path

    def names(self) -> list[str]:
        """A dotted key: its names; ends behind the spaces that follow."""
        names = []
        while True:
            self.skip(SPACE)
            if self.text[self.at] in "\"'":
                names.append(tomllib.loads("name = " + self.skip(STRING))["name"])
            else:
                names.append(self.skip(BARE))
            self.skip(SPACE)
            if not self.text.startswith(".", self.at):
                return names
            self.at += 1

    def pair(self, table: KeyPath) -> None:
        start = self.at
        path = table
        names = self.names()
        behind, self.at = self.at, start
        for name in names:
            path += (name,)
            self.note(path)
        self.at = behind + 1  # the equals sign
        self.skip(SPACE)
        self.value(path)

    def value(self, path: KeyPath) -> None:
        first = self.text[self.at]
        if first in "\"'":
            self.skip(STRING)
        elif first == "[":
            self.array(path)
        elif first == "{":
            self.inline(path)
        else:
            self.skip(SCALAR)

    def array(self, path: KeyPath) -> None:
        self.at += 1
        index = 0
        self.skip(GAP)
        while self.text[self.at] != "]":
            self.note((*path, index))
            self.value((*path, index))
            index += 1
            self.skip(GAP)
            if self.text[self.at] == ",":
                self.at += 1
                self.skip(GAP)
        self.at += 1

    def inline(self, path: KeyPath) -> None:
        self.at += 1
        self.skip(GAP)
        while self.text[self.at] != "}":
            self.pair(path)
            self.skip(GAP)
            if self.text[self.at] == ",":
                self.at += 1
                self.skip(GAP)
        self.at += 1
