"""Reading a function's or a call's declaration, with errors that name file and line."""

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, get_type_hints

import msgspec

from broch.errors import MalformedError
from broch.image import Port, PortKind, is_name
from broch.sdk.shapes import UnknownTypeError, parameters_struct, shape_of

_PORT_NAME_HINT: Final = "names are lower case letters, digits, - and _, and begin with a letter"


class DeclarationError(MalformedError):
    """A module declares what cannot be; ``place`` is file and line."""

    code = "declaration"


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """A port with what the runtime needs to serve it."""

    port: Port
    argument: Any = None  # type to decode what is given; entries: a struct of the parameters
    result: Any = None  # type to decode or check what comes back
    function: Callable[..., Any] | None = None
    place: str = ""


def caller_place() -> str:
    """``file:line`` of the code outside this package that is being run."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__package__") == __package__:
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def function_place(function: Callable[..., Any]) -> str:
    """``file:line`` of a function's definition (its decorator's line, where it has one)."""
    code = getattr(function, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else caller_place()


def check_name(name: str, place: str) -> str:
    """The name, or a :class:`DeclarationError`."""
    if not isinstance(name, str) or not is_name(name):
        raise DeclarationError(f"{name!r} is not a name", place=place, hint=_PORT_NAME_HINT)
    return name


def shape_at(kind: object, what: str, place: str) -> Any:
    """The shape of ``kind``, or a :class:`DeclarationError` that names ``what``."""
    try:
        return shape_of(kind)
    except UnknownTypeError as exc:
        raise DeclarationError(f"{what}: {exc}", place=place) from None


def _signature(function: Callable[..., Any], place: str) -> tuple[list[tuple[str, Any]], Any]:
    """Parameters with their types, and the type that is returned."""
    name = _check_plain(function, place)
    try:
        hints = get_type_hints(function)
    except Exception as exc:  # noqa: BLE001 (it evaluates annotations, which are author's code)
        raise DeclarationError(f"{name}: unknown type: {exc}", place=place) from None
    parameters: list[tuple[str, Any]] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise DeclarationError(f"{name}: {parameter} is not a plain parameter", place=place)
        if parameter.default is not parameter.empty:
            raise DeclarationError(
                f"{name}: parameter {parameter.name} has a default",
                place=place,
                hint="what crosses the boundary is always given; use a Struct with defaults",
            )
        if parameter.name not in hints:
            raise DeclarationError(f"{name}: {parameter.name} has no type", place=place)
        parameters.append((parameter.name, hints[parameter.name]))
    if "return" not in hints:
        raise DeclarationError(
            f"{name} does not say what it returns", place=place, hint="add -> None or a type"
        )
    return parameters, hints["return"]


def _check_plain(function: Callable[..., Any], place: str) -> str:
    """The name of a function that is neither asynchronous nor a generator."""
    if not inspect.isfunction(function):
        raise DeclarationError(f"{function!r:.80} is not a function", place=place)
    name: str = function.__name__
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise DeclarationError(
            f"{name} is an async function",
            place=place,
            hint="a module handles one message at a time; write a plain function",
        )
    if inspect.isgeneratorfunction(function):
        raise DeclarationError(f"{name} is a generator; write a plain function", place=place)
    return name


def check_state_function(function: Callable[..., Any], parameters: int) -> None:
    """A function that gives the state (no parameters) or takes it over (one)."""
    place = function_place(function)
    name = _check_plain(function, place)
    try:
        inspect.signature(function).bind(*[None] * parameters)
    except TypeError:
        expected = "one parameter" if parameters else "no parameters"
        raise DeclarationError(f"{name} takes {expected}", place=place) from None


def one_argument(kind: PortKind, function: Callable[..., Any]) -> Declared:
    """An input (returns None) or a handler (returns a value): exactly one parameter."""
    place = function_place(function)
    parameters, result = _signature(function, place)
    name = check_name(function.__name__, place)
    if len(parameters) != 1:
        raise DeclarationError(
            f"{kind} {name} takes {len(parameters)} parameters, expected one", place=place
        )
    (only,) = inspect.signature(function).parameters.values()
    if only.kind is only.KEYWORD_ONLY:
        raise DeclarationError(f"{name}: {only.name} is given by position", place=place)
    argument = parameters[0][1]
    answers = kind is PortKind.HANDLER
    if not answers and result is not type(None):
        raise DeclarationError(
            f"input {name} returns a value", place=place, hint="inputs return None; use a handler"
        )
    return Declared(
        port=Port(
            kind=kind,
            name=name,
            argument=shape_at(argument, f"{name}({parameters[0][0]})", place),
            result=shape_at(result, f"result of {name}", place) if answers else None,
        ),
        argument=argument,
        result=result if answers else None,
        function=function,
        place=place,
    )


def entry(function: Callable[..., Any]) -> Declared:
    """An entry: any number of named parameters, any result."""
    place = function_place(function)
    parameters, result = _signature(function, place)
    name = check_name(function.__name__, place)
    for parameter, kind in parameters:
        shape_at(kind, f"{name}({parameter})", place)
    try:
        struct: type[msgspec.Struct] = parameters_struct(name, parameters)
    except (TypeError, ValueError) as exc:
        raise DeclarationError(f"{name}: {exc}", place=place) from None
    return Declared(
        port=Port(
            kind=PortKind.ENTRY,
            name=name,
            argument=shape_at(struct, name, place),
            result=shape_at(result, f"result of {name}", place),
        ),
        argument=struct,
        result=result,
        function=function,
        place=place,
    )


def periodic(function: Callable[..., Any], seconds: float) -> Declared:
    """An ``every``: no parameters, no result."""
    place = function_place(function)
    parameters, result = _signature(function, place)
    name = check_name(function.__name__, place)
    if parameters or result is not type(None):
        raise DeclarationError(f"every {name} takes nothing and returns None", place=place)
    return Declared(
        port=Port(kind=PortKind.EVERY, name=name, seconds=float(seconds)),
        function=function,
        place=place,
    )


def check_period(seconds: float) -> None:
    """Refuse what is no period of an ``every``; ``@module.every`` without one, too."""
    if type(seconds) not in (int, float) or not 0.001 <= seconds <= 86400 * 366:
        said = "without a period" if callable(seconds) else f"{seconds!r:.80} seconds"
        raise DeclarationError(
            f"every {said}: expected a number from 0.001 to a year",
            place=caller_place(),
            hint="write @module.every(seconds)",
        )


def bare(kind: PortKind, name: str, argument: Any, result: Any = None) -> Declared:
    """An output (argument only), a request or an ocall (both)."""
    place = caller_place()
    check_name(name, place)
    answers = kind is not PortKind.OUTPUT
    return Declared(
        port=Port(
            kind=kind,
            name=name,
            argument=shape_at(argument, f"{kind} {name}", place),
            result=shape_at(result, f"answer to {name}", place) if answers else None,
        ),
        argument=argument,
        result=result if answers else None,
        place=place,
    )
