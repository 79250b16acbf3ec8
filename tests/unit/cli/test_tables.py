"""Tables and lines of status, events and runs."""

from datetime import UTC, datetime
from typing import Any

import pytest

from broch.app.report import fault_text
from broch.cli import views
from broch.cli.table import Table, as_rich, as_text

STATUS: dict[str, Any] = {
    "app": "irrigation",
    "state": "running",
    "since": "2026-01-02T03:04:05Z",
    "nodes": [
        {
            "name": "field",
            "tee": "trustzone",
            "device": "emulated",
            "emulated": True,
            "address": "127.0.0.1:4001",
            "state": "running",
            "lacks": ["Landlock"],
        }
    ],
    "modules": [
        {
            "name": "soil",
            "node": "field",
            "tee": "trustzone",
            "emulated": True,
            "measurement": "ab" * 32,
            "signer": None,
            "verdict": "accepted",
            "seals_to": "uuid",
            "state": "running",
            "restarts": 1,
            "pid": 7,
            "fault": {"what": "raised ValueError", "place": "soil.py:3", "message": ""},
        }
    ],
    "connections": [
        {
            "id": 1,
            "from": "soil.day",
            "to": "weather.day",
            "cipher": "aes-128-gcm",
            "epoch": 1,
            "events": 1461,
            "gaps": 2,
            "refused": 1,
        }
    ],
}


def test_columns_are_aligned() -> None:
    table = Table(
        columns=["a", "count"], rows=[["x", "1"], ["long", "1,000"]], numeric=frozenset({"count"})
    )
    assert as_text(table).splitlines() == ["a     count", "x         1", "long  1,000"]


def test_cells_cannot_break_out() -> None:
    table = Table(columns=["a"], rows=[["two\nlines\x1b[2J"]])
    assert as_text(table).splitlines() == ["a", "two\\nlines\\x1b[2J"]


def test_markup_of_modules_is_text_to_rich() -> None:
    from rich.console import Console

    console = Console(width=60, force_terminal=False)
    with console.capture() as captured:
        console.print(as_rich(Table(columns=["a"], rows=[["[red]no[/red]"]])))
    assert "[red]no[/red]" in captured.get()


@pytest.mark.parametrize("with_state", [True, False])
def test_emulated_stands_beside_every_verdict(with_state: bool) -> None:
    text = as_text(views.modules(STATUS, with_state=with_state))
    heading, row = text.splitlines()
    assert heading.index("hardware") == row.index("emulated")
    assert heading.index("verdict") == row.index("accepted")
    assert "abababababababab..." in row
    assert ("soil.py:3: raised ValueError" in row) is with_state


def test_nodes_say_what_they_lack() -> None:
    assert as_text(views.nodes(STATUS)).splitlines()[1].endswith("running  Landlock")


def test_connections() -> None:
    row = as_text(views.connections(STATUS)).splitlines()[1]
    assert row.split() == ["soil.day", "weather.day", "1,461", "2", "1"]


def test_counts_in_one_line() -> None:
    assert views.counts_line(STATUS, 12.3) == "   12 s  1,461 events, 1 refused: soil.day 1,461"


@pytest.mark.parametrize(
    ("event", "line"),
    [
        ({"kind": "print", "module": "soil", "text": "dry"}, "soil | dry"),
        ({"kind": "print", "module": "soil", "text": "\x1b[2J\n"}, "soil | \\x1b[2J\\n"),
        ({"kind": "fault", "module": "soil", "text": "raised X"}, "soil fault: raised X"),
        ({"kind": "state", "module": None, "text": "running"}, "- state: running"),
        (
            {"kind": "event", "module": "fan", "text": "-", "port": "switched", "value": {"on": 1}},
            'fan.switched {"on": 1}',
        ),
    ],
)
def test_lines_of_events(event: dict[str, Any], line: str) -> None:
    assert views.event_line(event) == line


def test_time_of_an_event(monkeypatch: pytest.MonkeyPatch) -> None:
    event = {"kind": "print", "module": "a", "text": "x", "time": "2026-01-02T03:04:05.678+00:00"}
    shown = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).astimezone().strftime("%H:%M:%S")
    assert views.event_line(event, with_time=True) == f"{shown}.678  a | x"
    assert views.clock_time("noon") == "noon"


@pytest.mark.parametrize(
    ("fault", "shown"), [(None, "-"), ("raised X", "raised X"), ({"what": "died"}, "died")]
)
def test_faults(fault: object, shown: str) -> None:
    assert fault_text(fault) == shown


def test_summary() -> None:
    table = views.summary({"water_mm": 1788.0, "days": 1461, "saved": 18.74, "on": True, "x": None})
    assert [list(row) for row in table.rows] == [
        ["water mm", "1,788"],
        ["days", "1,461"],
        ["saved", "18.7"],
        ["on", "yes"],
        ["x", "-"],
    ]
