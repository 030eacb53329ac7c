"""A comparison as text, a table or a page."""

from __future__ import annotations

from .compare import Comparison


def text(found: Comparison) -> str:
    """A line for each pair of layers, and the verdict."""
    rows = [
        (
            f"{row.a or '-'}",
            f"{row.b or '-'}",
            row.kind,
            f"{row.worst('result'):.3g}",
            f"{row.worst('gradient'):.3g}",
            "same" if row.same else "PARTS",
        )
        for row in found.rows
    ]
    head = (*found.backends, "layer", "result", "gradients", "")
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in (head, *rows)
    ]
    return "\n".join([*lines, verdict(found)])


def verdict(found: Comparison) -> str:
    """The sentence at the end."""
    if found.first is not None:
        row = found.first
        a, b = (f"{path or 'the layer'} ({name})" for path, name in zip((row.a, row.b), found.backends, strict=True))
        differences = (
            f"\nWhat they say of themselves differs in {'; '.join(row.differences)}." if row.differences else ""
        )
        return f"They part at {a} and {b}: {row.diagnosis}{differences}"
    if found.structure:
        return f"They aren't made up alike: {found.structure}."
    if found.total is not None and found.total > 1:
        return f"Layer by layer they compute the same, but as a whole the second is off by {found.total:.3g} bounds."
    return "They compute the same."
