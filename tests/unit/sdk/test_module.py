"""A declared module: its interface in order, and what its ends do while it runs."""

import doctest
from typing import Any

import pytest

import broch
import broch.sdk.module
import broch.sdk.shapes
from broch import DeclarationError, Module, ModuleIdentity, Refused, Struct
from broch.image import Interface, PortKind


class Reading(Struct):
    percent: float


IDENTITY = ModuleIdentity(
    app="garden",
    module="valve",
    tee="sgx",
    emulated=True,
    measurement=bytes(32),
    signer=None,
    signing_key=bytes(32),
)


class Recorder:
    """A host that writes down what it is asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def emit(self, port: int, value: Any) -> None:
        self.calls.append(("emit", port, value))

    def request(self, port: int, value: Any) -> Any:
        self.calls.append(("request", port, value))
        return 12

    def ocall(self, port: int, value: Any) -> Any:
        self.calls.append(("ocall", port, value))
        return "anything"

    def load_store(self) -> dict[str, Any]:
        return {"litres": 3}

    def store_changed(self) -> None:
        self.calls.append(("changed",))

    def derive_key(self, label: str) -> bytes:
        return label.encode().ljust(32, b".")

    def sign(self, data: bytes) -> bytes:
        self.calls.append(("sign", data))
        return bytes(64)

    def identity(self) -> ModuleIdentity:
        return IDENTITY


@pytest.mark.parametrize("package", [broch, broch.sdk.module, broch.sdk.shapes])
def test_examples_in_docstrings(package: Any) -> None:
    failed, attempted = doctest.testmod(package)
    assert failed == 0
    assert attempted > 0


def declare() -> tuple[Module, dict[str, Any]]:
    module = Module("controller")
    ends: dict[str, Any] = {"valve": module.output("valve", Reading)}

    @module.input
    def moisture(reading: Reading) -> None: ...

    ends["ask"] = module.request("ask", Reading, int)

    @module.handler
    def level(reading: Reading) -> int:
        return 1

    @module.entry
    def status(depth: int, names: list[str]) -> dict[str, int]:
        return {}

    @module.every(2)
    def tick() -> None: ...

    ends["host"] = module.ocall("host", int, str)
    ends["functions"] = [moisture, level, status, tick]
    return module, ends


def test_the_interface_has_all_that_was_declared_in_order() -> None:
    ports = declare()[0].interface().ports
    assert [(port.kind, port.name) for port in ports] == [
        (PortKind.OUTPUT, "valve"),
        (PortKind.INPUT, "moisture"),
        (PortKind.REQUEST, "ask"),
        (PortKind.HANDLER, "level"),
        (PortKind.ENTRY, "status"),
        (PortKind.EVERY, "tick"),
        (PortKind.OCALL, "host"),
    ]
    assert [port.argument is not None for port in ports] == [True] * 5 + [False, True]
    assert [port.result is not None for port in ports] == [
        False,
        False,
        True,
        True,
        True,
        False,
        True,
    ]
    assert ports[5].seconds == 2.0


def test_the_interface_of_a_module_is_one_that_images_accept() -> None:
    interface = declare()[0].interface()
    assert Interface.from_data(interface.to_data()) == interface


def test_an_entry_takes_a_struct_of_its_parameters() -> None:
    port = declare()[0].interface().find("status")
    assert port is not None
    assert port.argument == {
        "type": "struct",
        "name": "status",
        "fields": {"depth": {"type": "int"}, "names": {"type": "list", "items": {"type": "str"}}},
        "required": ["depth", "names"],
    }


def test_two_declarations_of_one_module_are_equal() -> None:
    assert declare()[0].interface() == declare()[0].interface()


def test_declared_functions_stay_what_they_were() -> None:
    moisture, level, *_ = declare()[1]["functions"]
    assert moisture(Reading(percent=1.0)) is None
    assert level(Reading(percent=1.0)) == 1


def test_ends_go_by_the_numbers_of_their_ports() -> None:
    module, ends = declare()
    host = Recorder()
    module._attach(host)
    ends["valve"].emit(Reading(percent=1.0))
    assert ends["ask"](Reading(percent=2.0)) == 12
    assert ends["host"](5) == "anything"
    assert host.calls == [
        ("emit", 0, Reading(percent=1.0)),
        ("request", 2, Reading(percent=2.0)),
        ("ocall", 6, 5),
    ]


def test_nothing_works_before_the_module_runs() -> None:
    module, ends = declare()
    for use in (
        lambda: ends["valve"].emit(Reading(percent=1.0)),
        lambda: ends["ask"](Reading(percent=1.0)),
        lambda: ends["host"](1),
        lambda: module.sign(b"x"),
        lambda: module.derive_key("x"),
        lambda: module.identity,
    ):
        with pytest.raises(RuntimeError, match="module controller is not running"):
            use()
    with pytest.raises(RuntimeError, match="only while the module runs"):
        module.store["x"] = 1


def test_nothing_is_declared_while_it_runs() -> None:
    """Its interface was measured without it."""
    module, _ = declare()
    module._attach(Recorder())
    with pytest.raises(DeclarationError, match="late is declared while the module runs"):
        module.output("late", int)


def test_services_of_the_host() -> None:
    module, _ = declare()
    host = Recorder()
    module._attach(host)
    assert module.identity is IDENTITY
    assert module.derive_key("tls") == b"tls".ljust(32, b".")
    assert module.store["litres"] == 3
    module.store["litres"] = 4
    assert module.sign(b"data") == bytes(64)
    assert host.calls == [("changed",), ("sign", b"data")]


@pytest.mark.parametrize("label", ["", "a" * 49, "ü" * 25])
def test_a_label_has_a_size(label: str) -> None:
    module, _ = declare()
    module._attach(Recorder())
    with pytest.raises(ValueError, match="a label has 1 to 48 bytes"):
        module.derive_key(label)
    assert module.derive_key("a" * 48)


@pytest.mark.parametrize("data", [b"broch/", b"broch/state/1", b"broch/join/confirm/1"])
def test_messages_of_brochs_own_are_not_signed(data: bytes) -> None:
    module, _ = declare()
    host = Recorder()
    module._attach(host)
    with pytest.raises(Refused, match="begins with broch/"):
        module.sign(data)
    assert host.calls == []
    assert module.sign(b"broch") == bytes(64)
