"""Rule files for tests: the shipped ones, changed here and there."""

from __future__ import annotations

import pytest

from pipeline.rulebook.model import Problem, Rulebook, RulebookError
from pipeline.rulebook.read import from_texts, load

ACME = "partners/acme-shop.toml"
BOLT = "partners/bolt-mobile.toml"
BOOKS = "partners/corner-books.toml"
DELTA = "partners/delta-travel.toml"
TRACKERS = "trackers/affiliate.toml"
POLICY = "policies/default.toml"
PROGRAMME = "programme.toml"


def shipped() -> dict[str, str]:
    """The texts that come with the product."""
    return dict(load().files)


def changed(name: str, *edits: tuple[str, str], texts: dict[str, str] | None = None):
    """The texts with pieces of one file exchanged; each piece has to be there."""
    texts = shipped() if texts is None else dict(texts)
    for old, new in edits:
        assert old in texts[name], old
        texts[name] = texts[name].replace(old, new, 1)
    return texts


def problems(texts: dict[str, str]) -> list[Problem]:
    """What is wrong with these texts; there has to be something."""
    with pytest.raises(RulebookError) as caught:
        from_texts(texts)
    return caught.value.problems


def problem(name: str, *edits: tuple[str, str]) -> Problem:
    """The one thing that is wrong after these edits."""
    found = problems(changed(name, *edits))
    assert len(found) == 1, found
    return found[0]


def rules(name: str, *edits: tuple[str, str]) -> Rulebook:
    """The rulebook after these edits."""
    return from_texts(changed(name, *edits))


def line_of(text: str, piece: str) -> int:
    """The line (from 1) on which a piece of text first stands."""
    return text[: text.index(piece)].count("\n") + 1
