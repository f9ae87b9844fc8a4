"""Explain many ids in one process: `python -m tests.run.explaining STATE`, ids on standard input.

A command each would spend its time on starting. Prints a JSON object: id -> its links, as
`mirrorpoint explain ID --json` prints them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from pipeline.run.explain import explain_id
from pipeline.run.folder import lock_state
from pipeline.run.replay import first_rulebook
from pipeline.run.state import State
from pipeline.store.keys import load_keys


def main(folder: Path) -> None:
    """Own the state for as long as it takes."""
    keys = load_keys(folder, allow_test=True)
    with lock_state(folder):
        state = State(folder, keys, first_rulebook(folder, keys))
        try:
            state.use_last_rulebook()
            chains = {text: explain_id(state, text) or [] for text in sys.stdin.read().split()}
        finally:
            state.close()
    told = {text: [link.as_dict() for link in chain] for text, chain in chains.items()}
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
