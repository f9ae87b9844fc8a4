"""Lines of keys: the locator knows every key that `tomllib` knows, and where it was written."""

from __future__ import annotations

import json
import string
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.rulebook.locate import line_of, locate, show_path, syntax_error

BARE = st.text(string.ascii_letters + string.digits + "-_", min_size=1, max_size=5)
ODD = st.text("ab.[]#=\"'{} \\é,", max_size=5)
KEYS = st.one_of(BARE, BARE, ODD)
# What looks like structure inside of texts must not be taken for it.
TEXTS = st.text("ab[]{}#=,.\"' \\\té", max_size=12)
LONG = st.text("ab[]{}#=,.'\" \n\\é", max_size=20)


class Writer:
    """Writes a document and notes the line of every key path, in whatever spelling is drawn."""

    def __init__(self, draw) -> None:
        self.draw, self.text, self.line = draw, "", 1
        self.wanted: dict[tuple, int] = {}

    def put(self, piece: str) -> None:
        self.text += piece
        self.line += piece.count("\n")

    def note(self, path: tuple) -> None:
        self.wanted.setdefault(path, self.line)

    def space(self) -> str:
        return self.draw(st.sampled_from(["", " ", "\t "]))

    def end(self) -> None:
        gaps = ["\n", "\n\n", " # a comment = [[x]]\n", "\r\n", "\n# ''' \"\"\" [t]\n"]
        self.put(self.draw(st.sampled_from(gaps)))

    def key(self, name: str) -> str:
        spellings = [json.dumps(name, ensure_ascii=self.draw(st.booleans()))]
        if name and all(c in string.ascii_letters + string.digits + "-_" for c in name):
            spellings.append(name)
        if "'" not in name:
            spellings.append(f"'{name}'")
        return self.draw(st.sampled_from(spellings))

    def dotted(self, names: list[str]) -> str:
        dot = f"{self.space()}.{self.space()}"
        return dot.join(self.key(name) for name in names)

    def value(self, path: tuple, depth: int = 0) -> None:
        kinds = ["scalar", "text", "long"] + ["array", "inline"] * (depth < 2)
        kind = self.draw(st.sampled_from(kinds))
        if kind == "scalar":
            scalars = ["1", "-2.5e3", "true", "1979-05-27", "1979-05-27 07:32:00Z", "inf", "0xff"]
            self.put(self.draw(st.sampled_from(scalars)))
        elif kind == "text":
            text = self.draw(TEXTS)
            literal = "'" not in text and self.draw(st.booleans())
            self.put(f"'{text}'" if literal else json.dumps(text))
        elif kind == "long":
            text = self.draw(LONG)
            if "'" not in text and self.draw(st.booleans()):
                self.put(f"'''{text}'''")
            else:
                quote = self.draw(st.sampled_from(['"=', '""#', '\\"[']))
                tail = self.draw(st.sampled_from(["", '"', '""', '\\"', '\\"""']))
                escaped = text.replace("\\", "\\\\").replace('"', quote)
                self.put(f'"""{escaped}{tail}"""')
        elif kind == "array":
            self.array(path, depth)
        else:
            self.inline(path, depth)

    def array(self, path: tuple, depth: int) -> None:
        gaps = ["", " ", "\n", "\n  # ] , [\n\t"]
        self.put("[")
        count = self.draw(st.integers(0, 3))
        for index in range(count):
            self.put(self.draw(st.sampled_from(gaps)))
            self.note((*path, index))
            self.value((*path, index), depth + 1)
            self.put(self.draw(st.sampled_from(gaps)))
            if index < count - 1 or self.draw(st.booleans()):
                self.put(",")
        self.put(self.draw(st.sampled_from(gaps)) + "]")

    def inline(self, path: tuple, depth: int) -> None:
        names = self.draw(st.lists(KEYS, max_size=3, unique=True))
        self.put("{" + self.space())
        for number, name in enumerate(names):
            self.note((*path, name))
            self.put(self.key(name) + self.space() + "=" + self.space())
            self.value((*path, name), depth + 1)
            self.put(self.space() + ("," + self.space() if number < len(names) - 1 else ""))
        self.put("}")

    def pairs(self, path: tuple, taken: set[str]) -> None:
        for _ in range(self.draw(st.integers(0, 3))):
            names = self.draw(st.lists(KEYS, min_size=1, max_size=2))
            if names[0] in taken:
                continue
            taken.add(names[0])
            for number in range(len(names)):
                self.note((*path, *names[: number + 1]))
            self.put(self.space() + self.dotted(names) + self.space() + "=" + self.space())
            self.value((*path, *names))
            self.end()

    def tables(self) -> None:
        taken: set[str] = set()
        self.pairs((), taken)
        arrays: dict[str, int] = {}
        for _ in range(self.draw(st.integers(0, 5))):
            name = self.draw(st.sampled_from(sorted(arrays)) if arrays else KEYS)
            if self.draw(st.booleans()):
                name = self.draw(KEYS)
            if name in taken and name not in arrays:
                continue
            if name in arrays or self.draw(st.booleans()):
                path = self.many(name, arrays)
            else:
                path = self.one(name)
            taken.add(name)
            self.pairs(path, set())

    def many(self, name: str, arrays: dict[str, int]) -> tuple:
        index = arrays[name] = arrays.get(name, -1) + 1
        self.note((name,))
        self.note((name, index))
        self.put(f"[[{self.space()}{self.key(name)}{self.space()}]]")
        self.end()
        if not self.draw(st.booleans()):
            return name, index
        self.pairs((name, index), {"sub"})
        self.note((name, index, "sub"))
        self.put(f"[{self.dotted([name, 'sub'])}]")
        self.end()
        return name, index, "sub"

    def one(self, name: str) -> tuple:
        names = [name, *self.draw(st.lists(KEYS, max_size=1))]
        for number in range(len(names)):
            self.note(tuple(names[: number + 1]))
        self.put(f"[{self.space()}{self.dotted(names)}{self.space()}]")
        self.end()
        return tuple(names)


@st.composite
def documents(draw) -> tuple[str, dict[tuple, int]]:
    writer = Writer(draw)
    writer.tables()
    return writer.text, writer.wanted


def paths_of(value, path: tuple = ()) -> set[tuple]:
    """Every key path of a parsed document."""
    found = {path} if path else set()
    if isinstance(value, dict):
        for key, inner in value.items():
            found |= paths_of(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            found |= paths_of(inner, (*path, index))
    return found


@given(documents())
def test_every_key_is_found_where_it_was_written(document):
    text, wanted = document
    parsed = tomllib.loads(text)
    lines = locate(text)
    assert set(lines) == paths_of(parsed)
    assert lines == wanted


@pytest.mark.parametrize(
    ("text", "path", "line"),
    [
        ("a = 1\nb = 2\n", ("b",), 2),
        ("[t]\n\n# c\nx.y = 1\n", ("t", "x", "y"), 4),
        ("[[t]]\na = 1\n[[t]]\na = 2\n", ("t", 1, "a"), 4),
        ("[[t]]\n[[t.u]]\n[[t.u]]\nx = 1\n", ("t", 0, "u", 1, "x"), 4),
        ("[[t]]\n[t.u]\nx = 1\n[[t]]\n[t.u]\nx = 1\n", ("t", 1, "u", "x"), 6),
        ("a = [\n  1,\n  2,\n]\n", ("a", 1), 3),
        ("a = [{x = 1},\n {x = 2}]\n", ("a", 1, "x"), 2),
        ('a = """\nb = 1\n"""\nb = 2\n', ("b",), 4),
        ("a = '''\n[t]\n'''''\nb = 2\n", ("b",), 4),
        ('a = """"""\nb = 2\n', ("b",), 2),
        ('a = """""""\nb = 2\n', ("b",), 2),
        ('a = """x\\"\ny"""""\nb = 2\n', ("b",), 3),
        ('"q.r" = 1\n"s\\u0074" = 2\n', ("st",), 2),
        ("a = 1\r\nb = 2\r\n", ("b",), 2),
    ],
)
def test_known_places(text, path, line):
    tomllib.loads(text)
    assert locate(text)[path] == line


def test_a_missing_key_stands_at_what_is_around_it():
    lines = locate("a = 1\n[t]\nb = 2\n")
    assert line_of(lines, ("t", "c")) == 2
    assert line_of(lines, ("x", "y")) == 1


def test_paths_are_shown_as_people_write_them():
    assert show_path(("accrual", 0, "rate")) == "accrual[0].rate"
    assert show_path(("a.b", 'c"', "", 1)) == '"a.b"."c\\"".""[1]'
    assert show_path(()) == ""


@pytest.mark.parametrize(
    ("text", "line"),
    [("a = 1\nb = \n", 2), ("a = 1\na = 2\n", 2), ("[t\n", 1), ('a = """x\ny\n', 3), ("x", 1)],
)
def test_a_syntax_error_has_a_line(text, line):
    with pytest.raises(tomllib.TOMLDecodeError) as caught:
        tomllib.loads(text)
    found, message = syntax_error(caught.value, text)
    assert abs(found - line) <= 1
    assert message
    assert "(at " not in message
