"""Failures that users can mend, in plain words; all else is a bug and keeps its traceback."""

from __future__ import annotations

FAILED, WRONG = 1, 2


class RequestError(RuntimeError):
    """What was asked cannot be done; the message is for the user, `code` the exit code."""

    def __init__(self, message: str, code: int = FAILED) -> None:
        super().__init__(message)
        self.code = code


def explain_failure(error: Exception) -> tuple[int, str] | None:
    """Exit code and message of a failure that is not a bug; None for a bug."""
    from pipeline.capture.facts import FactsError
    from pipeline.rulebook.check import show_problems
    from pipeline.rulebook.model import RulebookError
    from pipeline.run.cases import CaseError
    from pipeline.run.inputs import InputError

    if isinstance(error, RulebookError):
        return WRONG, show_problems(error.problems)
    if isinstance(error, CaseError | InputError):
        return WRONG, "\n".join(error.problems)
    if isinstance(error, FactsError):
        return WRONG, "\n".join(error.problems)
    if isinstance(error, RequestError):
        return error.code, str(error)
    if isinstance(error, OSError) and error.filename:
        return WRONG, f"{error.filename}: {error.strerror or error}"
    if isinstance(error, OSError) and error.strerror:  # a full disk names no file
        return FAILED, f"the system says: {error.strerror}"
    by_name = {
        "AccessError": WRONG,
        "Denied": FAILED,
        "StateError": WRONG,
        "KeyFileError": WRONG,
        "LockError": FAILED,
        "JournalError": FAILED,
        "JournalMismatch": FAILED,
        "QueryError": WRONG,
        "SealingError": FAILED,
        "SinkError": FAILED,
        "AccrualError": FAILED,
        "BookError": FAILED,
        "IdentityError": FAILED,
    }
    code = by_name.get(type(error).__name__)
    return None if code is None else (code, str(error))
