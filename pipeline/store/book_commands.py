"""A transaction's commands: posted in their order, each kept with its answer.

What people do has a row in the trail beside it (`book_trail`), once for each row of the stream that
asked it; a message that comes again under the same id is a row of its own, and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from pipeline.ledger.commands import Command
from pipeline.ledger.requests import post_command
from pipeline.ledger.transfers import Booking
from pipeline.model.access import OWN_ACCOUNT
from pipeline.model.words import Result
from pipeline.store.book_pages import Pages
from pipeline.store.book_trail import ON_RECORD, RESULTS, has_row, points_of

BookingOf = Callable[[str, str, str], Booking]
NOWHERE = -1  # a command that no stream is said to have


def places_of(places: np.ndarray | None, count: int) -> list[int]:
    """Rows of the stream as plain numbers; NOWHERE for each where none are told."""
    return [NOWHERE] * count if places is None else [int(place) for place in places]


def post(
    pages: Pages,
    commands: Sequence[Command],
    places: Sequence[int],
    booking_of: BookingOf,
    doubts: Mapping[bytes, str],
) -> list[Result]:
    """Post commands whose rows `pages` has read; what each was answered.

    `booking_of` gives how something is booked that an actor asks in a role and a scope; `doubts`
    says, by command id, why spending has to wait for a person.
    """
    state, answers = pages.state, []
    there = pages.trail.known(places)
    for command, place in zip(commands, places, strict=True):
        booking = booking_of(command.actor, command.role, command.scope)
        known = command.command_id in state.requests
        theirs = command.role not in OWN_ACCOUNT
        before = points_of(state, command) if theirs else ""
        doubt = doubts.get(command.command_id, "")
        answer = post_command(state, command, bool(doubt))
        answers.append(answer.result)
        if not known:
            pages.write_request(command, answer.result, booking, doubt)
        pages.write(answer.postings, booking)
        new = not known if place == NOWHERE else place not in there
        if new and has_row(command, answer.result):
            points = (before, points_of(state, command) if theirs else "")
            pages.write_trail(command, place, points, RESULTS[answer.result], booking)
    return answers


def put_on_record(
    pages: Pages, commands: Sequence[Command], places: Sequence[int], booking_of: BookingOf
) -> None:
    """Keep what people did that moves nothing here."""
    there = pages.trail.known(places)
    for command, place in zip(commands, places, strict=True):
        if place not in there:
            booking = booking_of(command.actor, command.role, command.scope)
            result = str(command.said.get("result", ON_RECORD))
            points = (command.text("before"), command.text("after"))
            pages.write_trail(command, place, points, result, booking)
