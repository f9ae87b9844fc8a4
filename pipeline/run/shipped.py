"""Where the bundled day is: inside the installed package, or in the checkout beside it."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent
CASE = Path("replay_pcaps") / "first-day"


def shipped_case() -> Path:
    """The folder of the bundled day."""
    for root in (PACKAGE / "data", PACKAGE.parent):
        if (root / CASE).is_dir():
            return root / CASE
    raise FileNotFoundError(2, "the bundled day is missing from this installation", str(CASE))
