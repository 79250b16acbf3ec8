"""Line charts as SVG, from what `Supervisor.charts` gives.

A chart is ``{"title", "unit", "x": [...], "series": {name: [...]}}``. The horizontal axis is time
where every x is an ISO date, a number line where every x is a number, else the order of the points.
Points that came twice count once. The same chart gives the same bytes.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from html import escape
from typing import Any, Final

WIDTH: Final = 960
HEIGHT: Final = 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 12, 14, 34
COLOURS: Final = 6  # classes c0 to c5; the style sheet says which
_MAX_POINTS: Final = 4000  # of one series; more are thinned out, keeping extremes
_TICKS: Final = 5
_HUGE: Final = 1e300  # what is beyond, and what is not a number, is left out


def svg_chart(chart: Mapping[str, Any]) -> str:
    """The picture, without its title: an ``<svg>`` element."""
    labels, positions, series = points_of(chart)
    if not positions:
        return '<p class="none">nothing was recorded</p>'
    low, high = _bounds(series)
    ticks = nice_ticks(low, high, _TICKS)
    low, high = min(low, ticks[0]), max(high, ticks[-1])
    first, last = positions[0], positions[-1]

    def x(position: float) -> float:
        share = (position - first) / (last - first) if last > first else 0.5
        return _LEFT + share * (WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return HEIGHT - _BOTTOM - (value - low) / (high - low) * (HEIGHT - _TOP - _BOTTOM)

    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">']
    parts.append(f"<title>{escape(str(chart.get('title', '')))}</title>")
    for tick in ticks:
        parts.append(_horizontal(y(tick), number(tick)))
    for position, label in x_ticks(labels, positions):
        parts.append(_vertical(x(position), label))
    for index, values in enumerate(series.values()):
        pairs = [(x(p), y(v)) for p, v in zip(positions, values, strict=True) if v is not None]
        parts.append(_line(thin(pairs), index % COLOURS))
    parts.append("</svg>")
    return "\n".join(parts)


def legend(chart: Mapping[str, Any]) -> str:
    """The names of the series in their colours, as HTML."""
    names = [
        f'<span class="key"><i class="c{index % COLOURS}"></i>{escape(str(name))}</span>'
        for index, name in enumerate(chart.get("series", {}))
    ]
    unit = escape(str(chart.get("unit", "")))
    return f'<p class="legend">{"".join(names)}<span class="unit">{unit}</span></p>'


Series = dict[str, list[float | None]]


def points_of(chart: Mapping[str, Any]) -> tuple[list[str], list[float], Series]:
    """Labels and positions of the points in order of x, and the values of each series."""
    raw = list(chart.get("x", []))
    positions = _positions(raw)
    unique = {position: index for index, position in enumerate(positions)}
    order = [unique[position] for position in sorted(unique)]
    series = {
        str(name): [_value(values[index]) if index < len(values) else None for index in order]
        for name, values in chart.get("series", {}).items()
    }
    return [str(raw[index]) for index in order], [positions[index] for index in order], series


def _value(value: object) -> float | None:
    if isinstance(value, bool | int | float) and abs(value) < _HUGE:
        return float(value)
    return None


def _positions(raw: Sequence[object]) -> list[float]:
    days = [_day(value) for value in raw]
    if all(day is not None for day in days):
        return [float(day.toordinal()) for day in days if day is not None]
    numbers = [None if isinstance(value, bool) else _value(value) for value in raw]
    if all(value is not None for value in numbers):
        return [value for value in numbers if value is not None]
    return [float(index) for index in range(len(raw))]


def _day(value: object) -> date | None:
    if isinstance(value, str):
        try:
            return date.fromisoformat(value)
        except ValueError:
            return None
    return None


def _bounds(series: Series) -> tuple[float, float]:
    values = [value for line in series.values() for value in line if value is not None] or [0.0]
    low, high = min(values), max(values)
    if low == high:
        around = max(1.0, abs(low) / 100)
        return low - around, high + around
    return low, high


def nice_ticks(low: float, high: float, count: int) -> list[float]:
    """About ``count`` round numbers that span from below ``low`` to above ``high``."""
    rough = (high - low) / max(1, count)
    if not math.isfinite(rough) or rough <= 0:
        return [low, high]
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 10) for index in range(first, last + 1)]


def number(value: float) -> str:
    """Short: ``12``, ``0.5``, ``1.2e+06``."""
    text = f"{value:.6g}"
    return "0" if text == "-0" else text


def x_ticks(labels: Sequence[str], positions: Sequence[float]) -> list[tuple[float, str]]:
    """Where to write what under the horizontal axis."""
    if _day(labels[0]) is not None and positions[0] > 1:
        return _date_ticks(positions[0], positions[-1])
    if labels[0] != number(positions[0]) and _value_of(labels[0]) is None:
        step = max(1, len(labels) // 8)
        return [(positions[i], labels[i]) for i in range(0, len(labels), step)]
    ticks = nice_ticks(positions[0], max(positions[-1], positions[0] + 1), 8)
    return [(tick, number(tick)) for tick in ticks if positions[0] <= tick <= positions[-1]]


def _value_of(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _date_ticks(first: float, last: float) -> list[tuple[float, str]]:
    start, end = date.fromordinal(int(first)), date.fromordinal(int(last))
    days = (end - start).days
    if days < 60:
        step = max(1, days // 8)
        found = [start + timedelta(n) for n in range(0, days + 1, step)]
        return [(float(d.toordinal()), d.strftime("%d %b")) for d in found]
    months = 1 if days < 400 else 3 if days < 365 * 4 else 6 if days < 365 * 6 else 12
    firsts = [date(year, month, 1) for year in range(start.year, end.year + 1)
              for month in range(1, 13, months)]  # fmt: skip
    return [
        (float(d.toordinal()), d.strftime("%Y" if d.month == 1 else "%b"))
        for d in firsts
        if start <= d <= end
    ]


def thin(pairs: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most some thousands of points; of each stretch the lowest and the highest stay."""
    if len(pairs) <= _MAX_POINTS:
        return list(pairs)
    size = math.ceil(2 * len(pairs) / _MAX_POINTS)
    kept: list[tuple[float, float]] = []
    for start in range(0, len(pairs), size):
        stretch = pairs[start : start + size]
        ends = {min(stretch, key=lambda p: p[1]), max(stretch, key=lambda p: p[1])}
        kept += sorted(ends)
    return kept


def _line(pairs: Sequence[tuple[float, float]], colour: int) -> str:
    if len(pairs) == 1:
        return f'<circle class="c{colour}" cx="{pairs[0][0]:.1f}" cy="{pairs[0][1]:.1f}" r="3"/>'
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in pairs)
    return f'<polyline class="c{colour}" points="{points}"/>'


def _horizontal(y: float, label: str) -> str:
    return (
        f'<line class="grid" x1="{_LEFT}" y1="{y:.1f}" x2="{WIDTH - _RIGHT}" y2="{y:.1f}"/>'
        f'<text class="axis" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{label}</text>'
    )


def _vertical(x: float, label: str) -> str:
    bottom = HEIGHT - _BOTTOM
    anchor = "end" if x > WIDTH - _RIGHT - 20 else "middle"
    return (
        f'<line class="tick" x1="{x:.1f}" y1="{bottom}" x2="{x:.1f}" y2="{bottom + 5}"/>'
        f'<text class="axis" x="{x:.1f}" y="{bottom + 20}" text-anchor="{anchor}">'
        f"{escape(label[:24])}</text>"
    )
