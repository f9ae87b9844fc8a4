"""The table of what each kind asks for: whole, and as the book reads it."""

from __future__ import annotations

import re

import pytest

from pipeline.ledger.accounts import OTHER_REDEMPTION, REDEMPTIONS
from pipeline.ledger.orders import HOLD_SECONDS_MAX
from pipeline.ledger.state import AMOUNT_MAX
from pipeline.model.words import BOOK_COMMANDS
from pipeline.run.forms import FORMS, METAVARS, POINTS_MAX, SECONDS_MAX, SPENT_ON
from tests.need import REPOSITORY

# What the book asks for by other commands: `rules publish` and `job rerate`.
ELSEWHERE = {"publish", "rerate"}
COLUMNS = {"member", "points"}
READ = re.compile(r"command\.(?:text|number|id)\(\"(\w+)\"")


def test_every_kind_that_the_book_knows_can_be_asked_for():
    assert set(FORMS) == set(BOOK_COMMANDS) - ELSEWHERE


def test_every_key_that_the_ledger_reads_is_asked_for_and_no_other():
    folder = REPOSITORY / "pipeline" / "ledger"
    read = {key for path in folder.glob("*.py") for key in READ.findall(path.read_text())}
    asked = {field.key for form in FORMS.values() for field in form.fields}
    assert {"order", "request", "to", "hold_seconds", "earned", "expires"} <= read
    assert asked - COLUMNS == read - {"rulebook", "rulebook_hash", "from", "from_ns"}


@pytest.mark.parametrize("kind", FORMS)
def test_a_form_reads_well(kind):
    form = FORMS[kind]
    assert form.help.endswith(".")
    assert len({field.option for field in form.fields}) == len(form.fields)
    for field in form.fields:
        assert field.help.endswith(".")
        assert field.says in {*METAVARS, "word"}
        assert (field.says == "word") == bool(field.words)


def test_bounds_are_those_of_the_ledger():
    assert (POINTS_MAX, SECONDS_MAX) == (AMOUNT_MAX, HOLD_SECONDS_MAX)
    assert {*SPENT_ON, "exchange"} == {*REDEMPTIONS, OTHER_REDEMPTION}
