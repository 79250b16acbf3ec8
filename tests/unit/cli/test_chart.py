"""Charts in a terminal."""

from typing import Any

import pytest

from broch.cli.chart import text_chart


def chart(**changes: Any) -> dict[str, Any]:
    return {
        "title": "Water",
        "unit": "mm",
        "x": [0, 1, 2, 3],
        "series": {"rain": [0, 0, 4, 0]},
        **changes,
    }


def test_ascii_bars() -> None:
    assert text_chart(chart(), 22, unicode=False).splitlines() == [
        "Water (mm)",
        "4 |            #",
        "  |            #",
        "  |            #",
        "  |            #",
        "0 |            #",
        "   rain",
        "   0  0.5   1.5   2.5",
    ]


def test_a_line_reaches_from_bottom_to_top() -> None:
    lines = text_chart(chart(series={"level": [1, 2, 3, 4]}), 22, unicode=False).splitlines()
    rows = [line.partition("|")[2].ljust(19) for line in lines[1:6]]
    columns = ["".join(column) for column in zip(*rows, strict=True)]
    assert all("#" in column for column in columns), "the line is broken"
    assert (rows[0][-1], rows[-1][0]) == ("#", "#")


def test_braille_rows_hold_braille_and_blanks_only() -> None:
    lines = text_chart(chart(series={"level": [5, 1, 9, 3]}), 40, unicode=True).splitlines()
    for line in lines[1:6]:
        body = line.partition("│")[2]
        assert body
        assert all(c == " " or 0x2800 < ord(c) <= 0x28FF for c in body)


@pytest.mark.parametrize("width", [20, 40, 80, 200])
@pytest.mark.parametrize("unicode", [True, False])
def test_no_line_is_wider_than_asked(width: int, unicode: bool) -> None:
    points = [f"2012-{month:02}-{day:02}" for month in range(1, 13) for day in range(1, 29)]
    values = [(n * 37) % 101 / 7 for n in range(len(points))]
    text = text_chart(chart(x=points, series={"a": values}), width, unicode=unicode)
    assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize(
    "changes",
    [
        {"x": [], "series": {"rain": []}},
        {"x": [], "series": {}},
        {"x": [0], "series": {"rain": [1]}},
        {"x": [0, 0, 0], "series": {"rain": [1, 2, 3]}},
        {"x": [0, 1], "series": {"rain": [None, None]}},
        {"x": [0, 1, 2], "series": {"rain": [1, None, 3]}},
        {"x": [0, 1, 2], "series": {"rain": [1]}},
        {"x": [0, 1], "series": {"rain": [float("nan"), float("inf")]}},
        {"x": ["b", "a"], "series": {"rain": [1, 2]}},
        {"x": [None, None], "series": {"rain": [True, False]}},
        {"x": [0, 1], "series": {"rain": ["text", "text"]}},
        {"x": [0, 1], "series": {"rain": [5, 5]}},
        {"x": [0, 1], "series": {"rain": [-1e300, 1e300]}},
    ],
)
@pytest.mark.parametrize("unicode", [True, False])
def test_any_points_give_a_chart(changes: dict[str, Any], unicode: bool) -> None:
    assert text_chart(chart(**changes), 60, unicode=unicode).startswith("Water (mm)")
