"""Modules in C, built and run on a microcontroller, for tests."""

import struct
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from broch.crypto.spongent import SpongeWrap
from broch.errors import UsageError
from broch.image.toolchain import find
from broch.tee.contract import CompileSettings
from broch.tee.hosting import Function
from broch.tee.sancus import instructions, keys
from broch.tee.sancus.board import Board, Outcome
from broch.tee.sancus.compiling import build
from broch.tee.sancus.keys import vendor_key
from broch.tee.sancus.module_file import ModuleFile, read_module

# A module's key is a hash of all its text, which takes most of a second: once for each is enough.
module_key = cache(keys.module_key)
instructions.module_key = module_key  # type: ignore[attr-defined]

NODE_KEY: Final = bytes(range(16))
VENDOR: Final = 1
LED: Final = """
#include "broch.h"

BROCH_DRIVER(leds, 0x28, 0x30);
BROCH_STRUCT(Light, (bool, on), (u16, level));
BROCH_OUTPUT(changed, Light);
BROCH_OUTPUT(unused, none);

static u16 presses;

BROCH_START
{
    broch_set(leds, BROCH_P2DIR, 1);
    broch_print("ready");
}

BROCH_INPUT(set, Light, light)
{
    if (light->level == 13)
        broch_refuse("unlucky");
    if (light->on)
        broch_set(leds, BROCH_P2OUT, 1);
    else
        broch_clear(leds, BROCH_P2OUT, 1);
    presses++;
    changed(light);
}

BROCH_ENTRY(count, none, ask, u16, reply)
{
    (void)ask;
    *reply = presses;
}

BROCH_STRUCT(Number, (u16, n));

BROCH_ENTRY(check, Number, ask, none, reply)
{
    (void)reply;
    if (ask->n > 9)
        broch_refuse("above nine");
}

BROCH_EVERY(tick, 1000)
{
    broch_print("tick");
}

BROCH_INTERRUPT(edge, 3)
{
    presses += 100;
    broch_clear(leds, BROCH_P2IFG, 1);
}
"""


def needs_compiler() -> None:
    """Skip where there is no C compiler for an MSP430."""
    try:
        find("msp430")
    except UsageError as exc:
        pytest.skip(f"{exc.message}: {exc.hint}")


@cache
def compiled(source: str, name: str = "led", slot: int = 0) -> bytes:
    """The ELF file of a module."""
    needs_compiler()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "module.c")
        path.write_text(source)
        return build(path, CompileSettings(name=name, slot=slot)).packed.data


@cache
def module_file(source: str, name: str, slot: int) -> ModuleFile:
    """The same, read."""
    return read_module(compiled(source, name, slot))


def records(output: bytes) -> Iterator[tuple[int, bytes]]:
    """What a call put out: kinds and bytes."""
    while output:
        kind, size = struct.unpack_from("<HH", output)
        yield kind, output[4 : 4 + size]
        output = output[4 + size + size % 2 :]


class Running:
    """A module on a board, and its deployer."""

    def __init__(
        self,
        source: str = LED,
        name: str = "led",
        *,
        board: Board | None = None,
        slot: int = 0,
        start: bool = True,
        random: Callable[[int], bytes] = bytes,
    ) -> None:
        self.source, self.name = source, name
        self.board = board or Board(NODE_KEY, random=random)
        self.file = module_file(source, name, slot)
        self.loaded = self.board.load(self.file, vendor=VENDOR)
        part = self.file.module
        self.key = module_key(vendor_key(NODE_KEY, VENDOR), part.text, part.layout)
        self.nonce = b""
        if start:
            assert self.enter(Function.START).status == 0

    def copy(self) -> "Running":
        """The same on a microcontroller of its own, which is much faster than to join again.

        The cookie in the secret section is right there, too: the node key is the same.
        """
        twin = Running(self.source, self.name, start=False)
        layout = self.file.module.layout
        memory = self.board.cpu.bus.memory[layout.secret_start : layout.secret_end]
        twin.board.cpu.bus.load(layout.secret_start, bytes(memory))
        for number, port in self.board.ports.items():
            for address in port.addresses[0]:
                twin.board.ports[number].put(address, port.get(address))
        twin.nonce = self.nonce
        return twin

    def enter(self, function: int, data: bytes = b"") -> Outcome:
        """Call it."""
        return self.board.enter(self.loaded, function, data)

    def port(self, name: str) -> int:
        """The number of a port."""
        return self.file.ports.numbers[name]

    def attest(self, challenge: bytes = bytes(32)) -> bool:
        """Whether it proves who it is."""
        outcome = self.enter(Function.ATTEST, challenge)
        assert outcome.status == 0, outcome
        self.nonce, tag = outcome.output[:16], outcome.output[16:]
        return self.mac(b"\1\0" + challenge + self.nonce) == tag

    def mac(self, data: bytes) -> bytes:
        """A tag under the module's key."""
        return SpongeWrap(self.key).mac(data)

    def grant(
        self,
        key: bytes,
        port: str,
        *,
        connection: int = 1,
        epoch: int = 1,
        serial: int = 1,
        role: int | None = None,
        nonce: bytes | None = None,
    ) -> int:
        """Give it a connection's key; the status. What it confirms is checked."""
        if role is None:
            outputs = [p.name for p in self.file.ports.interface.ports if p.kind == "output"]
            role = 2 if port in outputs else 1
        head = bytes([2, role, self.port(port), 0])
        head += struct.pack(">III", connection, epoch, serial) + (nonce or self.nonce)
        cipher, tag = SpongeWrap(self.key).wrap(head, key)
        outcome = self.enter(Function.GRANT, head + cipher + tag)
        if outcome.status == 0:
            said = b"\3\0" + struct.pack(">I", serial) + (nonce or self.nonce)
            assert outcome.output == self.mac(said)
        return outcome.status

    def call(self, entry: str, arguments: Any = None) -> tuple[int, Any]:
        """Call an entry: the status of its result, and that."""
        data = msgspec.msgpack.encode({} if arguments is None else arguments)
        outcome = self.enter(Function.ENTRY, struct.pack("<H", self.port(entry)) + data)
        ((kind, record),) = (each for each in records(outcome.output) if each[0] == 2)
        assert kind == 2
        status = int.from_bytes(record[:2], "little")
        return status, record[2:].decode() if status else msgspec.msgpack.decode(record[2:])


def sealed(
    key: bytes, value: Any, *, connection: int = 1, epoch: int = 1, counter: int = 1
) -> bytes:
    """An event as the host gives it; ``value`` is encoded unless it is bytes."""
    body = value if isinstance(value, bytes) else msgspec.msgpack.encode(value)
    body += b"\x80\x00"[: 2 - len(body) % 2]
    data = struct.pack(">IQI", epoch, counter, connection) + b"\0\x80"
    cipher, tag = SpongeWrap(key).wrap(data, body)
    return struct.pack(">IIQ", connection, epoch, counter) + cipher + tag


def opened(key: bytes, record: bytes) -> tuple[int, int, int, Any]:
    """Connection, epoch, counter and value of an event that a module sent."""
    connection, epoch, counter = struct.unpack_from(">IIQ", record)
    data = struct.pack(">IQI", epoch, counter, connection) + b"\0\x80"
    body = SpongeWrap(key).unwrap(data, record[16:-16], record[-16:]).rstrip(b"\0")
    assert body[-1] == 0x80
    return connection, epoch, counter, msgspec.msgpack.decode(body[:-1])
