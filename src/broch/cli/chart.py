"""Charts for a terminal: a strip for each series, one column for a stretch of points.

A strip shows the range of what fell into each column, from lowest to highest. Where every value is
at least zero and most are zero (rain, irrigation), it shows bars from zero instead. Braille dots
draw 2 by 4 points in a character; without Unicode, characters do.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from broch.app.chart import number, points_of, x_ticks

ROWS: Final = 5  # characters of a strip
_MIN_COLUMNS: Final = 10
_MAX_COLUMNS: Final = 120
# Dots of a braille character by [row][column] (Unicode standard, block 2800).
_DOTS: Final = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))

Span = tuple[float, float]


def text_chart(chart: Mapping[str, Any], width: int, *, unicode: bool) -> str:
    """The chart as lines of at most ``width`` characters."""
    labels, positions, series = points_of(chart)
    unit = f" ({chart['unit']})" if chart.get("unit") else ""
    lines = [f"{chart.get('title', '')}{unit}"]
    if not positions or not series:
        return f"{lines[0]}\n  nothing was recorded"
    bounds = {name: _bounds(values) for name, values in series.items()}
    margin = max(len(number(_short(edge))) for span in bounds.values() for edge in span)
    columns = max(_MIN_COLUMNS, min(_MAX_COLUMNS, width - margin - 2))
    for name, values in series.items():
        low, high = bounds[name]
        strip = _strip(values, positions, columns, (low, high), unicode=unicode)
        for index, row in enumerate(strip):
            label = {0: high, len(strip) - 1: low}.get(index)
            mark = number(_short(label)) if label is not None else ""
            edge = "│" if unicode else "|"
            lines.append(f"{mark:>{margin}} {edge}{row}".rstrip())
        lines.append(f"{'':>{margin}}  {name}")
    lines.append(" " * (margin + 2) + _axis(labels, positions, columns))
    return "\n".join(line[:width] for line in lines)


def _short(value: float) -> float:
    return float(f"{value:.3g}")


def _bounds(values: Sequence[float | None]) -> Span:
    known = [value for value in values if value is not None] or [0.0]
    low, high = min(known), max(known)
    return (low, high) if low < high else (low, low + 1)


def _is_bars(values: Sequence[float | None]) -> bool:
    known = sorted(value for value in values if value is not None)
    return bool(known) and known[0] == 0 and known[len(known) // 2] == 0


def _strip(
    values: Sequence[float | None],
    positions: Sequence[float],
    columns: int,
    bounds: Span,
    *,
    unicode: bool,
) -> list[str]:
    """Rows of characters, the top one first."""
    across, down = (2, 4) if unicode else (1, 1)
    spans = _spans(values, positions, columns * across, from_zero=_is_bars(values))
    low, high = bounds
    height = ROWS * down
    dots: list[list[bool]] = [[False] * (columns * across) for _ in range(height)]
    for x, span in enumerate(spans):
        if span is not None and not (_is_bars(values) and span[1] == 0):
            bottom, top = (round((edge - low) / (high - low) * (height - 1)) for edge in span)
            for y in range(bottom, top + 1):
                dots[height - 1 - y][x] = True
    draw = _braille if unicode else _ascii
    return [draw(dots[row * down : (row + 1) * down]) for row in range(ROWS)]


def _spans(
    values: Sequence[float | None],
    positions: Sequence[float],
    columns: int,
    *,
    from_zero: bool,
) -> list[Span | None]:
    """The lowest and the highest value in each column; lines go from point to point."""
    first = positions[0]
    scale = (columns - 1) / (positions[-1] - first) if positions[-1] > first else 0.0
    spans: list[Span | None] = [None] * columns

    def reach(column: int, *values: float) -> None:
        every = (*values, *(spans[column] or ()))
        spans[column] = (min(every), max(every))

    before: tuple[int, float] | None = None
    for value, position in zip(values, positions, strict=True):
        if value is None:
            before = None
            continue
        column = int((position - first) * scale)
        reach(column, value, *([0.0] if from_zero else []))
        if before is not None and not from_zero:
            start, old = before
            step = (value - old) / max(1, column - start)
            for between in range(start + 1, column + 1):
                middle = old + step * (between - start)
                reach(between, middle - step, middle)
        before = column, value
    return spans


def _braille(rows: Sequence[Sequence[bool]]) -> str:
    cells = []
    for x in range(0, len(rows[0]), 2):
        bits = sum(_DOTS[y][dx] for y in range(4) for dx in range(2) if rows[y][x + dx])
        cells.append(chr(0x2800 + bits) if bits else " ")
    return "".join(cells)


def _ascii(rows: Sequence[Sequence[bool]]) -> str:
    return "".join("#" if dot else " " for dot in rows[0])


def _axis(labels: Sequence[str], positions: Sequence[float], columns: int) -> str:
    """Labels under the last strip, as many as fit."""
    first, last = positions[0], positions[-1]
    line = ""
    for position, label in x_ticks(labels, positions):
        share = (position - first) / (last - first) if last > first else 0.0
        at = int(share * (columns - 1))
        if at >= len(line) + bool(line) and at + len(label) <= columns:
            line = line.ljust(at) + label
    return line
