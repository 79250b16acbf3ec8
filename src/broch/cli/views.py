"""What commands show of a status, of events and of a run: tables and lines, no input or output."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from broch.app.report import fault_text, value_text
from broch.cli import output
from broch.cli.table import Table

_SHORT: Final = 16  # hex digits of a measurement
_NUMBERS: Final = frozenset({"events", "gaps", "refused", "epoch", "restarts"})


def modules(status: Mapping[str, Any], *, with_state: bool = False) -> Table:
    """Who runs where, and whether it was believed; emulated beside every verdict."""
    columns = ["module", "node", "TEE", "hardware", "measurement", "seals to", "verdict"]
    if with_state:
        columns += ["state", "restarts", "last fault"]
    rows = []
    for module in status["modules"]:
        row = [
            str(module["name"]),
            str(module["node"]),
            str(module["tee"]),
            _hardware(module["emulated"]),
            short(module["measurement"]),
            str(module["seals_to"] or "nothing"),
            str(module["verdict"] or "none yet"),
        ]
        if with_state:
            row += [str(module["state"]), f"{module['restarts']:,}", fault_text(module["fault"])]
        rows.append(row)
    return Table(columns=columns, rows=rows, numeric=_NUMBERS)


def _hardware(emulated: bool | None) -> str:
    return {True: "emulated", False: "real", None: "unknown"}[emulated]


def nodes(status: Mapping[str, Any]) -> Table:
    """The machines, and what their kernels lack."""
    rows = [
        [
            str(node["name"]),
            str(node["tee"]),
            _hardware(node["emulated"]),
            str(node["address"] or "-"),
            str(node["state"]),
            ", ".join(map(str, node["lacks"])) or "nothing",
        ]
        for node in status["nodes"]
    ]
    return Table(columns=["node", "TEE", "hardware", "address", "state", "lacks"], rows=rows)


def connections(status: Mapping[str, Any], *, title: str = "") -> Table:
    """Who told whom how much."""
    rows = [
        [
            str(connection["from"]),
            str(connection["to"]),
            *(f"{connection[key]:,}" for key in ("events", "gaps", "refused")),
        ]
        for connection in status["connections"]
    ]
    columns = ["from", "to", "events", "gaps", "refused"]
    return Table(columns=columns, rows=rows, numeric=_NUMBERS, title=title)


def summary(values: Mapping[str, Any]) -> Table:
    """What the application itself says of its run."""
    rows = [[str(key).replace("_", " "), value_text(value)] for key, value in values.items()]
    return Table(columns=["summary", ""], rows=rows, numeric=frozenset({""}))


def counts_line(status: Mapping[str, Any], seconds: float) -> str:
    """All connections in one line, named by where they begin."""
    each = ", ".join(f"{c['from']} {c['events']:,}" for c in status["connections"])
    total = sum(c["events"] for c in status["connections"])
    refused = sum(c["refused"] for c in status["connections"])
    trouble = f", {refused:,} refused" if refused else ""
    return output.clean(f"{seconds:5.0f} s  {total:,} events{trouble}: {each}")


def short(measurement: object) -> str:
    """The beginning of a measurement."""
    text = str(measurement or "-")
    return text if len(text) <= _SHORT else text[:_SHORT] + "..."


def event_line(event: Mapping[str, Any], *, with_time: bool = False) -> str:
    """``soil | text`` of what a module printed; the kind in between for anything else."""
    kind, module = str(event["kind"]), str(event.get("module") or "-")
    text = str(event.get("text") or "")
    if kind == "event" and "value" in event:
        kind, text = str(event.get("port", kind)), json.dumps(event["value"], default=str)
        return output.clean(f"{_time(event) if with_time else ''}{module}.{kind} {text}")
    place = event.get("place")
    if kind == "fault" and place:
        text = f"{place}: {text}"
    line = f"{module} | {text}" if kind == "print" else f"{module} {kind}: {text}"
    line = f"{_time(event) if with_time else ''}{line}"
    return output.clean(line).replace("\n", "\\n")


def _time(event: Mapping[str, Any]) -> str:
    return f"{clock_time(event.get('time'))}  "


def clock_time(moment: object) -> str:
    """Hours to milliseconds, in this machine's zone, of an ISO date and time."""
    try:
        return datetime.fromisoformat(str(moment)).astimezone().strftime("%H:%M:%S.%f")[:-3]
    except ValueError:
        return str(moment)
