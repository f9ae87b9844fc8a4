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
        return _explain(state, request)
    return state.clickhouse.ask(
        str(request["query"]), "JSON" if request.get("json") else "PrettyCompactMonoBlock"
    )


def _explain(state: Asked, request: dict[str, Any]) -> bytes:
    # A question of SQL is answered without what chains are made of.
    from pipeline.run.explain import explain_id, explain_missing, show_chain

    question = request.get("question", {})
    chain: list[Link] | None
    if question.get("missing"):
        chain = explain_missing(state, question)
    else:
        chain = explain_id(state, str(request["id"]), bool(question.get("with_identity")))
    if chain is None:
        raise RequestError(f"nothing here has the id {request['id']}")
    if request.get("json"):
        return json.dumps([link.as_dict() for link in chain], indent=2).encode() + b"\n"
    return show_chain(chain).encode() + b"\n"
