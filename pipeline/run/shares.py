"""How good the mirror is, as shares: what it shows of which is not all that there was.

    one_way_share       TCP flows of three packets and more, without SYNs, of which one side was
                        seen only
    duplicate_share     segments that were shown twice within two milliseconds
    gap_share           segments before which bytes are missing that never came; of more than four
                        gaps at once in a direction the older count, whatever fills them
    truncated_share     packets of which the capture kept a part
    unreadable_share    of all who asked for a host, those whose host is unknown, because of
                          hidden     an encrypted client hello: the provider's name is all there is
                          gap        bytes of the hello or head that never came
                          truncated  the capture cut them off
                          room       more of it came, or came at once, than is kept
    weak_names          how many of those without a name have one from DNS answers
    flows_given_up      flows without a name that were left alone after as many beginnings of none
                        as are looked at: of other protocols

A share of nothing is None. The first three are of the flows that were watched: all while they are
some two thousand at a time, else a sample, drawn anew by every run, so that they differ a little. A
gate lets one side be looked at, so one_way_share is None behind it. What no reader of this page
sees: packets of kinds that nobody reads are faults (ethertype_unknown, protocol_unknown), and a
subscriber whose sign-in came too late is a skip (unbound).
"""

from __future__ import annotations

from pipeline.model.tally import Tally
from pipeline.model.words import Protocol

DIGITS = 6


def mirror_quality(tally: Tally) -> dict[str, float | int | None]:
    """Shares and counts by name, from what was counted."""
    seen = tally.starting("mirror")

    def of(word: str) -> int:
        return seen.get(word, 0)

    flows, segments = of("flows_watched"), of("segments_watched")
    hidden, gap, truncated, room = (
        tally.of(word) for word in ("hidden", "lost_gap", "lost_cut", "lost_room")
    )
    lost = gap + truncated + room
    asked = sum(tally.of(f"sessions:{protocol.name.lower()}") for protocol in Protocol)
    return {
        "one_way_share": _share(flows - of("flows_both_ways"), flows),
        "duplicate_share": _share(of("segments_twice"), segments),
        "gap_share": _share(of("holes") - of("holes_filled"), segments),
        "truncated_share": _share(of("packets_truncated"), tally.of("packets")),
        "unreadable_share": _share(hidden + lost, asked + lost),
        "unreadable_hidden": hidden,
        "unreadable_gap": gap,
        "unreadable_truncated": truncated,
        "unreadable_room": room,
        "weak_names": tally.of("weak"),
        "flows_given_up": tally.of("given_up"),
    }


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, DIGITS) if whole else None
