"""`rules publish` and `rules pending`: how other rules come into force.

    draft       a folder of rules, checked by `rules check`
    tested      the examples in it pass, which `rules publish` looks at once more
    asked for   its full text and the command `publish` stand in the journal
    approved    another person said `approve`, and a cut has told the book
    in force    from the next cut or unit of input after that, and not before the time asked for

What is in force is written down in the stream `rulebooks` when it begins to be, and by its hash in
every cut and unit. Conversions keep the rules they were first rated by (`rerate.py` is for those).
"""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING, Any

from pipeline.model.identifiers import digest, id_text
from pipeline.model.times import show_time
from pipeline.model.words import Result
from pipeline.rulebook.check import run_examples
from pipeline.rulebook.model import Rulebook
from pipeline.rulebook.read import from_texts
from pipeline.run.failures import WRONG, RequestError
from pipeline.run.review import check_reason
from pipeline.store.book_rules import PUBLISH, Publication, in_force

if TYPE_CHECKING:
    from pipeline.run.state import State

Row = dict[str, Any]
WIDTH = 80
HEX_SHOWN = 8  # of a rulebook's hash, for people
WORDS = {Result.AWAITING_APPROVAL: "waits", Result.OK: "approved"}


def publish(state: State, request: Row, from_ns: int, now_ns: int) -> bytes:
    """Put on record that somebody wants these rules; `from_ns` 0 for as soon as may be."""
    reason = str(request.get("reason", "")).strip()
    check_reason(reason)
    if from_ns and from_ns < now_ns and not state.keys.test:
        raise RequestError(
            f"--from {request['from']} is over: rules come into force from now on, and "
            "`job rerate` is for what was bought before",
            WRONG,
        )
    rulebook = _read(request)
    failed = [str(result) for result in run_examples(rulebook) if not result.passed]
    if failed:
        raise RequestError("\n".join([*failed, "rules are published when their examples pass"]))
    state.take_due_rulebook(now_ns)
    changed = changes(state.rulebook, rulebook)
    if rulebook.hash == state.rulebook.hash and not _is_followed(state, now_ns):
        raise RequestError("these rules are in force already")
    ref = f"{rulebook.hash.hex()} {now_ns}"
    told: Row = {"rulebook": id_text(rulebook.hash), "reason": reason, "files": changed}
    if from_ns:
        told["from"] = from_ns
    state.propose_rulebook(rulebook, now_ns)
    role, scope = (str(request.get(name, "")) for name in ("role", "scope"))
    state.command(PUBLISH, ref, told, request["actor"], now_ns, role=role, scope=scope)
    state.deliver()
    told["request"] = id_text(digest(state.keys.visit, "command", PUBLISH, ref))
    if request.get("json"):
        return json.dumps(told, indent=2).encode() + b"\n"
    lines = [
        f"asked for: request {told['request']}",
        *_files(changed),
        "another person approves it after the next cut: "
        f"`mirrorpoint book approve --request {told['request']}`",
    ]
    return "\n".join(lines).encode() + b"\n"


def _read(request: Row) -> Rulebook:
    files = request.get("files")
    if not isinstance(files, dict) or not all(isinstance(text, str) for text in files.values()):
        raise RequestError("the rules to publish are missing", WRONG)
    return from_texts({str(name): text for name, text in files.items()})


def _is_followed(state: State, now_ns: int) -> bool:
    """Will other rules take the place of what is in force, or do they wait for somebody?"""
    return any(
        p.result == Result.AWAITING_APPROVAL or (p.result == Result.OK and p.comes_ns > now_ns)
        for p in state.book.publications()
    )


def changes(old: Rulebook, new: Rulebook) -> dict[str, list[str]]:
    """Names of files by what became of them: `changed`, `added`, `removed`; what is empty is
    left out.
    """
    before, after = old.files, new.files
    found = {
        "changed": [n for n in before if n in after and before[n] != after[n]],
        "added": [n for n in after if n not in before],
        "removed": [n for n in before if n not in after],
    }
    return {word: sorted(names) for word, names in found.items() if names}


def pending(state: State, request: Row, now_ns: int) -> bytes:
    """What is in force, what waits for a second person, and what will come into force."""
    rows = rulebooks(state, now_ns, bool(request.get("all")))
    if request.get("json"):
        return json.dumps(rows, indent=2).encode() + b"\n"
    return ("\n".join(line for row in rows for line in _lines(row)) + "\n").encode()


def rulebooks(state: State, now_ns: int, everything: bool = False) -> list[Row]:
    """Rows of `pending`; with `everything` also what was in force before, or refused."""
    found = state.book.publications()
    now = in_force(found, now_ns)
    shown = [p for p in found if p is not now and (everything or _is_open(p, now_ns))]
    first: Row = {"state": "in force", "rulebook": id_text(state.rulebook.hash)}
    if now is not None and now.rulebook_hash == state.rulebook.hash:
        first = {"state": "in force", **_told(now)}
    return [first, *({"state": _state(p, now_ns), **_told(p)} for p in shown)]


def _is_open(p: Publication, now_ns: int) -> bool:
    return p.result == Result.AWAITING_APPROVAL or (p.result == Result.OK and p.comes_ns > now_ns)


def _state(p: Publication, now_ns: int) -> str:
    if p.result == Result.OK and p.comes_ns <= now_ns:
        return "was in force"
    return WORDS.get(p.result, "rejected")


def _told(p: Publication) -> Row:
    told: Row = {
        "rulebook": id_text(p.rulebook_hash),
        "request": id_text(p.request_id),
        "asked_by": p.asked_by,
        "asked": show_time(p.asked_ns),
        "reason": p.reason,
        "files": p.files,
    }
    if p.decided_by:
        told["decided_by"] = p.decided_by
    if p.comes_ns or p.from_ns:
        told["from"] = show_time(p.comes_ns or p.from_ns)
    return told


def _lines(row: Row) -> list[str]:
    when = f" from {row['from']}" if "from" in row else ""
    lines = [f"{row['state']}: rules {row['rulebook'][:HEX_SHOWN]}{when}"]
    if "request" in row:
        people = f"asked by {row['asked_by']} {row['asked']}"
        if "decided_by" in row:
            word = "rejected" if row["state"] == "rejected" else "approved"
            people += f", {word} by {row['decided_by']}"
        lines += [f"  request {row['request']}", f"  {people}"]
        lines += textwrap.wrap(row["reason"], WIDTH, initial_indent="  ", subsequent_indent="  ")
        lines += [f"  {line}" for line in _files(row["files"])]
    return lines


def _files(changed: dict[str, list[str]]) -> list[str]:
    return [f"{word} {name}" for word, names in changed.items() for name in names]
