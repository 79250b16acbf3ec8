"""Declarations: what is wrong is said with file and line, and with what to do."""

import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final

import pytest

from broch import DeclarationError, Module, Struct
from broch.errors import MalformedError
from broch.image import Interface, PortKind
from broch.image.interface import MAX_PORTS


class Reading(Struct):
    percent: float


HERE: Final = __file__


def line_of(function: Callable[..., Any]) -> int:
    """Where a function's code begins: its first decorator, or its def."""
    line: int = inspect.unwrap(function).__code__.co_firstlineno
    return line


@pytest.fixture
def module() -> Module:
    return Module("controller")


def refused(declare: Callable[..., Any], function: Callable[..., Any]) -> DeclarationError:
    """What declaring ``function`` is refused with, which must name its place."""
    with pytest.raises(DeclarationError) as caught:
        declare(function)
    assert caught.value.place == f"{HERE}:{line_of(function)}"
    return caught.value


# Names


@pytest.mark.parametrize("name", ["", "Valve", "1st", "a b", "ä", "a" * 65, None, 5])
def test_names_of_modules_and_ports(module: Module, name: Any) -> None:
    declarations: list[Callable[[], object]] = [
        lambda: Module(name),
        lambda: module.output(name, int),
        lambda: module.request(name, int, int),
        lambda: module.ocall(name, int, int),
    ]
    for declare in declarations:
        with pytest.raises(DeclarationError, match="is not a name") as caught:
            declare()
        assert caught.value.place == f"{HERE}:{declare.__code__.co_firstlineno}"
        assert caught.value.hint == (
            "names are lower case letters, digits, - and _, and begin with a letter"
        )


def test_a_function_whose_name_is_no_name(module: Module) -> None:
    def Moisture(reading: Reading) -> None: ...
    def _status() -> int:
        return 1

    assert "'Moisture' is not a name" in str(refused(module.input, Moisture))
    assert "'_status' is not a name" in str(refused(module.entry, _status))


def test_the_second_port_of_a_name_names_the_first(module: Module) -> None:
    @module.input
    def valve(reading: Reading) -> None: ...

    with pytest.raises(DeclarationError) as caught:
        module.output("valve", Reading)
    first = f"{HERE}:{line_of(valve)}"
    assert caught.value.message == f"output valve is declared already, as input at {first}"
    assert caught.value.place is not None
    assert caught.value.place.startswith(f"{HERE}:")


def test_two_handlers_of_a_name(module: Module) -> None:
    def level(reading: Reading) -> int:
        return 1

    def other(reading: Reading) -> int:
        return 2

    other.__name__ = "level"
    module.handler(level)
    error = refused(module.handler, other)
    assert error.message.startswith("handler level is declared already, as handler at ")


# Functions


def test_an_async_function(module: Module) -> None:
    async def moisture(reading: Reading) -> None: ...

    error = refused(module.input, moisture)
    assert error.message == "moisture is an async function"
    assert error.hint == "a module handles one message at a time; write a plain function"


def test_an_async_generator(module: Module) -> None:
    async def moisture(reading: Reading) -> AsyncIterator[int]:
        yield 1

    assert "is an async function" in str(refused(module.entry, moisture))


def test_a_generator(module: Module) -> None:
    def status() -> Iterator[int]:
        yield 1

    assert "status is a generator; write a plain function" in str(refused(module.entry, status))


class Callee:
    def __call__(self, reading: Reading) -> None: ...


@pytest.mark.parametrize("thing", [Callee(), Callee, len, print, None, 5])
def test_what_is_not_a_function(module: Module, thing: Any) -> None:
    for declare in (module.input, module.handler, module.entry, module.every(1)):
        with pytest.raises(DeclarationError, match="is not a function") as caught:
            declare(thing)
        assert caught.value.place is not None
        assert caught.value.place.startswith(f"{HERE}:")


def test_a_parameter_without_a_type(module: Module) -> None:
    def moisture(reading: Reading) -> None: ...

    del moisture.__annotations__["reading"]
    error = refused(module.input, moisture)
    assert error.message == "moisture: reading has no type"


def test_no_type_of_the_result(module: Module) -> None:
    def status() -> None: ...

    del status.__annotations__["return"]
    error = refused(module.entry, status)
    assert error.message == "status does not say what it returns"
    assert error.hint == "add -> None or a type"


def test_a_default(module: Module) -> None:
    def status(depth: int = 1) -> int:
        return depth

    error = refused(module.entry, status)
    assert error.message == "status: parameter depth has a default"
    assert error.hint == "what crosses the boundary is always given; use a Struct with defaults"


def test_parameters_that_are_not_plain(module: Module) -> None:
    def many(*depths: int) -> int:
        return 1

    def named(**depths: int) -> int:
        return 1

    def placed(depth: int, /) -> int:
        return depth

    assert "*depths: int is not a plain parameter" in str(refused(module.entry, many))
    assert "**depths: int is not a plain parameter" in str(refused(module.entry, named))
    assert "is not a plain parameter" in str(refused(module.entry, placed))


def test_an_input_given_by_keyword_only(module: Module) -> None:
    """The runtime gives it by position: this would end the enclave at its first event."""

    def moisture(*, reading: Reading) -> None: ...

    for declare in (module.input, module.handler):
        assert "moisture: reading is given by position" in str(refused(declare, moisture))


def test_an_entry_may_have_parameters_by_keyword_only(module: Module) -> None:
    @module.entry
    def status(*, depth: int) -> int:
        return depth

    assert module.interface().ports[0].argument is not None


def test_an_input_takes_one_parameter(module: Module) -> None:
    def none() -> None: ...
    def two(a: int, b: int) -> None: ...

    assert "input none takes 0 parameters, expected one" in str(refused(module.input, none))
    assert "handler two takes 2 parameters, expected one" in str(refused(module.handler, two))


def test_an_input_returns_nothing(module: Module) -> None:
    def moisture(reading: Reading) -> int:
        return 1

    error = refused(module.input, moisture)
    assert error.message == "input moisture returns a value"
    assert error.hint == "inputs return None; use a handler"


def test_every_takes_and_returns_nothing(module: Module) -> None:
    def one(a: int) -> None: ...
    def result() -> int:
        return 1

    for function in (one, result):
        error = refused(module.every(1), function)
        assert error.message == f"every {function.__name__} takes nothing and returns None"


@pytest.mark.parametrize(
    "seconds", [0, -1, 0.0009, 86400 * 366 + 1, float("nan"), float("inf"), "1", None, True]
)
def test_a_period_out_of_range(module: Module, seconds: Any) -> None:
    with pytest.raises(DeclarationError, match=r"expected a number from 0\.001") as caught:
        module.every(seconds)
    assert caught.value.place is not None
    assert caught.value.place.startswith(f"{HERE}:")


def test_every_without_a_period(module: Module) -> None:
    """``@module.every`` alone would take the function for the seconds, and declare nothing."""
    every: Any = module.every

    def tick() -> None: ...

    with pytest.raises(DeclarationError) as caught:
        every(tick)
    assert caught.value.message == "every without a period: expected a number from 0.001 to a year"
    assert caught.value.hint == "write @module.every(seconds)"


# Types


def test_a_type_that_may_not_cross(module: Module) -> None:
    def moisture(reading: set[int]) -> None: ...
    def level(reading: int) -> set[int]:
        return set()

    def status(a: int, b: object) -> int:
        return 1

    assert "moisture(reading): set may not cross" in str(refused(module.input, moisture))
    assert "result of level: set may not cross" in str(refused(module.handler, level))
    assert "status(b): object may not cross" in str(refused(module.entry, status))
    assert "result of level: set may not cross" in str(refused(module.entry, level))


def test_a_type_of_an_end_that_may_not_cross(module: Module) -> None:
    declarations: list[tuple[Callable[[], object], str]] = [
        (lambda: module.output("valve", set), "output valve: set may not cross"),
        (lambda: module.request("ask", set, int), "request ask: set may not cross"),
        (lambda: module.request("ask", int, complex), "answer to ask: complex may not cross"),
        (lambda: module.ocall("host", complex, int), "ocall host: complex may not cross"),
        (lambda: module.ocall("host", int, complex), "answer to host: complex may not cross"),
    ]
    for declare, text in declarations:
        with pytest.raises(DeclarationError) as caught:
            declare()
        assert caught.value.place == f"{HERE}:{declare.__code__.co_firstlineno}"
        assert text in caught.value.message
    assert module.interface() == Interface()


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        ("Nowhere", "name 'Nowhere' is not defined"),
        ("list[", "Forward reference must be an expression"),
        ("1 / 0", "division by zero"),
        ("{}['x']", "'x'"),
    ],
)
def test_an_annotation_that_cannot_be_read(module: Module, annotation: str, text: str) -> None:
    def moisture(reading: int) -> None: ...

    moisture.__annotations__["reading"] = annotation
    error = refused(module.input, moisture)
    assert error.message.startswith("moisture: unknown type: ")
    assert text in error.message


# State


def test_a_second_export_or_import(module: Module) -> None:
    @module.export_state
    def give() -> dict[str, int]:
        return {}

    @module.import_state
    def take(state: dict[str, int]) -> None: ...

    def again() -> dict[str, int]:
        return {}

    def take_again(state: dict[str, int]) -> None: ...

    assert refused(module.export_state, again).message == "a second export_state"
    assert refused(module.import_state, take_again).message == "a second import_state"


def test_functions_of_the_state_are_plain_too(module: Module) -> None:
    async def give() -> int:
        return 1

    def stream() -> Iterator[int]:
        yield 1

    def needs(a: int) -> int:
        return a

    def takes_none() -> None: ...
    def takes_two(a: int, b: int) -> None: ...

    assert "give is an async function" in str(refused(module.export_state, give))
    assert "stream is a generator" in str(refused(module.export_state, stream))
    assert "needs takes no parameters" in str(refused(module.export_state, needs))
    assert "takes_none takes one parameter" in str(refused(module.import_state, takes_none))
    assert "takes_two takes one parameter" in str(refused(module.import_state, takes_two))


# The whole


def test_too_many_ports(module: Module) -> None:
    for number in range(MAX_PORTS):
        module.output(f"p{number}", int)
    with pytest.raises(DeclarationError, match=f"more than {MAX_PORTS} ports"):
        module.output("one-more", int)


def test_a_declaration_error_is_malformed_input_and_says_where() -> None:
    with pytest.raises(MalformedError) as caught:
        Module("No")
    assert caught.value.code == "declaration"
    assert caught.value.exit_code == 3
    assert str(caught.value) == f"{caught.value.place}: 'No' is not a name"


def test_the_place_of_a_decorated_function_is_its_decorator(module: Module) -> None:
    line = inspect.currentframe()
    assert line is not None
    with pytest.raises(DeclarationError) as caught:

        @module.input
        def two(a: int, b: int) -> None: ...

    assert caught.value.place == f"{HERE}:{line.f_lineno - 3}"


def test_what_was_refused_is_not_declared(module: Module) -> None:
    def bad(a: object) -> None: ...

    refused(module.input, bad)
    assert module.interface() == Interface()
    module.output("bad", int)
    assert [port.kind for port in module.interface().ports] == [PortKind.OUTPUT]
