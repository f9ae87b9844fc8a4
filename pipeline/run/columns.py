"""Rows of text as columns for a terminal, and amounts as people read them."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.model.money import show_amount


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """A line for each row: the first column to the left, the others to the right."""
    if not rows:
        return []
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *rest in rows:
        cells = [text.rjust(width) for text, width in zip(rest, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]).rstrip())
    return lines


def grouped(amount: int, scale: int) -> str:
    """An amount with commas between thousands."""
    whole, point, rest = show_amount(abs(amount), scale).partition(".")
    return f"{'-' if amount < 0 else ''}{int(whole):,}{point}{rest}"
