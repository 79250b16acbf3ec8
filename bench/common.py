"""What every benchmark script shares: figures, their bars, and how they are printed.

    from common import Figure, run

    def figures() -> list[Figure]:
        return [Figure(name="ring_64B_us", value=0.9, unit="us", bar="<= 1.5")]

    if __name__ == "__main__":
        run(figures)

``python bench/NAME.py`` then prints a table, ``python bench/NAME.py --json`` one JSON object:
figure name -> ``{"value": ..., "unit": ..., "bar": ..., "met": true}``. A bar that is not met is
shown and is no failure: the exit code says only whether it could be measured.
"""

import argparse
import json
import operator
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

_COMPARE: Final[dict[str, Callable[[float, float], bool]]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
_BAR: Final = re.compile(r"(<=|>=|<|>) (\d[\d,]*(?:\.\d+)?)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One number that was measured. ``bar`` is ``"<= 1.5"``, or empty where none is set."""

    name: str
    value: float
    unit: str  # "us", "MB"; "x" for a ratio
    bar: str = ""

    def __post_init__(self) -> None:
        if self.bar and not _BAR.fullmatch(self.bar):
            raise ValueError(f"{self.name}: bar {self.bar!r} is not like '<= 1.5'")

    @property
    def met(self) -> bool:
        """Whether the value reaches the bar; true where there is none."""
        match = _BAR.fullmatch(self.bar)
        return match is None or _COMPARE[match[1]](self.value, float(match[2].replace(",", "")))


def as_json(figures: Iterable[Figure]) -> dict[str, dict[str, object]]:
    """The figures by name, as ``--json`` prints them."""
    return {f.name: {"value": f.value, "unit": f.unit, "bar": f.bar, "met": f.met} for f in figures}


def number(value: float) -> str:
    """Four significant digits, or whole thousands: ``0.9123``, ``23,410``."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def table(figures: Iterable[Figure]) -> str:
    """The figures as aligned text."""
    rows = [("figure", "value", "unit", "bar", "met")]
    for f in figures:
        verdict = ("yes" if f.met else "NO") if f.bar else ""
        rows.append((f.name, number(f.value), f.unit, f.bar, verdict))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        f"{name:<{widths[0]}}  {value:>{widths[1]}}  {unit:<{widths[2]}}  "
        f"{bar:<{widths[3]}}  {met}".rstrip()
        for name, value, unit, bar, met in rows
    )


def wants_json(arguments: Sequence[str] | None, description: str) -> bool:
    """Parse the one option that a benchmark has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return bool(parser.parse_args(arguments).json)


def run(figures: Callable[[], list[Figure]], arguments: Sequence[str] | None = None) -> None:
    """Measure and print, as the command line asks."""
    as_object = wants_json(arguments, "Measure, and compare with the bars.")
    measured = figures()
    print(json.dumps(as_json(measured), indent=2) if as_object else table(measured))
