"""The untrusted host: what it answers, what it sends into an enclave, what it can reach.

Host functions run in the agent's process, so a host function may do all that an agent may.
"""

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from broch.app import restarts
from broch.app.agent_messages import FrameKind, Load, decode_command
from broch.enclave import sandbox
from broch.enclave.device_channel import DeviceService
from broch.enclave.messages import CALL, RETURN, TICK, Kind, Status
from broch.errors import BrochError
from broch.tee import registry
from broch.tee.contract import Packed

from .bench import own_device
from .world import Plan, Stage, World

# Answers to an ocall of type list[int].
ANSWERS = {
    "a number": "return 7",
    "nothing": "return None",
    "text": "return 'x' * 10_000",
    "a list of text": "return ['1']",
    "a number out of range": "return [2 ** 64 - 1, -1, 1.5]",
    "nested without end": "x = []\n    for _ in range(5000): x = [x]\n    return x",
    "larger than a message": "return [1] * 1_000_000",
    "an object": "return object()",
    "an exception": "raise ValueError('of the host')",
    "an exit": "raise SystemExit(3)",
}


@pytest.mark.parametrize("what", ANSWERS)
def test_a_poisoned_answer_to_an_ocall_reaches_no_code(stage: Stage, what: str) -> None:
    """Either the module is told that the ocall failed, or it is ended: never a wrong type."""
    plan = Plan(name="ocall", host=f"def look(n):\n    {ANSWERS[what]}\n")
    world = stage.begin(plan)

    async def work() -> None:
        try:
            answer = await world.call("source", "sees", 1)
        except BrochError as exc:
            answer = str(exc)
            await world.next(kind="fault", text="answer to ocall look")
            await world.next(kind="restart", module="source")
        assert answer.startswith("failed: ") or "answer to ocall look" in answer
        await world.marker()

    stage.do(work())
    world.check_promise()
    stage.end(world)


@pytest.fixture(scope="module")
def poked(calm_stage: Stage) -> Iterator[World]:
    """An application whose enclaves are sent what no honest host sends; they restart at once."""
    plan = Plan(name="poked", source="max_restarts = 1000", actor="max_restarts = 1000")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(restarts, "_LONGEST", 0.01)
        yield calm_stage.begin(plan)


POISON = {
    "an unknown kind": b"\x77",
    "a kind of its own": bytes([Kind.EVIDENCE]) + bytes(200),
    "an answer to no ocall": RETURN.pack(Kind.RETURN, 1) + b"\x90",
    "a refusal of no ocall": RETURN.pack(Kind.NORETURN, 1) + b"no",
    "a store that nobody asked for": bytes([Kind.LOADED]) + bytes(100),
    "a save that nobody made": bytes([Kind.SAVED]),
    "a reply to nothing": bytes([Kind.REPLY]) + bytes(60),
    "a failure of nothing": bytes([Kind.FAILED]) + bytes(12),
    "a call without head": bytes([Kind.CALL, 1]),
    "a call without arguments": CALL.pack(Kind.CALL, 1, 0),
    "a call of no port": CALL.pack(Kind.CALL, 1, 999) + b"\x90",
    "a call of an input": CALL.pack(Kind.CALL, 1, 0) + b"\x80",
    "a tick of no port": TICK.pack(Kind.TICK, 500),
    "a tick of an input": TICK.pack(Kind.TICK, 0),
    "an event cut off": bytes([Kind.EVENT]) + bytes(20),
    "a request cut off": bytes([Kind.REQUEST]) + bytes(20),
    "a challenge too short": bytes([Kind.CHALLENGE]) + bytes(31),
    "a challenge too long": bytes([Kind.CHALLENGE]) + bytes(33),
    "a grant cut off": bytes([Kind.GRANT]) + bytes(64),
    "a stop with more": bytes([Kind.STOP, 0]),
    "a state that it cannot export": bytes([Kind.EXPORT]) + bytes(96),
    "a state that it cannot import": bytes([Kind.IMPORT]) + bytes(400),
}


@pytest.mark.parametrize("what", POISON)
def test_the_first_poisoned_message_ends_the_enclave(poked: World, what: str) -> None:
    async def work() -> None:
        poked.wire.tell_enclave("b", poked.handle("actor"), POISON[what])
        event = await poked.next(kind="fault", module="actor")
        assert event["text"].startswith("refused a poisoned message")
        await poked.next(kind="restart", module="actor")
        await poked.marker()

    poked.run(work())
    poked.check_promise()


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(b"\x90", id="a list"),
        pytest.param(b"\xc1", id="no msgpack"),
        pytest.param(msgspec.msgpack.encode({"n": "seven"}), id="a wrong type"),
        pytest.param(msgspec.msgpack.encode({"n": 1, "m": 2}), id="one too many"),
        pytest.param(msgspec.msgpack.encode({"n": 1}).replace(b"\xa1n", b"\xa1\xff"), id="no text"),
        pytest.param(b"\x81\xa1n" + b"\x91" * 50_000, id="nested without end"),
        pytest.param(b"\xdf\xff\xff\xff\xff", id="a huge map"),
    ],
)
def test_arguments_of_another_type_reach_no_code(poked: World, arguments: bytes) -> None:
    """An entry's arguments are the host's: what does not fit is an answer, not an end."""

    async def work() -> None:
        interface = poked.supervisor._modules["source"].built.interface
        port = interface.number("double")
        poked.wire.tell_enclave(
            "a", poked.handle("source"), CALL.pack(Kind.CALL, 2**40, port) + arguments
        )
        assert await poked.call("source", "double", 3) == "6"  # its turn comes after
        answers = [f.inner for f in poked.wire.seen if f.kind == Kind.RESULT and f.node == "a"]
        assert [a[9] for a in answers[-2:]] == [Status.BAD_ARGUMENTS, Status.OK]
        assert poked.module("source")["restarts"] == 0

    poked.run(work())


def test_an_ocall_answered_twice_ends_the_enclave(stage: Stage) -> None:
    world = stage.begin(Plan(name="twice"))

    async def work() -> None:
        assert await world.call("source", "sees", 1) == "[1, 2]"
        answer = RETURN.pack(Kind.RETURN, 1) + msgspec.msgpack.encode([6, 6])
        world.wire.tell_enclave("a", world.handle("source"), answer)
        await world.next(kind="fault", module="source", text="answers nothing that was asked")
        await world.next(kind="restart", module="source")
        await world.marker()

    stage.do(work())
    world.check_promise()
    stage.end(world)


def test_an_ocall_that_is_never_answered_holds_up_its_module_only(stage: Stage) -> None:
    host = "import threading\n\ndef look(n):\n    threading.Event().wait()\n"
    world = stage.begin(Plan(name="never", host=host))

    async def work() -> None:
        world.begin_call("source", "sees", 1)
        assert await world.call("actor", "ping") == "pong"
        await world.marker("twin")

    stage.do(work())
    world.check_promise()
    stage.end(world)


# What an agent can reach.

REACH = '''
import ctypes, json, os, socket
libc = ctypes.CDLL(None, use_errno=True)
HERE = os.path.dirname(os.path.abspath(__file__))

def read(path):
    with open(path, "rb") as file:
        return len(file.read(16))

def write(path):
    with open(path, "ab") as file:
        return 1

def seize(pid):
    if libc.ptrace(0x4206, pid, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "ptrace")

def peek(pid):
    here, there = (ctypes.c_uint64 * 2)(), (ctypes.c_uint64 * 2)(0x400000, 16)
    buffer = ctypes.create_string_buffer(16)
    here[0], here[1] = ctypes.addressof(buffer), 16
    if libc.syscall(310, pid, here, 1, there, 1, 0) < 0 and ctypes.get_errno() != 14:
        raise OSError(ctypes.get_errno(), "process_vm_readv")

def take_channel(pid):
    pidfd = libc.syscall(434, pid, 0)
    for number in range(3, 12):
        if libc.syscall(438, pidfd, number, 0) >= 0:
            return
    raise OSError(ctypes.get_errno(), "pidfd_getfd")

def operate(path):
    """Speak to the supervisor as its user's commands do."""
    folder = os.open(path, os.O_PATH | os.O_DIRECTORY)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect("/proc/self/fd/%d/control.sock" % folder)
        sock.sendall(b'{"do": "status"}' + bytes([10]))
        if b'"ok"' not in sock.recv(4096):
            raise OSError(13, "refused")

def look(n):
    what, argument = json.loads(read_text(os.path.join(HERE, "targets.json")))[n]
    try:
        {"read": read, "write": write, "list": os.listdir, "seize": seize, "peek": peek,
         "take": take_channel, "operate": operate}[what](argument)
    except OSError as exc:
        return [0, exc.errno or 0]
    return [1, 0]

def read_text(path):
    with open(path) as file:
        return file.read()
'''


def needs_landlock() -> None:
    if not sandbox.landlock_abi():
        pytest.skip("this kernel has no Landlock, which is what holds agents back")


def targets(world: World, stage: Stage) -> dict[str, tuple[str, object]]:
    """What an agent would like to have: name -> (how, what)."""
    root, app = stage.home.root, world.supervisor.descriptor.app.name
    folder = stage.folder / app
    enclave = world.module("source")["pid"]
    launcher = stage.launcher_pid
    return {
        "its device's secret": ("read", str(root / "devices" / app / "a.keystone" / "secret")),
        "its device's memory": ("list", str(root / "devices" / app / "a.keystone" / "nv")),
        "another node's device": ("read", str(root / "devices" / app / "b.keystone" / "secret")),
        "all devices": ("list", str(root / "devices")),
        "the deployer's key": ("read", str(root / "keys" / "deployer.pem")),
        "another node's stores": ("list", str(root / "apps" / app / "stores" / "b")),
        "bytecode": ("write", str(root / "pycache" / "evil.pyc")),
        "the modules' sources": ("write", str(folder / "source.py")),
        "the descriptor": ("write", str(folder / "app.toml")),
        "an enclave's memory by /proc": ("read", f"/proc/{enclave}/mem"),
        "an enclave's files": ("list", f"/proc/{enclave}/fd"),
        "an enclave's memory by ptrace": ("seize", enclave),
        "an enclave's memory at once": ("peek", enclave),
        "an enclave's channel to its device": ("take", enclave),
        "the launcher by ptrace": ("seize", launcher),
        "the supervisor by ptrace": ("seize", os.getpid()),
        "the supervisor's memory": ("peek", os.getpid()),
        "the supervisor's files": ("take", os.getpid()),
        "the operator's socket": ("operate", str(root / "apps" / app)),
    }


def test_an_agent_reaches_nothing_that_is_not_its_own(stage: Stage) -> None:
    """As root, too: what holds an agent back is Landlock, which knows no root."""
    needs_landlock()
    world = stage.begin(Plan(name="reach", host=REACH))
    found = targets(world, stage)
    (stage.folder / "reach" / "targets.json").write_text(json.dumps(list(found.values())))

    async def work() -> dict[str, str]:
        return {name: await world.call("source", "sees", i) for i, name in enumerate(found)}

    reached = {name for name, answer in stage.do(work()).items() if not answer.startswith("[0, ")}
    assert reached == set()
    stage.end(world)


def test_the_names_above_are_right(stage: Stage) -> None:
    """The same attempts from outside a sandbox succeed, so that their failure says something."""
    world = stage.begin(Plan(name="reach", host=REACH))
    for how, what in targets(world, stage).values():
        if how == "read" and not str(what).startswith("/proc"):
            Path(str(what)).read_bytes()
        elif how == "list" and not str(what).startswith("/proc"):
            os.listdir(str(what))
    stage.end(world)


@pytest.mark.parametrize("tee", ["sgx", "trustzone", "keystone"])
def test_a_device_answers_each_enclave_in_its_own_name(stage: Stage, tee: str) -> None:
    """Two modules of one signer on one device: no key and no counter in common."""
    world = stage.begin(Plan(name=f"names-{tee}", tee=tee))
    device, kind = own_device(tee), registry.find(tee)
    services = []
    for seen in world.wire.seen:
        if seen.message[0] == FrameKind.COMMAND and seen.node == "a":
            order = decode_command(seen.message)
            if isinstance(order, Load):
                packed = Packed(tee=tee, data=order.data, signature=order.signature)
                identity = device.load(packed).identity
                services.append(
                    DeviceService(device, identity, kind.report_data_size, kind.seal_bindings[0])
                )

    def ask(service: DeviceService, operation: str, argument: object) -> Any:
        answer = service.answer(msgspec.msgpack.encode([operation, argument]))
        ok, value = msgspec.msgpack.decode(answer)
        assert ok, value
        return value

    one, other = services
    assert ask(one, "seal_key", b"x") != ask(other, "seal_key", b"x")
    assert ask(one, "increment", "c") == 1
    assert (ask(one, "counter", "c"), ask(other, "counter", "c")) == (1, 0)
    data = bytes(kind.report_data_size)
    measured = [
        kind.verify(
            ask(service, "evidence", data),
            device.endorsements(),
            at=datetime.now(UTC),
        ).measurement
        for service in services
    ]
    assert measured[0] != measured[1]
    stage.end(world)
