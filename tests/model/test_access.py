"""Roles, acts and scopes: what is named is covered, everything else is denied."""

from __future__ import annotations

import pytest

from pipeline.model.access import ACTS, COVERS, Role, covers, scope_of
from pipeline.model.words import BOOK_COMMANDS, RECORDED_COMMANDS

EVERYTHING = {*BOOK_COMMANDS, *ACTS}


def test_every_role_has_its_acts_and_no_others() -> None:
    assert set(COVERS) == set(Role)
    assert not [act for acts in COVERS.values() for act in acts - EVERYTHING]
    assert not set(BOOK_COMMANDS) & set(RECORDED_COMMANDS)


def test_every_act_is_somebodys_beside_the_admins() -> None:
    others = set().union(*(COVERS[role] for role in Role if role != Role.ADMIN))
    assert others >= EVERYTHING


@pytest.mark.parametrize("role", ["", "boss", "Admin", "admin ", "network_engineer"])
def test_who_has_no_role_may_do_nothing(role: str) -> None:
    assert not [act for act in EVERYTHING if covers(role, act)]


def test_nobody_may_do_what_is_no_act() -> None:
    assert not [role for role in Role if covers(role, "erase") or covers(role, "")]


def test_who_asks_for_points_by_hand_is_not_who_approves_them() -> None:
    both = {role for role in Role if covers(role, "adjust") and covers(role, "approve")}
    assert both == {Role.ADMIN}


def test_logins_are_shown_to_who_talks_to_people() -> None:
    assert {role for role in Role if covers(role, "identity")} == {Role.ADMIN, Role.CALL_CENTRE}
    assert not covers("analyst", "balance")


@pytest.mark.parametrize(
    ("text", "scope"),
    [
        ("", ("", "")),
        ("region:north", ("region", "north")),
        ("partner:acme-shop", ("partner", "acme-shop")),
        ("planet:mars", None),
        ("region:", None),
        ("region: ", None),
        ("region", None),
        (":north", None),
    ],
)
def test_a_scope_is_a_word_and_a_name(text: str, scope: tuple[str, str] | None) -> None:
    assert scope_of(text) == scope
