"""What anybody may ask of a state without changing it: `sql` and `explain`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pipeline.run.failures import RequestError

if TYPE_CHECKING:
    from pipeline.run.explain import Asked, Link


def answer_question(state: Asked, request: dict[str, Any]) -> bytes:
    """The answer to one question, as it will be printed."""
    if request["do"] == "explain":
        return printed(chain_of(state, request), request)
    return state.clickhouse.ask(
        str(request["query"]), "JSON" if request.get("json") else "PrettyCompactMonoBlock"
    )


def shows_login(request: dict[str, Any]) -> bool:
    """Does a question ask for somebody's login? Only the owner answers that, and on record."""
    question = request.get("question", {})
    return bool(question.get("with_identity")) and not question.get("missing")


def chain_of(state: Asked, request: dict[str, Any]) -> list[Link]:
    """What `explain` tells. Raises RequestError where nothing has the id."""
    # A question of SQL is answered without what chains are made of.
    from pipeline.run.explain import explain_id, explain_missing

    question = request.get("question", {})
    if question.get("missing"):
        return explain_missing(state, question)
    chain = explain_id(state, str(request["id"]))
    if chain is None:
        raise RequestError(f"nothing here has the id {request['id']}")
    return chain


def printed(chain: list[Link], request: dict[str, Any]) -> bytes:
    """A chain as it was asked for."""
    from pipeline.run.explain import show_chain

    if request.get("json"):
        return json.dumps([link.as_dict() for link in chain], indent=2).encode() + b"\n"
    return show_chain(chain).encode() + b"\n"
