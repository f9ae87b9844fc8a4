"""A visit that was decided is neither written nor decided when its packets come again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.model.columns import concat, ids
from pipeline.model.tally import Tally
from pipeline.model.words import VisitTrigger
from pipeline.score import decided as module
from pipeline.score.decided import Decided
from tests.score.making import an_id, visits

OPENED, DOCUMENT = int(VisitTrigger.OPENED), int(VisitTrigger.DOCUMENT)
PAUSED, CLOSED = int(VisitTrigger.PAUSED), int(VisitTrigger.CLOSED)


def version(name, trigger, documents=1):
    return {"visit_id": an_id(name), "trigger": trigger, "documents": documents}


def parted(stage, *rows):
    """What is written and what is decided, as triggers; and how many were skipped."""
    tally = Tally()
    written, due = stage.part(visits(*rows), tally)
    assert len(written) + tally.of("skip:visit_again") == len(rows)
    return written.trigger.tolist(), due.trigger.tolist()


def test_a_visit_is_decided_once_from_its_opening_to_its_close():
    rows = version("a", OPENED), version("a", PAUSED), version("a", CLOSED)
    assert parted(Decided(), *rows) == ([OPENED, PAUSED, CLOSED], [OPENED])
    rows = version("a", OPENED, 0), version("a", DOCUMENT), version("a", CLOSED)
    assert parted(Decided(), *rows) == ([OPENED, DOCUMENT, CLOSED], [DOCUMENT])


def test_one_that_opens_again_is_counted_and_nothing_else():
    stage = Decided()
    stage.remember(ids([an_id("a"), an_id("b")]))
    rows = (version("a", OPENED), version("c", OPENED), version("a", CLOSED), version("c", CLOSED))
    assert parted(stage, *rows) == ([OPENED, CLOSED], [OPENED])
    assert stage.snapshot()["repeats"].size == 0


def test_within_the_same_input_too():
    first = version("a", OPENED), version("a", CLOSED)
    assert parted(Decided(), *first, *first) == ([OPENED, CLOSED], [OPENED])


def test_one_that_was_decided_and_stays_open_goes_on():
    stage = Decided()
    stage.remember(ids([an_id("a")]))
    assert parted(stage, version("a", PAUSED), version("a", CLOSED)) == ([PAUSED, CLOSED], [])


def test_one_that_was_never_decided_may_open_again():
    stage = Decided()
    assert parted(stage, version("a", OPENED, 0)) == ([OPENED], [])
    rows = version("a", OPENED, 0), version("a", CLOSED, 0)
    assert parted(stage, *rows) == ([OPENED, CLOSED], [CLOSED])


def test_a_repeat_stays_one_over_a_pause():
    stage, later = Decided(), Decided()
    stage.remember(ids([an_id("a")]))
    assert parted(stage, version("a", OPENED, 0), version("a", PAUSED, 0)) == ([], [])
    later.remember(ids([an_id("a")]))
    later.restore(stage.snapshot())
    assert parted(later, version("a", DOCUMENT), version("a", CLOSED)) == ([], [])
    assert later.snapshot()["repeats"].size == 0


def test_a_snapshot_of_before_there_were_repeats_has_none():
    stage = Decided()
    stage.restore({})
    assert parted(stage, version("a", OPENED)) == ([OPENED], [OPENED])


def test_ids_that_share_their_first_half_are_told_apart():
    stage = Decided()
    half = an_id("a")[:8]
    stage.remember(ids([half + bytes([n] * 8) for n in (1, 2, 3)]))
    for n, known in ((2, True), (4, False)):
        row = version("a", OPENED) | {"visit_id": half + bytes([n] * 8)}
        assert parted(stage, row) == (([], []) if known else ([OPENED], [OPENED]))


SOME = st.lists(
    st.tuples(st.sampled_from("abcd"), st.sampled_from([OPENED, DOCUMENT, PAUSED, CLOSED]))
)


@given(rows=SOME, cuts=st.lists(st.integers(0, 40)), known=st.sets(st.sampled_from("abcd")))
def test_cutting_changes_nothing(rows, cuts, known):
    """Against the slow way to say it, in batches of any size, with any room for recent ids."""
    batch = concat([visits(version("z", PAUSED)), *(visits(version(n, t)) for n, t in rows)])
    bounds = [0, *sorted(min(cut, len(batch)) for cut in cuts), len(batch)]
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "RECENT_MAX", 1)
        stage = Decided()
        stage.remember(ids([an_id(name) for name in sorted(known)]))
        for start, stop in zip(bounds, bounds[1:], strict=False):
            found.append(stage.part(batch.slice(start, stop), Tally()))
    for place, wanted in enumerate(slowly(rows, set(known))):
        got = concat([batch.slice(0, 0), *(parts[place] for parts in found)])
        first = 1 if place == 0 else 0
        told = zip(got.visit_id.tolist()[first:], got.trigger.tolist()[first:], strict=True)
        assert list(told) == [(an_id(name), trigger) for name, trigger in wanted]


def slowly(rows, known):
    repeats, written, decided = set(), [], []
    for name, trigger in rows:
        if trigger == OPENED and name in known:
            repeats.add(name)
        if name not in repeats:
            written.append((name, trigger))
            if trigger in (OPENED, DOCUMENT) and name not in known:
                known.add(name)
                decided.append((name, trigger))
        elif trigger == CLOSED:
            repeats.remove(name)
    return written, decided


def test_no_visits_are_none():
    written, due = Decided().part(visits(), Tally())
    assert len(written) == len(due) == 0
    Decided().remember(np.zeros(0, "V16"))
