"""What may be asked of the store by SQL: one question about its own tables.

A session with `readonly = 1` refuses writes, definitions, settings and most table functions.
Measured on chDB 26.9 it still lets through `INTO OUTFILE`, the scalar function `file()` (also as a
name handed to `arrayMap` or `APPLY`), `DESCRIBE` of a file or an address, `KILL QUERY`, several
statements in one text, and some table functions that reach the network before they fail. Those are
refused here, by reading the text as tokens: comments, strings and quoted names are told apart as
ClickHouse tells them apart, so a word hidden in quotes or behind a comment is still seen. What this
reading cannot tell for sure (here-documents, typographic quotation marks, escapes in names) is
refused where it first appears, so the two readings cannot drift apart unseen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

ASKING = {"SELECT", "WITH", "SHOW", "DESC", "DESCRIBE", "EXPLAIN"}
DOUBTFUL = "$‘’“”\0"

# Names that may not appear at all, called or not: they read or write files, or send data away.
NEVER = {
    "file", "outfile", "infile", "filecluster", "filesystem", "python", "executable",
    "catboostevaluate", "aiclassify", "aiembed", "aiextract", "aifilter", "aigenerate", "airedact",
    "aisimilarity", "aitranslate",
}  # fmt: skip

# Table functions that make rows out of nothing or out of our own tables. Every other one is
# refused.
HARMLESS = {
    "numbers", "numbers_mt", "zeros", "zeros_mt", "generate_series", "generateseries", "values",
    "view", "null", "primes", "format", "merge",
}  # fmt: skip

TOKEN = re.compile(
    r"""(?P<space>\s+|--[^\n]*|\#[^\n]*|//[^\n]*)
      | (?P<open>/\*)
      | (?P<string>'(?:[^'\\]|\\.|'')*')
      | (?P<quoted>`(?:[^`\\]|\\.|``)*`|"(?:[^"\\]|\\.|"")*")
      | (?P<word>[^\W\d]\w*)
      | (?P<number>\d\w*)
      | (?P<mark>.)""",
    re.VERBOSE | re.DOTALL,
)


class QueryError(ValueError):
    """A question that cannot or may not be asked; the message is for whoever asked."""


def check_question(sql: str, table_functions: frozenset[str]) -> None:
    """Raise QueryError unless `sql` is one question that stays within the store.

    `table_functions`: all table functions that this ClickHouse knows, in lower case.
    """
    tokens = list(_tokens(sql))
    while tokens and tokens[-1] == ("mark", ";"):
        tokens.pop()
    if not tokens:
        raise QueryError("there is no question")
    if ("mark", ";") in tokens:
        raise QueryError("one question at a time: there is more after a semicolon")
    first = next((text for kind, text in tokens if (kind, text) != ("mark", "(")), "")
    if first.upper() not in ASKING:
        raise QueryError(
            f"only questions can be asked here ({', '.join(sorted(ASKING))}), not {first or 'that'}"
        )
    refused = table_functions - HARMLESS
    for (kind, text), following in zip(tokens, [*tokens[1:], ("", "")], strict=True):
        if kind not in ("word", "quoted"):
            continue
        name = text.lower()
        if name in NEVER or (name in refused and following == ("mark", "(")):
            raise QueryError(f"{text} reaches outside the store and cannot be used here")


def _tokens(sql: str) -> Iterator[tuple[str, str]]:
    """Kind and text of every token but comments and space; quoted names without their quotes."""
    at = 0
    while at < len(sql):
        found = TOKEN.match(sql, at)
        assert found is not None
        assert found.lastgroup is not None
        kind, text, at = found.lastgroup, found.group(), found.end()
        if kind == "open":
            at = _comment_end(sql, at)
        elif kind == "quoted":
            yield kind, _unquoted(text)
        elif kind != "space":
            if text in "'`\"":
                raise QueryError("a quotation mark is not closed")
            if text in DOUBTFUL:
                raise QueryError(f"{text!r} is not taken outside quotation marks")
            yield kind, text


def _comment_end(sql: str, at: int) -> int:
    """Where a comment ends; comments nest."""
    depth = 1
    while depth:
        found = re.compile(r"/\*|\*/").search(sql, at)
        if found is None:
            raise QueryError("a comment is not closed")
        depth += 1 if found.group() == "/*" else -1
        at = found.end()
    return at


def _unquoted(text: str) -> str:
    """A quoted name as ClickHouse reads it."""
    if "\\" in text:
        # Escapes can spell any name; nobody who asks a question needs them in one.
        raise QueryError(f"{text}: a quoted name with a backslash is not taken")
    mark = text[0]
    return text[1:-1].replace(mark * 2, mark)
