"""Between enclave and device: a real device, in whose name it answers, what it refuses."""

import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import pytest
from tests.emulated import Memory

from broch.enclave import packets
from broch.enclave.device_channel import MAX_PACKET, DeviceChannel, DeviceInfo, DeviceService
from broch.errors import InternalError, UntrustedError
from broch.image import Image, Interface
from broch.tee.contract import DeviceSettings, Endorsements, PackSettings
from broch.tee.keystone import TEE

NOW: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)
VALVE, PUMP = 0, 1


def image(module: str) -> Image:
    return Image(
        app="garden",
        module=module,
        files={"main.py": b"pass\n"},
        main="main.py",
        interface=Interface(),
        runtime=bytes(32),
        deployer=bytes(32),
    )


DEVICE: Final = TEE.device(
    DeviceSettings(name="field", secret=bytes(range(32)), nv=Memory(), now=NOW)
)
IDENTITIES: Final = [
    DEVICE.load(TEE.pack(image(name), PackSettings(), None)).identity for name in ("valve", "pump")
]
ENDORSEMENTS: Final[Endorsements] = DEVICE.endorsements()


def service(module: int = VALVE, report_data_size: int = TEE.report_data_size) -> DeviceService:
    return DeviceService(DEVICE, IDENTITIES[module], report_data_size, TEE.seal_bindings[0])


def answered(question: object, of: DeviceService | None = None) -> tuple[bool, Any]:
    packet = question if isinstance(question, bytes) else msgspec.msgpack.encode(question)
    ok, value = msgspec.msgpack.decode((of or service()).answer(packet))
    return ok, value


@pytest.fixture
def channels() -> Iterator[list[DeviceChannel]]:
    """The channels of valve and pump, each with its service at the other end."""
    channels, threads = [], []
    for module in (VALVE, PUMP):
        ours, theirs = packets.pair()
        channels.append(DeviceChannel(ours))
        threads.append(threading.Thread(target=serve, args=(service(module), theirs)))
        threads[-1].start()
    yield channels
    for channel, thread in zip(channels, threads, strict=True):
        channel.close()
        thread.join()


def serve(device: DeviceService, sock: socket.socket) -> None:
    with sock:
        while packet := sock.recv(MAX_PACKET):
            sock.send(device.answer(packet))


# What it answers, and in whose name


def test_an_enclave_learns_who_it_is(channels: list[DeviceChannel]) -> None:
    assert channels[VALVE].info() == DeviceInfo(
        tee="keystone",
        emulated=True,
        report_data_size=TEE.report_data_size,
        measurement=IDENTITIES[VALVE].measurement.value,
        signer=None,
    )
    assert channels[PUMP].info().measurement == IDENTITIES[PUMP].measurement.value


def test_evidence_is_in_the_name_of_whoever_asks(channels: list[DeviceChannel]) -> None:
    for channel, identity in zip(channels, IDENTITIES, strict=True):
        claims = TEE.verify(channel.evidence(b"r" * 64), ENDORSEMENTS, at=NOW)
        assert claims.measurement == identity.measurement.value
        assert claims.report_data[:64] == b"r" * 64


def test_sealing_keys_are_of_enclave_and_label(channels: list[DeviceChannel]) -> None:
    keys = [channel.seal_key(label) for channel in channels for label in (b"a", b"b")]
    assert len(set(keys)) == 4
    assert {len(key) for key in keys} == {32}
    assert channels[VALVE].seal_key(b"a") == keys[0]


def test_counters_are_of_enclave_and_name(channels: list[DeviceChannel]) -> None:
    valve, pump = channels
    assert valve.counter("a") == 0
    assert [valve.increment("a") for _ in range(3)] == [1, 2, 3]
    assert (valve.counter("a"), valve.counter("b"), pump.counter("a")) == (3, 0, 0)


# What it refuses


@pytest.mark.parametrize(
    "packet",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xc1", id="not msgpack"),
        pytest.param(["info"], id="one item"),
        pytest.param(["info", None, None], id="three items"),
        pytest.param({"operation": "info"}, id="map"),
        pytest.param([5, None], id="operation as number"),
        pytest.param(msgspec.msgpack.encode(["info", None]) + b"\0", id="bytes after it"),
        pytest.param(b"\x92\xa4info" + b"\x91" * 60_000, id="nested until the stack ends"),
    ],
)
def test_what_is_no_question_is_answered_so(packet: object) -> None:
    """Whatever comes out of an enclave, its device lives on: others depend on it."""
    assert answered(packet) == (False, "not a question")


@pytest.mark.parametrize(
    ("operation", "argument"),
    [
        ("", None),
        ("load", b""),
        ("__class__", None),
        ("evidence", "text"),
        ("evidence", None),
        ("seal_key", "text"),
        ("seal_key", None),
        ("seal_key", bytes(65)),
        ("counter", None),
        ("counter", 5),
        ("counter", ["store"]),
        ("counter", {"name": "store"}),
        ("counter", b"store"),
        ("counter", ""),
        ("counter", "a" * 65),
        ("counter", "ü"),
        ("increment", None),
        ("increment", "ü"),
    ],
)
def test_an_unknown_question_is_refused(operation: str, argument: object) -> None:
    assert answered([operation, argument]) == (False, "no such question")


@pytest.mark.parametrize(("carries", "size"), [(64, 65), (32, 33), (1024, 65)])
def test_report_data_is_bounded(carries: int, size: int) -> None:
    answer = answered(["evidence", bytes(size)], service(report_data_size=carries))
    assert answer == (False, "report data too long")


@pytest.mark.parametrize("name", ["../secret", "..", "/etc/passwd", "a/b", ".new-1"])
def test_a_counter_has_no_path(name: str) -> None:
    """Names become places in the device's memory; none of them leads anywhere else."""
    assert answered(["increment", name]) == (True, 1)


def test_a_refusal_reaches_the_enclave_as_one(channels: list[DeviceChannel]) -> None:
    with pytest.raises(UntrustedError, match="the device refused seal_key: no such question"):
        channels[VALVE].seal_key(bytes(65))
    assert channels[VALVE].counter("z") == 0


# The end


def test_a_device_that_is_gone_before_the_question() -> None:
    ours, theirs = packets.pair()
    theirs.close()
    channel = DeviceChannel(ours)
    with pytest.raises(InternalError, match="the device is gone"):
        channel.info()
    channel.close()


def test_a_device_that_goes_instead_of_answering() -> None:
    ours, theirs = packets.pair()
    ours.settimeout(10)

    def vanish() -> None:
        theirs.recv(MAX_PACKET)
        theirs.close()

    thread = threading.Thread(target=vanish)
    thread.start()
    channel = DeviceChannel(ours)
    with pytest.raises(InternalError, match="the device is gone"):
        channel.counter("store")
    thread.join()
    channel.close()


def test_a_device_that_goes_with_the_question_unread() -> None:
    ours, theirs = packets.pair()
    ours.send(b"an earlier one")
    theirs.close()
    channel = DeviceChannel(ours)
    with pytest.raises(InternalError, match="the device is gone"):
        channel.info()
    channel.close()
