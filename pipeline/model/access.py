"""Who may do what: the roles, and what each of them covers. What is not named here is denied.

A **role** is what somebody acts as, and every command says in which role it was asked. A **scope**
is the part of the programme a role was given for: nothing (all of it), or `WORD:NAME` with a word
of SCOPES, such as `region:north` or `partner:acme-shop`.

An **act** is a kind of command to the book (`model/words.BOOK_COMMANDS`) or something an owner is
asked (`ACTS`). Two persons are needed where the book says so, whatever the roles: nobody approves
what they asked for.
"""

from __future__ import annotations

from enum import StrEnum

from pipeline.model.words import BOOK_COMMANDS

SCOPES = ("group", "region", "city", "partner")

# What can be told to be of a part of the programme: orders, by a word that they say themselves.
PLACING = frozenset({"order", "reserve"})
ENDING = frozenset({"commit", "release", "refund"})
IN_SCOPE = PLACING | ENDING
TOLD_BY = {"region": "region", "partner": "payee"}

# What an owner is asked beside the commands of the book.
ACTS = (
    "sql",  # the store, in which people are pseudonyms
    "explain",
    "identity",  # whose login it is, which is put on record
    "accrue",
    "audit",
    "review",  # what waits for a person
    "decide",  # release or decline what waits, close a claim
    "claim",
    "settle",  # statements of partners and margins
    "liability",
    "balance",
    "waiting",  # commands that wait for a second person
    "trail",  # the audit rows
    "inform",  # facts of members: level, products, tenure
)


class Role(StrEnum):
    """What somebody acts as."""

    MEMBER = "member"  # about their own points, and nobody else's
    SYSTEM = "system"  # the operator's shop, provisioning, billing
    ADMIN = "admin"
    PROGRAMME_MANAGER = "programme_manager"
    APPROVER = "approver"
    CALL_CENTRE = "call_centre"
    FINANCE = "finance"
    ANALYST = "analyst"  # pseudonyms only
    NETWORK_ENGINEER = "network_engineer"  # nothing of members
    PARTNER = "partner"  # orders that are paid out to it
    AUDITOR = "auditor"


ASKING = frozenset({"sql", "explain", "balance", "waiting", "liability"})
SPENDING = frozenset({"order", "reserve", "release", "transfer", "convert_out"})
COVERS: dict[Role, frozenset[str]] = {
    Role.MEMBER: SPENDING,
    Role.SYSTEM: SPENDING
    | {"commit", "refund", "convert_in", "migrate", "stock", "accrue", "claim", "inform"},
    Role.ADMIN: frozenset((*BOOK_COMMANDS, *ACTS)),
    Role.PROGRAMME_MANAGER: ASKING
    | {
        "adjust", "forfeit", "freeze", "unfreeze", "stock", "migrate", "publish", "rerate",
        "accrue", "review", "decide", "claim", "settle",
    },
    Role.APPROVER: ASKING | {"approve", "reject", "review", "settle"},
    Role.CALL_CENTRE: SPENDING
    | {
        "refund", "adjust", "freeze", "unfreeze", "claim", "explain", "identity", "balance",
        "waiting", "review",
    },
    Role.FINANCE: ASKING | {"approve", "reject", "convert_in", "close_period", "settle", "trail"},
    Role.ANALYST: frozenset({"sql", "explain", "liability"}),
    Role.NETWORK_ENGINEER: frozenset(),
    Role.PARTNER: frozenset({"commit", "release", "refund"}),
    Role.AUDITOR: ASKING | {"audit", "trail", "review", "settle"},
}  # fmt: skip
# Whose own commands are in the book's chain of requests; what all others do has an audit row, too.
OWN_ACCOUNT = frozenset({Role.MEMBER, Role.SYSTEM})
COVERS_BY_WORD = {str(role): acts for role, acts in COVERS.items()}
NOTHING: frozenset[str] = frozenset()


def covers(role: str, act: str) -> bool:
    """May somebody in this role do that at all? Nobody without a role may do anything."""
    return act in COVERS_BY_WORD.get(role, NOTHING)


def scope_of(text: str) -> tuple[str, str] | None:
    """The word and the name of a scope, two empty texts for all; None for what is no scope."""
    if not text:
        return "", ""
    word, colon, name = text.partition(":")
    return (word, name) if word in SCOPES and colon and name.strip() else None
