"""The machine: who may have what is loaded, in whose name the device answers, and how all ends."""

import os
import re
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from broch.enclave import packets
from broch.enclave.machine_messages import Kill, Limits, Load
from broch.enclave.messages import Kind
from broch.enclave.ring import open_ring
from broch.tee import registry

from .harness import Enclave, MachineRefused, Node, children, gone, process_named, watch

TEES = ["keystone", "trustzone", "sgx"]
ECHO = """
sys = __import__("sys")
from broch import Module
module = Module("probe")
@module.entry
def echo(text: str) -> str:
    return text
@module.entry
def ask_device(packet: bytes) -> bytes:
    # What hostile code could do: use the channel to the device as it likes.
    os = sys.modules["os"]
    os.write(7, packet)
    return os.read(7, 65536)
@module.entry
def flood_device() -> None:
    send = sys.modules["os"].write
    for _ in range(100000):
        send(7, b"\\x92\\xa4info\\xc0")
"""


@pytest.fixture(params=TEES)
def any_node(request: pytest.FixtureRequest, make_node: Callable[..., Node]) -> Node:
    return make_node(request.param)


# What is loaded.


def test_an_image_runs_as_the_device_measured_it(any_node: Node) -> None:
    probe = any_node.start(ECHO)
    assert probe.call("echo", text="hello") == "hello"
    packed = any_node.kit.pack(any_node.tee, probe.image)
    assert probe.measurement == registry.find(any_node.tee).measure(packed).value


def test_an_altered_image_is_refused(any_node: Node) -> None:
    packed = any_node.kit.pack(any_node.tee, any_node.kit.image(ECHO))
    position = packed.data.index(b"return text")
    altered = packed.data[:position] + b"return TEXT" + packed.data[position + 11 :]
    if any_node.tee == "keystone":  # not signed: who it is changes instead
        reply, descriptors = any_node.load_packed(replace(packed, data=altered))
        original, more = any_node.load_packed(packed, "original")
        assert reply.measurement != original.measurement
        for memory in (descriptors, more):
            open_ring(*memory, host=True).close()
        return
    with pytest.raises(MachineRefused) as caught:
        any_node.load_packed(replace(packed, data=altered))
    assert caught.value.code in ("untrusted", "malformed")


@pytest.mark.parametrize("where", [0, 40, 900, -1])
def test_an_altered_signature_is_refused(make_node: Callable[..., Node], where: int) -> None:
    node = make_node("sgx")
    packed = node.kit.pack("sgx", node.kit.image(ECHO))
    assert packed.signature is not None
    signature = bytearray(packed.signature)
    signature[where] ^= 1
    with pytest.raises(MachineRefused) as caught:
        node.load_packed(replace(packed, signature=bytes(signature)))
    assert caught.value.code in ("untrusted", "malformed", "refused")
    with pytest.raises(MachineRefused):
        node.load_packed(replace(packed, signature=None))


def test_an_image_for_another_runtime_is_refused(any_node: Node) -> None:
    with pytest.raises(MachineRefused) as caught:
        any_node.load(ECHO, runtime=bytes(32))
    ours = any_node.kit.launcher.runtime.hex()[:16]
    assert caught.value.code == "refused"
    text = f"built for runtime {'0' * 16}, this machine runs {ours}"
    assert caught.value.message == text, "who asked names the module"
    assert "build anew" in caught.value.hint


def test_an_image_for_another_tee_is_refused(make_node: Callable[..., Node]) -> None:
    node = make_node("keystone")
    packed = node.kit.pack("trustzone", node.kit.image(ECHO))
    with pytest.raises(MachineRefused, match="an image for trustzone; this is a keystone device"):
        node.load_packed(packed)


def test_a_name_serves_one_enclave_at_a_time(node: Node) -> None:
    first = node.start(ECHO, "one")
    with pytest.raises(MachineRefused, match="one is loaded already"):
        node.load(ECHO, "one")
    first.kill()
    assert first.ended() == -signal.SIGKILL
    assert node.start(ECHO, "one").call("echo", text="again") == "again"


@pytest.mark.parametrize("count", [0, 2, 3])
def test_a_load_with_other_descriptors_than_it_says(node: Node, count: int) -> None:
    memories = tuple(packets.memory_file("x", b"x") for _ in range(count))
    node.say(Load("x", "keystone", Limits(), has_signature=False), memories)
    packets.close_all(memories)
    with pytest.raises(MachineRefused, match="comes with an image"):
        node.loaded("x")


def test_nonsense_is_ignored_and_leaves_nothing_open(make_node: Callable[..., Node]) -> None:
    node = make_node()
    before = len(os.listdir(f"/proc/{node.pid}/fd")) if os.geteuid() == 0 else 0
    memory = packets.memory_file("x", b"x")
    for message in (b"", b"\xc1", b"\x80", b"\x81\xa4type\xa4Load", b"\xa2\xff\xfe"):
        packets.send(node.machine, message, (memory,))
    node.say(Kill("nobody"), (memory, memory))
    packets.send(node.machine, b"x" * 100_000)
    os.close(memory)
    probe = node.start(ECHO)
    assert probe.call("echo", text="well") == "well"
    probe.kill()
    assert probe.ended() == -signal.SIGKILL
    if os.geteuid() == 0:
        assert len(os.listdir(f"/proc/{node.pid}/fd")) == before


def test_the_agent_has_its_two_sockets_and_nothing_else(node: Node) -> None:
    links = node.agent["fds"]
    assert sum(link.startswith("socket:") for link in links.values()) == 2
    others = {link for link in links.values() if not link.startswith("socket:")}
    assert others == {"/dev/null"}


# In whose name the device answers.


def test_the_device_answers_in_the_name_of_the_enclave_that_asks(any_node: Node) -> None:
    first, second = any_node.start(ECHO, "first"), any_node.start(ECHO, "second", version=2)
    for enclave in (first, second):
        packet = msgspec.msgpack.encode(["info", None])
        ok, info = msgspec.msgpack.decode(enclave.call("ask_device", packet=packet))
        assert ok
        assert info["measurement"] == enclave.measurement
        for trick in (["info", "second"], ["info", second.measurement], ["second", "info"]):
            answer = enclave.call("ask_device", packet=msgspec.msgpack.encode(trick))
            assert second.measurement not in answer or enclave is second
        evidence = enclave.attest().evidence
        assert enclave.measurement in evidence
        assert (first if enclave is second else second).measurement not in evidence


@pytest.mark.parametrize(
    "packet",
    [b"\xc1", b"\x92\xa2\xff\xfe\xc0", b"\x92\xa4info" + b"\x91" * 60_000, b"x" * 65_000],
    ids=["no msgpack", "not UTF-8", "nested deep", "nonsense"],
)
def test_nonsense_to_the_device_harms_nobody_else(node: Node, packet: bytes) -> None:
    sibling, probe = node.start(ECHO), node.start(ECHO)
    call = probe.begin_call("ask_device", packet=packet)
    message = probe.receive()
    assert message[0] in (Kind.RESULT, Kind.FAULT), call
    assert sibling.attest().evidence
    assert node.start(ECHO).call("echo", text="x") == "x"


def test_a_module_that_does_not_read_its_answers_harms_nobody_else(node: Node) -> None:
    sibling, probe = node.start(ECHO), node.start(ECHO)
    probe.begin_call("flood_device")
    assert re.search("raised (BrokenPipe|ConnectionReset)Error", probe.fault())
    assert sibling.attest().evidence


def test_ends_and_loads_at_the_same_time(node: Node) -> None:
    """The order of a machine's events is not the order in which they are served."""
    running: list[Enclave] = [node.start(ECHO) for _ in range(3)]
    for _ in range(15):
        for enclave in running:
            os.kill(enclave.pid, signal.SIGKILL)
        running = [node.load(ECHO) for _ in running]
        for enclave in running:
            enclave.take(Kind.READY)
            assert enclave.attest().evidence


def test_more_enclaves_than_a_fixed_place_for_descriptors(make_node: Callable[..., Node]) -> None:
    node = make_node()
    for number in range(62):
        enclave = node.start(ECHO)
        assert enclave.call("echo", text=str(number)) == str(number)
    assert enclave.attest().evidence


# The device's secret.


def test_a_secret_that_others_may_read_is_refused(
    make_node: Callable[..., Node], tmp_path: Path
) -> None:
    make_node(folder=tmp_path / "d").close()
    (tmp_path / "d" / "secret").chmod(0o644)
    with pytest.raises(MachineRefused) as caught:
        make_node(folder=tmp_path / "d")
    assert caught.value.code == "untrusted"
    assert "others may use it (mode 0644)" in caught.value.message
    assert "chmod" in caught.value.hint


def test_a_secret_of_another_size_is_refused(
    make_node: Callable[..., Node], tmp_path: Path
) -> None:
    make_node(folder=tmp_path / "d").close()
    (tmp_path / "d" / "secret").write_bytes(bytes(31))
    with pytest.raises(MachineRefused, match="expected 32 bytes"):
        make_node(folder=tmp_path / "d")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_secret_of_another_user_is_refused(
    make_node: Callable[..., Node], tmp_path: Path
) -> None:
    make_node(folder=tmp_path / "d").close()
    os.chown(tmp_path / "d" / "secret", 65534, 65534)
    with pytest.raises(MachineRefused) as caught:
        make_node(folder=tmp_path / "d")
    assert "belongs to user 65534" in caught.value.message


def test_a_device_that_fails_is_told_and_not_only_gone(
    make_node: Callable[..., Node], tmp_path: Path
) -> None:
    make_node(folder=tmp_path / "d").close()
    for file in (tmp_path / "d" / "nv").iterdir():
        file.unlink()
        file.mkdir(mode=0o700)
    with pytest.raises(MachineRefused) as caught:
        make_node(folder=tmp_path / "d")
    assert caught.value.code == "internal"
    assert caught.value.message == "the device fails: IsADirectoryError"
    assert "BROCH_DEBUG" in caught.value.hint


def test_an_unknown_tee(make_node: Callable[..., Node], tmp_path: Path) -> None:
    with pytest.raises(MachineRefused, match="unknown TEE 'abacus'"):
        make_node("abacus")


# How all ends.


def everyone(node: Node) -> dict[str, int]:
    zygote = process_named(node.pid, "broch-zygote")
    found = {"machine": node.pid, "agent": node.agent["pid"], "zygote": zygote}
    found |= {f"enclave {pid}": pid for pid in children(zygote)}
    return {name: watch(pid) for name, pid in found.items()}


def all_gone(pidfds: dict[str, int]) -> bool:
    left = [name for name, pidfd in pidfds.items() if not gone(pidfd)]
    for pidfd in pidfds.values():
        os.close(pidfd)
    assert not left, f"still there: {left}"
    return True


@pytest.fixture
def own(make_node: Callable[..., Node]) -> Node:
    """A node to wreck, with two enclaves."""
    node = make_node()
    node.start(ECHO)
    node.start(ECHO)
    return node


def test_when_the_agent_hangs_up_nothing_is_left(own: Node) -> None:
    pidfds = everyone(own)
    assert len(pidfds) == 5
    own.machine.close()
    own.process.close()
    assert all_gone(pidfds)


@pytest.mark.parametrize("who", ["machine", "zygote"])
def test_when_one_is_killed_nothing_is_left(own: Node, who: str) -> None:
    pidfds = everyone(own)
    signal.pidfd_send_signal(pidfds[who], signal.SIGKILL)
    with pytest.raises(EOFError):
        own.wait_ended("nobody")
    own.process.close()  # the agent of these tests lives until then
    assert all_gone(pidfds)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may look at sealed processes")
def test_the_image_in_memory_cannot_be_changed_and_the_zygote_has_no_more(own: Node) -> None:
    zygote = process_named(own.pid, "broch-zygote")
    links = [os.readlink(f"/proc/{zygote}/fd/{n}") for n in os.listdir(f"/proc/{zygote}/fd")]
    assert sorted(link.partition(":")[0] for link in links) == sorted(
        ["/dev/null"] * 3 + ["socket"] + ["anon_inode"] * 2
    )


def test_a_memory_file_cannot_be_changed() -> None:
    memory = packets.memory_file("image", b"content")
    for change in (
        lambda: os.write(memory, b"x"),
        lambda: os.ftruncate(memory, 1),
        lambda: os.ftruncate(memory, 100),
    ):
        with pytest.raises(PermissionError):
            change()
    os.close(memory)
