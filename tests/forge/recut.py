"""The same forged case otherwise: its cuts elsewhere, its messages in another order of arrival.

The end of a case stays where it is, so whatever must hold after the last cut can be compared.
"""

from __future__ import annotations

import random
from pathlib import Path

from pipeline.model.times import show_time
from tests.forge.generated_day import START_NS

DAY_NS = 86_400 * 10**9
MESSAGES = ("purchases.tsv", "orders.tsv")  # in the order in which equal times are taken


def table(path: Path) -> tuple[list[str], list[str], list[list[str]]]:
    """The head of a text input, the names of its columns, and its rows."""
    lines = path.read_text().splitlines()
    rows = [line.split("\t") for line in lines[2:] if not line.startswith("#")]
    return lines[:2], lines[1].lstrip("# ").split("\t"), rows


def cut_anywhere(
    case: Path, draw: random.Random, count: int, inputs: tuple[str, ...] = MESSAGES
) -> list[str]:
    """Put `count` cuts behind rows drawn from `inputs`, some of them again, and one at the end.

    Gives the names of the cuts; `now` lies up to twenty days after what was received last.
    """
    places = []
    for rank, name in enumerate(inputs):
        _, names, rows = table(case / name)
        received = names.index("received_ns")
        places += [(int(row[received]), rank, n) for n, row in enumerate(rows, start=1)]
    cuts, latest = [], START_NS
    for number, (received, rank, row) in enumerate(sorted(draw.sample(places, count))):
        latest = max(latest, received + draw.randrange(20 * DAY_NS))
        after = f'after = "{inputs[rank]}:{row}"'
        cuts.append((f"c{number}", f"{after}\nnow = {show_time(latest)}"))
        if draw.random() < 0.4:
            cuts.append((f"r{number}", f'repeat = "c{draw.randint(0, number)}"'))
    cuts.append(("end", f'after = "end"\nnow = {show_time(latest + 65 * DAY_NS)}'))
    before = (case / "case.toml").read_text().partition("[[cut]]")[0]
    text = "".join(f'[[cut]]\nname = "{name}"\n{rest}\n' for name, rest in cuts)
    (case / "case.toml").write_text(before + text)
    return [name for name, _ in cuts]


def arrive_otherwise(case: Path, draw: random.Random) -> None:
    """Deal the messages' times of arrival anew; the file stays in the order of arrival."""
    head, names, rows = table(case / "purchases.tsv")
    received = names.index("received_ns")
    times = [row[received] for row in rows]
    assert times == sorted(times, key=int)
    draw.shuffle(rows)
    for row, time in zip(rows, times, strict=True):
        row[received] = time
    (case / "purchases.tsv").write_text("\n".join([*head, *map("\t".join, rows)]) + "\n")


def without_orders(case: Path) -> None:
    """Spending depends on what was there when, so it may not lie between messages."""
    path = case / "orders.tsv"
    path.write_text("\n".join(table(path)[0]) + "\n")
