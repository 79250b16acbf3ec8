"""A picture of an application: nodes as boxes, modules in them, connections as arrows.

Nodes stand in columns, ordered so that those who talk stand side by side; so does the operator.
One arrow stands for all connections from one module to another, with the events that they carried.
Inside a column arrows bow out: to the left of the first one, to the right of others. The same
status gives the same bytes.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import permutations
from typing import Any, Final

OPERATOR: Final = "operator"
_WIDTH, _GAP = 190, 130  # of a column, and between two
_HEIGHT, _SPACE = 46, 46  # of a module, and between two
_HEAD, _PAD, _MARGIN = 56, 18, 12
_BOW: Final = 50  # room for arrows inside the first and the last column
_MOST_ORDERED: Final = 7  # columns whose every order is tried

Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class _Box:
    """A module's place in the picture."""

    x: float
    y: float
    column: int
    width: float = _WIDTH - 2 * _PAD
    height: float = _HEIGHT


def svg_topology(status: Mapping[str, Any]) -> str:
    """The picture as an ``<svg>`` element."""
    modules: dict[str, list[Mapping[str, Any]]] = {node["name"]: [] for node in status["nodes"]}
    for module in status["modules"]:
        modules.setdefault(module["node"], []).append(module)
    homes = {module["name"]: node for node, inside in modules.items() for module in inside}
    homes[OPERATOR] = ""  # which is no node's name
    arrows = {
        pair: events
        for pair, events in _arrows(status["connections"]).items()
        if pair[0] in homes and pair[1] in homes
    }
    columns = list(modules)
    if any(OPERATOR in pair for pair in arrows):
        columns.append("")
    columns = order(columns, [(homes[a], homes[b]) for a, b in arrows])
    rows = max([1, *(len(inside) for inside in modules.values())])
    height = 2 * _MARGIN + _HEAD + rows * (_HEIGHT + _SPACE) - _SPACE + 2 * _PAD
    width = 2 * (_MARGIN + _BOW) + len(columns) * (_WIDTH + _GAP) - _GAP
    nodes = {node["name"]: node for node in status["nodes"]}
    boxes: dict[str, _Box] = {}
    back, front = [], []
    for column, name in enumerate(columns):
        x = _MARGIN + _BOW + column * (_WIDTH + _GAP)
        inside = modules.get(name, []) or ([{"name": OPERATOR}] if not name else [])
        if name:
            back.append(_node(nodes.get(name, {"name": name}), x, height))
        room = height - 2 * _MARGIN - _HEAD
        y = _MARGIN + _HEAD + (room - len(inside) * (_HEIGHT + _SPACE) + _SPACE) / 2 - _PAD / 2
        for module in inside:
            box = boxes[module["name"]] = _Box(x + _PAD, y, column)
            front.append(_module(module, box))
            y += _HEIGHT + _SPACE
    lines = _lines(arrows, boxes)
    return "\n".join(
        [
            f'<svg class="topology" viewBox="0 0 {width:g} {height:g}" role="img" '
            f'style="max-width:{width:g}px">',
            "<title>nodes, modules and connections</title>",
            _ARROW_HEAD,
            *back,
            *lines,
            *front,
            "</svg>",
        ]
    )


_ARROW_HEAD: Final = (
    '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
    'orient="auto"><path d="M0 0L8 4L0 8z"/></marker></defs>'
)


def _arrows(connections: Sequence[Mapping[str, Any]]) -> dict[Pair, int]:
    """Events from module to module, all connections between the two together."""
    arrows: dict[Pair, int] = {}
    for connection in connections:
        source, target = (str(connection[key]).partition(".")[0] for key in ("from", "to"))
        arrows[source, target] = arrows.get((source, target), 0) + int(connection["events"])
    return arrows


def order(columns: Sequence[str], links: Sequence[Pair]) -> list[str]:
    """The order with the shortest links; as given where that is no worse, or there are many."""
    if len(columns) > _MOST_ORDERED:
        return list(columns)

    def length(candidate: Iterable[str]) -> int:
        places = {name: place for place, name in enumerate(candidate)}
        return sum((places[a] - places[b]) ** 2 for a, b in links)

    return list(min(permutations(columns), key=length))


def _node(node: Mapping[str, Any], x: float, height: float) -> str:
    device = "emulated" if node.get("emulated") else str(node.get("device", ""))
    subtitle = f"{node.get('tee', '')} · {device}".strip(" ·")
    return (
        f'<g class="node"><rect x="{x:g}" y="{_MARGIN}" width="{_WIDTH}" '
        f'height="{height - 2 * _MARGIN:g}" rx="10"/>'
        f'<text class="name" x="{x + _PAD:g}" y="{_MARGIN + 24}">{_short(node["name"])}</text>'
        f'<text class="sub" x="{x + _PAD:g}" y="{_MARGIN + 42}">{_short(subtitle)}</text></g>'
    )


def _module(module: Mapping[str, Any], box: _Box) -> str:
    is_operator = "verdict" not in module
    subtitle = "runs the application" if is_operator else _verdict(module)
    kind = "person" if is_operator else "module"
    x = box.x + box.width / 2
    return (
        f'<g class="{kind}"><rect x="{box.x:g}" y="{box.y:g}" width="{box.width:g}" '
        f'height="{box.height:g}" rx="6"/>'
        f'<text class="name" x="{x:g}" y="{box.y + 20:g}">{_short(module["name"])}</text>'
        f'<text class="sub" x="{x:g}" y="{box.y + 36:g}">{_short(subtitle)}</text></g>'
    )


def _verdict(module: Mapping[str, Any]) -> str:
    verdict = str(module["verdict"] or module["state"])
    return f"{verdict} · emulated" if module["emulated"] else verdict


def _short(text: object) -> str:
    plain = str(text)
    return escape(plain if len(plain) <= 22 else plain[:21] + "…")


def _lines(arrows: Mapping[Pair, int], boxes: Mapping[str, _Box]) -> list[str]:
    """The arrows; where several leave a side of a box, they share it evenly."""
    sides: dict[tuple[str, bool], list[tuple[float, Pair]]] = {}
    for pair in arrows:
        for here, there in (pair, pair[::-1]):
            sides.setdefault((here, _leaves_right(boxes[here], boxes[there])), []).append(
                (boxes[there].y, pair)
            )
    lines = []
    for pair, events in arrows.items():
        points = []
        for here, there in (pair, pair[::-1]):
            box, right = boxes[here], _leaves_right(boxes[here], boxes[there])
            shared = [other for _, other in sorted(sides[here, right])]
            y = box.y + box.height * (shared.index(pair) + 1) / (len(shared) + 1)
            points.append((box.x + box.width if right else box.x, y, right))
        lines.append(_line(points[0], points[1], events))
    return lines


def _leaves_right(here: _Box, there: _Box) -> bool:
    if there.column == here.column:
        return here.column > 0
    return there.column > here.column


def _line(start: tuple[float, float, bool], end: tuple[float, float, bool], events: int) -> str:
    (x1, y1, right1), (x2, y2, right2) = start, end
    bend = _BOW + _PAD if x1 == x2 else abs(x2 - x1) / 2
    a, b = x1 + (bend if right1 else -bend), x2 + (bend if right2 else -bend)
    x, y = (x1 + 3 * a + 3 * b + x2) / 8, (y1 + y2) / 2
    return (
        f'<g class="arrow"><path d="M{x1:g} {y1:.1f}C{a:g} {y1:.1f} {b:g} {y2:.1f} '
        f'{x2:g} {y2:.1f}" marker-end="url(#head)"/>'
        f'<text x="{x:.1f}" y="{y + 4:.1f}">{events:,}</text></g>'
    )
