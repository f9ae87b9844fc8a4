"""What an owner can be asked: `sql` and `explain` (read-only), the jobs, and the book.

`explain --with-identity` writes as well: who was shown whose login stands in the journal before the
answer is given.
"""

from __future__ import annotations

import json
from collections import Counter
from datetime import datetime
from typing import Any

from pipeline.model.batches import CommandBatch
from pipeline.model.identifiers import NO_ID, id_text
from pipeline.run.admission import BOOK_QUESTIONS, denial, put_denied, standing_of
from pipeline.run.audit import audit, compare_heads, head_lines
from pipeline.run.book_commands import ask_book
from pipeline.run.book_commands import shown as shown_command
from pipeline.run.book_questions import answer_book
from pipeline.run.cases import to_ns
from pipeline.run.claims import claim, claims, close
from pipeline.run.claims import shown as shown_claims
from pipeline.run.explain import Link, subscriber_of
from pipeline.run.failures import RequestError
from pipeline.run.forms import FORMS
from pipeline.run.liability import report_liability
from pipeline.run.permissions import Denied
from pipeline.run.publish import pending, publish
from pipeline.run.questions import answer_question, chain_of, printed, shows_login
from pipeline.run.rerate_job import rerate
from pipeline.run.review import check_reason, decide, queue, shown
from pipeline.run.settle import settle
from pipeline.run.spending import shown as shown_spending
from pipeline.run.spending import spending
from pipeline.run.state import State, now_ns

WRONG = 2


def answer(state: State, request: dict[str, Any], replaying: bool = False) -> bytes:
    """The answer to one request, as it will be printed."""
    match request.get("do"):
        case "explain" if shows_login(request):
            return _explain_with_login(state, request, replaying)
        case "sql" | "explain":
            return answer_question(state, request)
        case "job" if request.get("name") == "accrue":
            return _accrue(state, request, replaying)
        case "job" if request.get("name") == "audit":
            return _audit(state, request)
        case "job" if request.get("name") == "review":
            return _review(state, request, replaying)
        case "job" if request.get("name") == "claim":
            return _claim(state, request, replaying)
        case "job" if request.get("name") == "publish":
            _refuse_while_replaying(state, replaying)
            from_ns = _time(request["from"], "--from") if request.get("from") else 0
            return publish(state, request, from_ns, _latest(state))
        case "job" if request.get("name") == "rerate":
            return _rerate(state, request, replaying)
        case "job" if request.get("name") == "pending":
            return pending(state, request, _latest(state))
        case "job" if request.get("name") == "settle":
            return settle(state, request)
        case "job" if request.get("name") == "liability":
            return report_liability(state, request)
        case "book" if request.get("name") in BOOK_QUESTIONS:
            return answer_book(state, request, now_ns())
        case "book" if request.get("name") in FORMS:
            return _ask_book(state, request, replaying)
        case "denied":  # asked by the owner itself, of whoever may ask nothing
            if not replaying and not _replay_is_open(state):
                put_denied(state, request, now_ns())
            return b""
    raise RequestError(f"an owner does not know {request.get('do')!r}", WRONG)


def _explain_with_login(state: State, request: dict[str, Any], replaying: bool) -> bytes:
    """A chain, and the login behind its subscriber, if it was not erased. That is put on record."""
    chain = chain_of(state, request)
    who = subscriber_of(chain)
    if who != NO_ID:
        _record_shown(state, request, who, replaying)
        login = state.book.identity(who) or "(erased)"
        chain.append(Link("identity", f"subscriber {id_text(who)} is login {login}"))
    return printed(chain, request)


def _record_shown(state: State, request: dict[str, Any], who: bytes, replaying: bool) -> None:
    """Put on record, durably, who is about to see whose login, and for which id they asked."""
    if replaying or _replay_is_open(state):
        raise RequestError(
            "--with-identity is put on record, and the journal of a replay takes nothing but its "
            "input until it is done; ask again then"
        )
    asked, now = str(request["id"]), now_ns()
    state.command(
        "identity_shown",
        f"{asked} {now}",
        {"asked": asked},
        request["actor"],
        now,
        who,
        **standing_of(request),
    )
    state.deliver()


def _ask_book(state: State, request: dict[str, Any], replaying: bool) -> bytes:
    """Ask the book for something, on record."""
    _refuse_while_replaying(state, replaying)
    try:
        told = ask_book(state, request, now_ns())
    except Denied as denied:
        put_denied(state, denial(denied), now_ns())
        raise
    if request.get("json"):
        return json.dumps(told, indent=2).encode() + b"\n"
    return shown_command(told).encode()


def _replay_is_open(state: State) -> bool:
    """Is this a case's state whose replay was killed and will be compared from the start?"""
    kinds: Counter[str] = Counter()
    for batch in state.journal.read("commands") if state.keys.test else ():
        assert isinstance(batch, CommandBatch)
        kinds.update(batch.kind.to_list())
    return kinds["ingest_begin"] > kinds["ingest_end"]


def _accrue(state: State, request: dict[str, Any], replaying: bool) -> bytes:
    cuts = state.cuts()
    latest = max((int(cut.now_ns[0]) for cut in cuts), default=0)
    if replaying:
        # The cuts of a replay are part of its input; a further one would make it another replay.
        if not cuts:
            raise RequestError("this replay has made no cut yet; its cuts are listed in its case")
        cut = cuts[-1]
    elif _replay_is_open(state):
        raise RequestError(
            "the replay of this state was stopped before its end, and a further cut would make it "
            "another replay; run the same `mirrorpoint replay` again, which completes it"
        )
    else:
        now = _time(request["now"], "--now") if request.get("now") else now_ns()
        if now > now_ns() and not state.keys.test:
            # Nothing takes it back: every hold would end now, and no earlier cut could be made.
            raise RequestError(f"--now {request['now']} is ahead of the clock", WRONG)
        if now < latest:
            raise RequestError(
                f"--now {request.get('now') or 'of the clock'} is before the last cut; "
                "now never goes back",
                WRONG,
            )
        state.take_due_rulebook(now)
        cut = state.make_cut(len(cuts) + 1, f"cut-{len(cuts) + 1}", now, None)
    report = state.accrue(cut, request["actor"])
    told: dict[str, Any] = {
        "cut": int(cut.number[0]),
        "name": cut.name.text(0),
        "delivered_again": replaying,
        "results": report.results,
        "reasons": report.reasons,
        "orders": report.orders,
        "reratings": report.reratings,
    }
    if request.get("json"):
        return json.dumps(told, indent=2).encode() + b"\n"
    lines = [f"cut {told['cut']} ({told['name']})" + (" delivered again" if replaying else "")]
    for title, of in (("results", ""), ("reasons", ""), ("orders", "order: ")):
        lines += [f"  {count:>9,}  {of}{word}" for word, count in sorted(told[title].items())]
    lines += [f"  re-rating {line}" for line in map(_rerated, report.reratings)]
    if len(lines) == 1:
        lines.append("  nothing changed and nothing came due")
    return "\n".join(lines).encode() + b"\n"


def _rerated(told: dict[str, Any]) -> str:
    """What came of a re-rating that was approved."""
    if "refused" in told:
        return f"{told['request']}: not booked, {told['refused']}"
    left = f", {told['left_out']:,} left out, for they have changed" if told["left_out"] else ""
    return f"{told['request']}: {told['booked']:,} conversions{left}"


def _review(state: State, request: dict[str, Any], replaying: bool) -> bytes:
    """The queue, or a decision about one conversion or claim in it."""
    if not request.get("verdict"):
        items, asked = queue(state), claims(state)
        if request.get("json"):
            waiting = [item for item in asked if item["state"] != "closed"]
            everything = [*items, *waiting, *spending(state)]
            return json.dumps(everything, indent=2).encode() + b"\n"
        programme = state.rulebook.programme
        text = shown(items) + shown_claims(asked)
        text += shown_spending(spending(state), programme.points, programme.points_scale)
        return (text or "nothing waits for a person\n").encode()
    _refuse_while_replaying(state, replaying)
    if request["verdict"] == "close":
        reason = str(request.get("reason", "")).strip()
        check_reason(reason)
        return _told(request, close(state, request, reason, now_ns()))
    told = decide(state, request, now_ns())
    if request.get("json"):
        return json.dumps(told, indent=2).encode() + b"\n"
    about = "a change after locked, " if "about" in told else ""
    said = f"{told['verdict']} of {about}{told['conversion_key']} as of the next cut\n"
    return said.encode()


def _claim(state: State, request: dict[str, Any], replaying: bool) -> bytes:
    """Put a claim on record; how it stands."""
    _refuse_while_replaying(state, replaying)
    return _told(request, claim(state, request, now_ns()))


def _told(request: dict[str, Any], item: dict[str, Any]) -> bytes:
    """A claim as it was asked for."""
    if request.get("json"):
        return json.dumps(item, indent=2).encode() + b"\n"
    return f"claim {item['claim']}: {item['state']}: {item['said']}\n".encode()


def _rerate(state: State, request: dict[str, Any], replaying: bool) -> bytes:
    """Compare with other rules, and unless it is a trial ask for them."""
    if not request.get("dry_run"):
        _refuse_while_replaying(state, replaying)
    since_ns, until_ns = (
        _time(request[name], f"--{name}") if request.get(name) else 0 for name in ("since", "until")
    )
    return rerate(state, request, since_ns, until_ns, _latest(state))


def _refuse_while_replaying(state: State, replaying: bool) -> None:
    if replaying or _replay_is_open(state):
        raise RequestError(
            "this is put on record, and the journal of a replay takes nothing but its input until "
            "it is done; ask again then"
        )


def _audit(state: State, request: dict[str, Any]) -> bytes:
    if request.get("head"):
        return head_lines(state).encode()
    if request.get("against") is not None:
        return compare_heads(state, request["against"], bool(request.get("json")))
    checks = audit(state)
    findings = [finding for _, found in checks for finding in found]
    if request.get("json"):
        body = json.dumps(dict(checks), indent=2)
    else:
        lines = [f"{'ok  ' if not found else 'FAIL'}  {name}" for name, found in checks]
        body = "\n".join([*lines, *(f"  - {finding}" for finding in findings)])
    if findings:
        raise RequestError(body)
    if not request.get("json"):
        body += "\nheads of the chains, to be kept elsewhere (`job audit --head`)"
        body += "".join(f"\n  {h.chain} {h.number} {h.link}" for h in state.book.heads())
    return body.encode() + b"\n"


def _latest(state: State) -> int:
    """Now, by the clock or by the last cut, whichever is later."""
    cut = state.book.last_cut()
    return max(now_ns(), cut.now_ns if cut is not None else 0)


def _time(text: str, option: str) -> int:
    try:
        return to_ns(datetime.fromisoformat(text))
    except ValueError:
        raise RequestError(
            f"{option} {text!r} is not a time such as 2026-03-02T00:00:00Z", WRONG
        ) from None
