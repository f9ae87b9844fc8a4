"""Host names in rules, and who gets which name."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.kernels.hosts import codes_of, host_table
from pipeline.model.columns import TextColumn
from pipeline.rulebook.model import Match
from pipeline.rulebook.names import (
    NOBODY,
    TRACKER,
    HostError,
    claims_of,
    clean_host,
    endings,
    is_registry,
    is_under,
)
from pipeline.rulebook.read import load
from tests.naive.hosts import owner_of


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Acme.Example", "acme.example"),
        (" acme.example ", "acme.example"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("ｂücher。example", "xn--bcher-kva.example"),
        ("пример.test", "xn--e1afmkfd.test"),
        ("_dmarc.acme.example", "_dmarc.acme.example"),
    ],
)
def test_names_are_cleaned(text, name):
    assert clean_host(text) == name
    assert clean_host(name) == name


@pytest.mark.parametrize(
    "text",
    [
        "", ".", "example", "a..example", ".a.example", "a.example.", "*.a.example", "a.test:443",
        "a.example/x", "http://a.example", "192.0.2.1", "[2001:db8::1]", "a b.example",
        "-a.example", "a-.example", "a" * 64 + ".example", ".".join(["a" * 50] * 6),
        "a.example\n.x", "xn--zz.example", "a\u200d.example", "\u2665.example", "a.123",
    ],
)  # fmt: skip
def test_what_is_no_name_is_refused(text):
    with pytest.raises(HostError, match=r"a host name"):
        clean_host(text)


def test_registries():
    assert is_registry("co.uk")
    assert is_registry("com.tr")
    assert not is_registry("acme.example")
    assert not is_registry("co.example")
    assert not is_registry("shop.co.example")


def test_endings_and_under():
    assert list(endings("a.b.c")) == ["a.b.c", "b.c", "c"]
    assert is_under("a.b", "b")
    assert is_under("b", "b")
    assert not is_under("ab", "b")


LABEL = st.sampled_from(["a", "b", "c"])
NAME = st.lists(LABEL, min_size=1, max_size=4).map(".".join)
NAMES = st.lists(NAME, max_size=3, unique=True)


@st.composite
def claimed(draw):
    """Partners and trackers that claim no name twice."""
    taken: set[str] = set()

    def fresh(names: list[str]) -> tuple[str, ...]:
        kept = tuple(name for name in names if name not in taken)
        taken.update(kept)
        return kept

    partners = [
        (fresh(draw(NAMES)), fresh(draw(NAMES)), tuple(draw(NAMES)))
        for _ in range(draw(st.integers(0, 3)))
    ]
    return partners, [fresh(draw(NAMES)) for _ in range(draw(st.integers(0, 2)))]


@given(claimed(), st.lists(NAME, max_size=20))
def test_claims_and_kernel_say_what_the_rules_say(rules, hosts):
    partners, trackers = rules
    shipped = load()
    claims = claims_of(
        tuple(replace(shipped.partners[0], match=Match(*parts, ())) for parts in partners),
        tuple(replace(shipped.trackers[0], hosts=names) for names in trackers),
    )
    wanted = [owner_of(host, partners, trackers) for host in hosts]
    assert [claims.lookup(host) for host in hosts] == wanted
    table = host_table(TextColumn.of(claims.names), claims.exact, claims.under)
    assert codes_of(table, TextColumn.of(hosts)).tolist() == wanted


def test_the_shipped_names():
    rulebook = load()
    claims = claims_of(rulebook.partners, rulebook.trackers)
    wanted = {
        "acme.example": 0,
        "m.acme.example": 0,
        "static.acme.example": NOBODY,
        "a.static.acme.example": NOBODY,
        "acme.example.evil.example": NOBODY,
        "notacme.example": NOBODY,
        "acme.example.": NOBODY,
        "www.bolt.example": 1,
        "books.example": 2,
        "cdn.books.example": NOBODY,
        "trk.example": TRACKER,
        "a.click.track.example": TRACKER,
        "track.example": NOBODY,
        "": NOBODY,
    }
    assert {host: claims.lookup(host) for host in wanted} == wanted
