"""What an owner can be asked: `sql` and `explain` (read-only), `job accrue` and `job audit`."""

from __future__ import annotations

import getpass
import json
from datetime import datetime
from typing import Any

from pipeline.run.audit import audit
from pipeline.run.cases import to_ns
from pipeline.run.failures import RequestError
from pipeline.run.questions import answer_question
from pipeline.run.state import State, now_ns

WRONG = 2


def answer(state: State, request: dict[str, Any], replaying: bool = False) -> bytes:
    """The answer to one request, as it will be printed."""
    match request.get("do"):
        case "sql" | "explain":
            return answer_question(state, request)
        case "job" if request.get("name") == "accrue":
            return _accrue(state, request, replaying)
        case "job" if request.get("name") == "audit":
            return _audit(state, request)
    raise RequestError(f"an owner does not know {request.get('do')!r}", WRONG)


def _accrue(state: State, request: dict[str, Any], replaying: bool) -> bytes:
    cuts = state.cuts()
    latest = max((int(cut.now_ns[0]) for cut in cuts), default=0)
    if replaying:
        # The cuts of a replay are part of its input; a further one would make it another replay.
        if not cuts:
            raise RequestError("this replay has made no cut yet; its cuts are listed in its case")
        cut = cuts[-1]
    else:
        now = _time(request["now"]) if request.get("now") else now_ns()
        if now < latest:
            raise RequestError(
                f"--now {request.get('now') or 'of the clock'} is before the last cut; "
                "now never goes back",
                WRONG,
            )
        cut = state.make_cut(len(cuts) + 1, f"cut-{len(cuts) + 1}", now, None)
    report = state.accrue(cut, str(request.get("actor") or getpass.getuser()))
    told: dict[str, Any] = {
        "cut": int(cut.number[0]),
        "name": cut.name.text(0),
        "delivered_again": replaying,
        "results": report.results,
        "reasons": report.reasons,
    }
    if request.get("json"):
        return json.dumps(told, indent=2).encode() + b"\n"
    lines = [f"cut {told['cut']} ({told['name']})" + (" delivered again" if replaying else "")]
    for title in ("results", "reasons"):
        lines += [f"  {count:>9,}  {word}" for word, count in sorted(told[title].items())]
    if len(lines) == 1:
        lines.append("  nothing changed and nothing came due")
    return "\n".join(lines).encode() + b"\n"


def _audit(state: State, request: dict[str, Any]) -> bytes:
    checks = audit(state)
    findings = [finding for _, found in checks for finding in found]
    if request.get("json"):
        body = json.dumps(dict(checks), indent=2)
    else:
        lines = [f"{'ok  ' if not found else 'FAIL'}  {name}" for name, found in checks]
        body = "\n".join([*lines, *(f"  - {finding}" for finding in findings)])
    if findings:
        raise RequestError(body)
    return body.encode() + b"\n"


def _time(text: str) -> int:
    try:
        return to_ns(datetime.fromisoformat(text))
    except ValueError:
        raise RequestError(
            f"--now {text!r} is not a time such as 2026-03-02T00:00:00Z", WRONG
        ) from None
