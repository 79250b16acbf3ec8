"""What the operator sees of an application: events that it is sent, for charts and for the end."""

from typing import Any, Final

from broch.app import values
from broch.app.deployer import Deployer
from broch.app.descriptor import Chart, Descriptor, PortName
from broch.app.journal import Journal
from broch.app.wiring import Connection, End
from broch.errors import BrochError

_MAX_POINTS: Final = 100_000  # of a chart


class Observed:
    """Opens the operator's events, and keeps what the report draws of them."""

    def __init__(self, descriptor: Descriptor, deployer: Deployer, journal: Journal) -> None:
        self._deployer = deployer
        self._journal = journal
        self._until = descriptor.run.until
        self._charts: dict[int, list[_Points]] = {}
        self._points = [_Points(chart) for chart in descriptor.report.charts]
        for wire in deployer.wires:
            mine = [p for p in self._points if _is(wire, p.chart.source)]
            if mine and not isinstance(wire.target, End):
                self._charts[wire.id] = mine

    def take(self, message: bytes) -> bool:
        """Take an EVENT; whether it is the one that ends the run."""
        try:
            connection, data, lost = self._deployer.ends.open(message)
        except BrochError as exc:
            self._journal.add("refused", None, f"an event to the operator: {exc}")
            return False
        wire = self._deployer.wire(connection)
        assert isinstance(wire.source, End)
        module = wire.source.module
        if lost:
            self._journal.add("gap", module, f"{lost} events never came", connection=connection)
        charts = self._charts.get(connection, [])
        if charts or self._journal.has_readers:
            self._show(wire, module, data, charts)
        return self._until is not None and _is(wire, self._until)

    def _show(self, wire: Connection, module: str, data: bytes, charts: list["_Points"]) -> None:
        assert isinstance(wire.source, End)
        try:
            value = values.decode(wire.argument, data)
        except BrochError as exc:
            self._journal.add("refused", module, f"an event to the operator: {exc}")
            return
        for points in charts:
            points.add(value)
        port = wire.source.port
        self._journal.add("event", module, f"{port} {value}", port=port, value=value)

    def charts(self) -> list[dict[str, Any]]:
        """The charts of the descriptor's report, as far as they got."""
        return [points.to_data() for points in self._points]


def _is(wire: Connection, port: PortName) -> bool:
    source = wire.source
    return isinstance(source, End) and (source.module, source.port) == (port.module, port.port)


class _Points:
    """What one chart draws."""

    def __init__(self, chart: Chart) -> None:
        self.chart = chart
        self._x: list[Any] = []
        self._y: dict[str, list[Any]] = {name: [] for name in chart.y}

    def add(self, value: Any) -> None:
        if isinstance(value, dict) and len(self._x) < _MAX_POINTS:
            self._x.append(value.get(self.chart.x))
            for name, points in self._y.items():
                points.append(value.get(name))

    def to_data(self) -> dict[str, Any]:
        return {
            "title": self.chart.title,
            "unit": self.chart.unit,
            "x": list(self._x),
            "series": {name: list(points) for name, points in self._y.items()},
        }
