"""May who asks do that? By the role and scope that a command carries; what is not named is denied.

Who asks in a scope (`region:north`, `partner:acme-shop`) may do what that scope can be told of:
place orders that say so themselves, and end orders that were placed so. An order of another part of
the programme is, for them, none (UNKNOWN_ORDER). Members and lots belong to no part of the
programme yet, so nothing else is allowed within a scope.
"""

from __future__ import annotations

from pipeline.ledger.commands import Command
from pipeline.ledger.state import LedgerState, Order
from pipeline.model.access import IN_SCOPE, PLACING, TOLD_BY, Role, covers, scope_of
from pipeline.model.words import Result


def refusal(state: LedgerState, command: Command) -> Result | None:
    """Why a command is not looked at; None where its role and scope cover it."""
    return refused(command, state.orders.get(command.id("order")))


def refused(command: Command, order: Order | None) -> Result | None:
    """The same, told by the order that the command names, where there is one."""
    if not covers(command.role, command.kind):
        return Result.NOT_ALLOWED
    scope = scope_of(command.scope)
    if scope is None or (command.role == Role.PARTNER and scope[0] != "partner"):
        return Result.NOT_ALLOWED
    word, name = scope
    if not word:
        return None
    said = TOLD_BY.get(word)
    if said is None or command.kind not in IN_SCOPE:
        return Result.NOT_ALLOWED
    if command.kind in PLACING:
        return None if command.text(said) == name else Result.NOT_ALLOWED
    if order is None:
        return None
    region, _, payee = order.words
    return None if (region if said == "region" else payee) == name else Result.UNKNOWN_ORDER
