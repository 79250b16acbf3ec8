"""Commands to an application that runs: status, call, emit, events, update, down."""

import json
from typing import Any

from broch.app.control import ControlClient
from broch.app.home import Home
from broch.cli import output, views
from broch.cli.table import show
from broch.cli.target import find_app, running_apps
from broch.errors import UsageError


def connect(name: str | None) -> tuple[str, ControlClient]:
    home = Home.find()
    app = find_app(home, name)
    running = running_apps(home)
    if app not in running:
        folder = home.existing_app(app)
        hint = folder.last_failure() if folder is not None else None
        if hint is None:
            start = "start it with: broch up APP.toml"
            hint = f"these run: {', '.join(running)}" if running else start
        raise UsageError(f"app {app} does not run", hint=hint)
    return app, ControlClient(home, app)


def status(name: str | None, *, as_json: bool) -> int:
    """Show all that the supervisor knows."""
    _, client = connect(name)
    found = client.status()
    if as_json:
        output.print_json(found)
        return 0
    output.say(output.clean(f"{found['app']} is {found['state']}, since {found['since']}"))
    for table in (views.nodes(found), views.modules(found, with_state=True)):
        output.say()
        show(table)
    output.say()
    show(views.connections(found))
    return 0


def call(entry: str, arguments: str | None, name: str | None, *, as_json: bool) -> int:
    """Call an entry; what it returns is printed as JSON."""
    module, port = split(entry, "MODULE.ENTRY")
    given = parse(arguments, "ARGS") if arguments is not None else None
    _, client = connect(name)
    result = client.call(module, port, given)
    if as_json:
        output.print_json({"result": result})
    else:
        output.say(json.dumps(result, indent=2))
    return 0


def emit(target: str, value: str, name: str | None, *, as_json: bool) -> int:
    """Send an event to an input."""
    module, port = split(target, "MODULE.INPUT")
    given = parse(value, "JSON")
    app, client = connect(name)
    client.emit(module, port, given)
    if as_json:
        output.print_json({"app": app, "sent": f"{module}.{port}"})
    else:
        output.note(f"sent to {module}.{port}")
    return 0


def events(name: str | None, *, follow: bool, as_json: bool) -> int:
    """Show the last events; with ``follow`` all that come, until the application ends."""
    _, client = connect(name)
    for event in client.events(follow=follow):
        if as_json:
            output.print_json(event)
        else:
            output.say(views.event_line(event, with_time=True))
            output.flush()
    return 0


def update(module: str, name: str | None, *, as_json: bool) -> int:
    """Replace a running module by what its source says now."""
    app, client = connect(name)
    done = client.update(module)
    if as_json:
        output.print_json({"app": app, **done})
    elif done["updated"]:
        first, second = views.short(done["from"]), views.short(done["to"])
        state = ", with its state" if done["state"] else ""
        output.note(f"{module} is updated from {first} to {second}{state}")
    else:
        output.note(f"{module} is up to date: {views.short(done['to'])}")
    return 0


def down(name: str | None, *, as_json: bool) -> int:
    """End an application; returns when nothing of it is left."""
    app, client = connect(name)
    client.down()
    if as_json:
        output.print_json({"app": app, "down": True})
    else:
        output.note(f"{app} is down")
    return 0


def split(text: str, what: str) -> tuple[str, str]:
    """``module.port`` as a pair; raises :class:`UsageError`."""
    module, dot, port = text.partition(".")
    if not (module and dot and port) or "." in port:
        raise UsageError(f"expected {what}, got {text!r}", place=what)
    return module, port


def parse(text: str, what: str) -> Any:
    """JSON; raises :class:`UsageError` for anything else."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as exc:
        hint = """quote it for the shell: '{"percent": 20}'"""
        raise UsageError(f"not JSON: {exc}", place=what, hint=hint) from None


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON number")
