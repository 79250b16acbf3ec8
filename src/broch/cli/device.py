"""`broch device`: hands and eyes at the emulated peripherals of a running application's nodes."""

from typing import Annotated, Any

import typer

from broch.cli.options import AppOption, Json
from broch.errors import UsageError

app = typer.Typer(
    help="Press buttons and look at lamps of emulated devices.", rich_markup_mode=None
)
Where = Annotated[
    str, typer.Argument(metavar="NODE.PERIPHERAL", help="field.button, or field.1.0 for a pin.")
]


@app.command("press")
def press(where: Where, name: AppOption = None, json: Json = False) -> int:
    """Press a button and let it go: a pin goes high, then low."""
    return _act(where, name, json, "press", "release")


@app.command("hold")
def hold(where: Where, name: AppOption = None, json: Json = False) -> int:
    """Press a button and keep it: a pin goes high."""
    return _act(where, name, json, "press")


@app.command("release")
def release(where: Where, name: AppOption = None, json: Json = False) -> int:
    """Let a button go: a pin goes low."""
    return _act(where, name, json, "release")


@app.command("set")
def set_(
    where: Where,
    value: Annotated[int, typer.Argument(metavar="0-255", help="A bit for each pin.")],
    name: AppOption = None,
    json: Json = False,
) -> int:
    """Drive all eight pins of a port, as a sensor does."""
    return _act(where, name, json, "set", value=value)


@app.command("send")
def send(
    where: Where,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What arrives.")],
    name: AppOption = None,
    json: Json = False,
) -> int:
    """Send text over the serial line to a node."""
    return _act(where, name, json, "send", value=text)


@app.command("show")
def show(
    node: Annotated[str, typer.Argument(metavar="NODE", help="The node.")],
    name: AppOption = None,
    json: Json = False,
) -> int:
    """Show a node's ports, lamps and serial line."""
    from broch.cli.running import connect

    _, client = connect(name)
    return _show(client.operate(node, "show"), json)


def _act(where: str, name: str | None, as_json: bool, *actions: str, value: Any = None) -> int:
    from broch.cli.running import connect

    node, dot, target = where.partition(".")
    if not (dot and node and target):
        raise UsageError(f"expected NODE.PERIPHERAL, got {where!r}", place="NODE.PERIPHERAL")
    _, client = connect(name)
    seen: dict[str, Any] = {}
    for action in actions:
        seen = client.operate(node, action, target, value)
    return _show(seen, as_json)


def _show(seen: dict[str, Any], as_json: bool) -> int:
    from broch.cli import output, table

    if as_json:
        output.print_json({**seen, "emulated": True})
        return 0
    names = {place: name for name, place in seen["named"].items()}
    output.say(output.clean(f"node {seen['node']} (emulated)"))
    rows = []
    for port in seen["ports"]:
        if port["owner"] is not None:
            rows.append(_row(port, names))
    if rows:
        columns = ("port", "owner", "in", "out", "names")
        table.show(table.Table(columns=columns, rows=rows))
    else:
        output.say("no module owns a port")
    uart = seen["uart"]
    if uart["owner"] is not None:
        output.say(output.clean(f"uart ({uart['owner']}): {uart['said']}"))
    return 0


def _row(port: dict[str, Any], names: dict[str, str]) -> tuple[str, ...]:
    number = port["port"]
    pins = [(f"{number}.{pin}", pin) for pin in range(8)]
    named = [f"{names[at]} {_level(port, pin)}" for at, pin in pins if at in names]
    return (
        str(number),
        port["owner"],
        f"{port['in']:08b}",
        "".join(
            str(port["out"] >> pin & 1) if port["outputs"] >> pin & 1 else "-"
            for pin in range(7, -1, -1)
        ),
        ", ".join(named),
    )


def _level(port: dict[str, Any], pin: int) -> str:
    driven = port["out"] if port["outputs"] >> pin & 1 else port["in"]
    return "high" if driven >> pin & 1 else "low"
