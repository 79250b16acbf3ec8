"""Which running application a command means."""

import tomllib
from pathlib import Path
from typing import Final

from broch.app.home import Home
from broch.errors import MalformedError, UsageError
from broch.image import is_name

_HERE: Final = Path("app.toml")


def find_app(home: Home, given: str | None) -> str:
    """The name of the application that ``given`` means.

    A name, or a descriptor, or a folder with an app.toml; without any, the app.toml in the current
    folder if its application runs, else the only application that runs.

    Raises:
        UsageError: there is none, or several; those that run are listed.
    """
    if given is not None:
        if is_name(given) and not Path(given).is_file():
            return given
        return name_in(Path(given))
    running = running_apps(home)
    if _HERE.is_file():
        name = name_in(_HERE)
        if name in running or len(running) != 1:
            return name
    if len(running) == 1:
        return running[0]
    if not running:
        raise UsageError("no app runs", hint="start one with: broch up APP.toml")
    hint = f"these run: {', '.join(running)}"
    raise UsageError(f"{len(running)} apps run: say which one", hint=hint)


def running_apps(home: Home) -> list[str]:
    """The names of all applications that run, sorted."""
    found = []
    for name in home.app_names():
        app = home.existing_app(name)
        if app is not None and app.is_running():
            found.append(name)
    return found


def name_in(path: Path) -> str:
    """The name in a descriptor, of which the rest may be wrong meanwhile."""
    if path.is_dir():
        path /= "app.toml"
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        if isinstance(exc, OSError):
            problem = f"no app of that name, and no descriptor: {exc.strerror}"
            raise UsageError(problem, place=str(path)) from None
        raise MalformedError(f"not TOML: {exc}", place=str(path)) from None
    app = data.get("app")
    name = app.get("name") if isinstance(app, dict) else None
    if not isinstance(name, str) or not is_name(name):
        raise MalformedError("has no [app] with a name", place=str(path))
    return name
