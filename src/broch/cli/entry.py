"""From arguments to an exit code: whatever happens ends as one line for people, one for programs.

A command that fails says ``error: place: message`` and perhaps ``hint: ...`` on standard error;
with ``--json`` also ``{"error": {...}}`` on standard output. A traceback is shown only when
``BROCH_DEBUG=1`` asks for it.
"""

import difflib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn

from broch.cli import INTERRUPTED, output
from broch.errors import BrochError, InternalError, UsageError

BROKEN_PIPE: Final = 141  # 128 + SIGPIPE
_VERSION: Final = (["--version"], ["--version", "--json"])
_REPORT_HINT: Final = (
    "this is a defect of Broch: report it with what BROCH_DEBUG=1 shows for the same command"
)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run one command; its exit code."""
    output.prepare_streams()
    as_json = "--json" in _own(arguments)
    try:
        code = _invoke(list(arguments), as_json)
        output.flush()
        return code
    except output.StandardOutputError as exc:
        output.give_up_stdout()
        output.note_error(exc)
        return exc.exit_code
    except BrokenPipeError:
        output.give_up_stdout()
        return BROKEN_PIPE
    except KeyboardInterrupt:
        return INTERRUPTED


def _own(arguments: Sequence[str]) -> Sequence[str]:
    """Those before ``--``; what comes after is for somebody else (``broch run``)."""
    return arguments[: arguments.index("--")] if "--" in arguments else arguments


def _invoke(arguments: list[str], as_json: bool) -> int:
    if arguments in _VERSION:  # without the parser, which takes most of the time
        output.version(as_json=as_json)
        return 0
    import typer

    # Typer raises click's errors, from click or from a copy of its own, under no name that is the
    # same in all its versions. BadParameter <- UsageError <- ClickException.
    click_error: type[Exception] = typer.BadParameter.__mro__[2]
    try:
        command = _command()
        result = command.main(args=arguments, prog_name="broch", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except typer.Abort:  # what it makes of Ctrl-C
        return INTERRUPTED
    except (BrokenPipeError, output.StandardOutputError):
        raise
    except SystemExit as exc:
        if isinstance(exc.__context__, BrokenPipeError):  # the parser has its own idea of those
            raise exc.__context__ from None
        raise
    except BrochError as exc:
        return _fail(exc, as_json)
    except click_error as exc:
        return _fail(usage_error(exc, arguments), as_json)
    except Exception as exc:
        if isinstance(exc, OSError) and _is_parsers(exc):  # which prints help itself
            with output.standard_output():
                raise
        if os.environ.get("BROCH_DEBUG") == "1":
            raise
        text = f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__
        return _fail(InternalError(text, place="internal", hint=_REPORT_HINT), as_json)


def _is_parsers(exc: OSError) -> bool:
    """Whether it was raised without any command of ours being run."""
    import traceback

    _, *inner = traceback.walk_tb(exc.__traceback__)  # the first is `_invoke`
    return not any(frame.f_globals["__name__"].startswith("broch.") for frame, _ in inner)


def _command() -> Any:
    from typer.main import get_command

    from broch.cli.commands import app

    return get_command(app)


def _fail(error: BrochError, as_json: bool) -> int:
    if os.environ.get("BROCH_DEBUG") == "1":
        import traceback

        output.note("".join(traceback.format_exception(error)).rstrip())
    if as_json:
        output.print_json({"error": output.error_data(error)})
    output.note_error(error)
    return error.exit_code


def usage_error(error: Any, arguments: Sequence[str]) -> UsageError:
    """A parser's error as one of ours, with the nearest option or command as a hint."""
    context = getattr(error, "ctx", None)
    place = context.command_path if context is not None else _command_path(arguments)
    message: str = error.format_message().split("\n")[0].split(" (Possible options")[0]
    message = message.split(" Did you mean")[0].rstrip(".")
    near: list[str] = []
    option = getattr(error, "option_name", None)
    commands = getattr(context.command, "commands", None) if context is not None else None
    if option is not None and context is not None:
        known = [name for param in context.command.params for name in param.opts]
        near = difflib.get_close_matches(option, known, 1, 0.5)
    elif commands and message.startswith("No such command"):
        names = [word for word in arguments if repr(word) in message]
        near = difflib.get_close_matches(names[0], commands, 1, 0.5) if names else []
    hint = f"did you mean {near[0]!r}?" if near else f"see {place} --help"
    return UsageError(message[:1].lower() + message[1:], place=place, hint=hint)


def _command_path(arguments: Sequence[str]) -> str:
    """The command that ``arguments`` name, as far as they name one."""
    path = "broch"
    command = _command()
    for word in arguments:
        commands: Mapping[str, Any] = getattr(command, "commands", {})
        if word in commands:
            path, command = f"{path} {word}", commands[word]
    return path
