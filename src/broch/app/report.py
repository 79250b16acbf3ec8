"""The report of a run: one HTML file that opens without a server and loads nothing.

Everything shown is escaped: names and texts of modules may come from anyone. The same input gives
the same bytes.
"""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

from broch.app.chart import legend, svg_chart
from broch.app.topology import svg_topology

_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1c2733; --faint: #667483; --paper: #ffffff;
  --box: #f3f6f9; --line: #d5dde5; --good: #1a7f4b; --bad: #b3261e; --warn: #8a5a00;
  --c0: #2f6fb7; --c1: #d9822b; --c2: #3a9a5b; --c3: #a4479b; --c4: #b34045; --c5: #5b6b7b; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4eaf0; --faint: #93a1b0; --paper: #12181f;
  --box: #1b242e; --line: #33404d; --good: #5fcf95; --bad: #ff8a80; --warn: #f0b849;
  --c0: #6aa9ea; --c1: #f0a75c; --c2: #6fcf8f; --c3: #d68bcf; --c4: #ef8a8e; --c5: #9aa9b8; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.5rem 4rem; max-width: 1080px; background: var(--paper);
  color: var(--ink); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans",
  sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0; }
h2 { font-size: 1.1rem; margin: 2.4rem 0 .6rem; }
h3 { font-size: .95rem; margin: 1.4rem 0 .2rem; }
p { margin: .3rem 0; } .lead, .none, .unit, footer { color: var(--faint); }
.badge { display: inline-block; padding: .05rem .5rem; border-radius: 1rem; font-size: .8rem;
  border: 1px solid currentColor; } .warn { color: var(--warn); } .good { color: var(--good); }
.bad { color: var(--bad); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th { text-align: left; color: var(--faint); font-weight: 600; white-space: nowrap; }
th, td { padding: .35rem .9rem .35rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
th:last-child, td:last-child { padding-right: 0; } td code { overflow-wrap: anywhere; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
code { font: .85em ui-monospace, "DejaVu Sans Mono", monospace; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(128px, 1fr)); gap: .8rem;
  margin: 1.2rem 0; }
.card { background: var(--box); border-radius: 8px; padding: .7rem .9rem; }
.card b { display: block; font-size: 1.35rem; font-variant-numeric: tabular-nums;
  overflow-wrap: anywhere; } .card span { color: var(--faint); font-size: .85rem; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--ink); font-size: 12px; }
.node rect { fill: var(--box); stroke: var(--line); }
.module rect, .person rect { fill: var(--paper); stroke: var(--c0); stroke-width: 1.3; }
.person rect { stroke: var(--c5); stroke-dasharray: 4 3; }
.name { font-weight: 600; } svg .sub { fill: var(--faint); font-size: 11px; }
.module text, .person text, .arrow text { text-anchor: middle; }
.arrow path { fill: none; stroke: var(--c5); stroke-width: 1.3; }
.arrow text { font-size: 11px; paint-order: stroke; stroke: var(--paper); stroke-width: 5px; }
marker path { fill: var(--c5); }
.grid { stroke: var(--line); } .tick { stroke: var(--faint); }
svg .axis { fill: var(--faint); font-size: 11px; }
polyline { fill: none; stroke-width: 1.2; stroke-linejoin: round; }
.legend { font-size: .85rem; display: flex; gap: 1.2rem; }
.key i { display: inline-block; width: .9rem; height: .25rem; margin: 0 .4rem .15rem 0;
  border-radius: 2px; }
""" + "".join(
    f"polyline.c{n} {{ stroke: var(--c{n}); }} i.c{n} {{ background: var(--c{n}); }} "
    f"circle.c{n} {{ fill: var(--c{n}); }}\n"
    for n in range(6)
)


def html_report(
    *,
    title: str,
    status: Mapping[str, Any],
    summary: Mapping[str, Any] | None = None,
    charts: Sequence[Mapping[str, Any]] = (),
    description: str = "",
    faults: Sequence[Mapping[str, Any]] = (),
) -> str:
    """A whole page.

    Args:
        title: the heading; the application's name where it is empty.
        status: what :meth:`Supervisor.status` gave at the end of the run.
        summary: names and values to show first.
        charts: what :meth:`Supervisor.charts` gave.
        description: a line under the heading.
        faults: events of kind ``fault``, ``restart`` or ``refused`` that happened.
    """
    heading = escape(title or str(status["app"]))
    body = [
        f"<h1>{heading}</h1>",
        f'<p class="lead">{escape(description)}</p>' if description else "",
        f"<p>{_emulated_badge(status)}</p>",
        _cards(summary) if summary else "",
        "<h2>Topology</h2>",
        f'<div class="scroll">{svg_topology(status)}</div>',
        "<h2>Modules</h2>",
        _modules(status["modules"]),
        *(["<h2>Charts</h2>", *map(_chart, charts)] if charts else []),
        "<h2>Connections</h2>",
        _connections(status["connections"]),
        *(["<h2>What went wrong</h2>", _faults(faults)] if faults else []),
        f"<footer><p>Application <code>{escape(str(status['app']))}</code>, "
        f"started {escape(str(status['since']))}. Made by Broch.</p></footer>",
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'\">\n"
        f"<title>{heading}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in body if part)
        + "\n</body>\n</html>\n"
    )


def _emulated_badge(status: Mapping[str, Any]) -> str:
    emulated = [node["name"] for node in status["nodes"] if node["emulated"]]
    if not emulated:
        return '<span class="badge good">real hardware on every node</span>'
    which = "every node" if len(emulated) == len(status["nodes"]) else ", ".join(emulated)
    return f'<span class="badge warn">emulated hardware on {escape(which)}</span>'


def _cards(summary: Mapping[str, Any]) -> str:
    cards = "".join(
        f'<div class="card"><b>{escape(value_text(value))}</b>'
        f"<span>{escape(str(key).replace('_', ' '))}</span></div>"
        for key, value in summary.items()
    )
    return f'<div class="cards">{cards}</div>'


def value_text(value: object) -> str:
    """A value of a summary, for people: thousands apart, numbers not longer than they say."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.1f}".removesuffix(".0")
    return "-" if value is None else str(value)


def _table(headings: Sequence[tuple[str, bool]], rows: Sequence[Sequence[str]]) -> str:
    """``headings``: text, and whether the column is of numbers; cells are HTML."""
    marks = [' class="n"' if is_number else "" for _, is_number in headings]
    head = "".join(f"<th{m}>{escape(t)}</th>" for (t, _), m in zip(headings, marks, strict=True))
    lines = "\n".join(
        "<tr>" + "".join(f"<td{m}>{c}</td>" for c, m in zip(row, marks, strict=True)) + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>\n{lines}\n</tbody></table></div>"
    )


def _modules(modules: Sequence[Mapping[str, Any]]) -> str:
    headings = ["module", "node", "TEE", "hardware", "measurement", "seals to", "verdict", "state"]
    rows = [
        [
            f"<b>{escape(str(module['name']))}</b>",
            escape(str(module["node"])),
            escape(str(module["tee"])),
            _hardware(module["emulated"]),
            f"<code>{escape(str(module['measurement'] or '-'))}</code>",
            escape(str(module["seals_to"] or "nothing")),
            _verdict(module),
            escape(str(module["state"])) + _restarts(module),
        ]
        for module in modules
    ]
    return _table([(heading, False) for heading in headings], rows)


def _hardware(emulated: bool | None) -> str:
    if emulated is None:
        return "unknown"
    return '<span class="warn">emulated</span>' if emulated else "real"


def _verdict(module: Mapping[str, Any]) -> str:
    verdict = str(module["verdict"] or "-")
    kind = "good" if verdict == "accepted" else "bad"
    return f'<span class="{kind}">{escape(verdict)}</span>'


def _restarts(module: Mapping[str, Any]) -> str:
    restarts = f"<br>{module['restarts']:,} restarts" if module["restarts"] else ""
    fault = f'<br><span class="bad">{escape(fault_text(module["fault"]))}</span>'
    return restarts + (fault if module.get("fault") else "")


def fault_text(fault: object) -> str:
    """Why a module gave up, as one text."""
    if isinstance(fault, Mapping):
        parts = [fault.get("place"), fault.get("what"), fault.get("message")]
        return ": ".join(str(part) for part in parts if part)
    return str(fault) if fault else "-"


def _connections(connections: Sequence[Mapping[str, Any]]) -> str:
    headings = [("from", False), ("to", False), ("cipher", False), ("epoch", True)]
    headings += [("events", True), ("gaps", True), ("refused", True)]
    rows = [
        [escape(str(c["from"])), escape(str(c["to"])), escape(str(c["cipher"]))]
        + [_count(c[key]) for key in ("epoch", "events", "gaps", "refused")]
        for c in connections
    ]
    return _table(headings, rows)


def _count(value: object) -> str:
    return escape(f"{value:,}" if isinstance(value, int) else "-")


def _chart(chart: Mapping[str, Any]) -> str:
    return f"<h3>{escape(str(chart['title']))}</h3>\n{legend(chart)}\n{svg_chart(chart)}"


def _faults(faults: Sequence[Mapping[str, Any]]) -> str:
    headings = [("time", False), ("what", False), ("module", False), ("text", False)]
    rows = [
        [escape(str(fault.get(key) or "")) for key in ("time", "kind", "module", "text")]
        for fault in faults
    ]
    return _table(headings, rows)
