"""Modules that misbehave: each end is reported with its place, and takes nothing else with it."""

import os
import signal
from collections.abc import Iterator

import pytest

from broch.enclave.machine_messages import Limits
from broch.enclave.messages import Kind
from broch.image import Interface

from .harness import Enclave, Node, children, gone

SIBLING = """
from broch import Module
module = Module("sibling")
kept = bytearray(b"mine")
@module.entry
def keep(more: bytes) -> bytes:
    kept.extend(more)
    return bytes(kept)
"""


@pytest.fixture
def sibling(node: Node) -> Iterator[Enclave]:
    """An enclave beside the one that misbehaves: it must not notice."""
    enclave = node.start(SIBLING)
    assert enclave.call("keep", more=b"!") == b"mine!"
    yield enclave
    assert enclave.call("keep", more=b"!") == b"mine!!"


def entry(body: str, name: str = "go", before: str = "") -> str:
    """A module with one entry; its body begins in line 6."""
    lines = "\n".join("    " + line for line in body.splitlines())
    head = f"sys = __import__('sys')\nfrom broch import Module\nmodule = Module('probe'){before}\n"
    return f"{head}@module.entry\ndef {name}() -> int:\n{lines}\n    return 1\n"


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("raise ValueError('x')", "main.py:6: raised ValueError"),
        ("raise SystemExit(0)", "main.py:6: raised SystemExit"),
        ("raise KeyboardInterrupt", "main.py:6: raised KeyboardInterrupt"),
        ("sys.exit()", "main.py:6: raised SystemExit"),
        ("raise type('Odd', (BaseException,), {})", "main.py:6: raised Odd"),
        ("def f(): f()\nf()", "main.py:6: raised RecursionError"),
        ("hog = []\nwhile True: hog.append(bytearray(1 << 20))", "main.py:7: ran out of memory"),
        ("hog = []\nwhile True: hog.append([0] * 100)", "main.py:7: ran out of memory"),
        ("hog = b'x' * (1 << 40)", "main.py:6: ran out of memory"),
        ("open('/etc/passwd')", "main.py:6: raised PermissionError"),
        ("__import__('sqlite3')", "main.py:6: raised ImportError"),
        ("__import__('nothing_of_ours')", "main.py:6: raised ImportError"),
        ("input()", "main.py:6: raised EOFError"),
        ("module.input(print)", ""),
    ],
)
def test_faults_have_a_place(node: Node, sibling: Enclave, body: str, fault: str) -> None:
    probe = node.start(entry(body))
    probe.begin_call("go")
    said = probe.fault()
    assert said == fault or not fault


def test_a_hog_of_globals_is_reported_too(node: Node, sibling: Enclave) -> None:
    """What it holds is not let go of by the exception."""
    body = "while True: hog.append([0] * 100)"
    probe = node.start(entry(body, before="; hog = []"))
    probe.begin_call("go")
    assert probe.fault() == "main.py:6: ran out of memory"


def test_memory_is_what_the_limits_say(node: Node) -> None:
    body = "hog = bytearray(100 << 20)"
    probe = node.start(entry(body), limits=Limits(memory_mb=200))
    assert probe.call("go") == 1
    probe = node.start(entry(body), limits=Limits(memory_mb=50))
    probe.begin_call("go")
    assert probe.fault() == "main.py:6: ran out of memory"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("__import__('os')._exit(3)", 3),
        ("__import__('os').abort()", -signal.SIGSYS),
        ("__import__('os').kill(1, 9)", -signal.SIGSYS),
        ("__import__('os').fork()", -signal.SIGSYS),
        ("__import__('_thread').start_new_thread(print, ())", -signal.SIGSYS),
        ("__import__('ctypes').string_at(0)", -signal.SIGSEGV),
    ],
)
def test_ends_without_a_word_are_reported(
    node: Node, sibling: Enclave, body: str, status: int
) -> None:
    probe = node.start(entry(body))
    probe.begin_call("go")
    assert probe.ended() == status


def test_an_enclave_that_is_killed_is_reported(node: Node, sibling: Enclave) -> None:
    probe = node.start(SIBLING)
    os.kill(probe.pid, signal.SIGKILL)
    assert probe.ended() == -signal.SIGKILL


def test_a_loop_without_an_end_can_be_killed(node: Node, sibling: Enclave) -> None:
    probe = node.start(entry("print('looping')\nwhile True: pass"))
    probe.begin_call("go")
    assert sibling.call("keep", more=b"") == b"mine!"
    assert not probe.over()
    probe.kill()
    assert probe.ended() == -signal.SIGKILL


def test_a_loop_at_import_never_becomes_ready_and_can_be_killed(node: Node) -> None:
    image = node.kit.image(
        "from broch import Module\nmodule = Module('x')\nwhile True: pass", interface=Interface()
    )
    probe = node.load(image)
    assert probe.ring.receive(0.05) is None
    probe.kill()
    assert probe.ended() == -signal.SIGKILL


def test_signals_that_ask_are_ignored(node: Node) -> None:
    probe = node.start(SIBLING)
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(probe.pid, number)
    assert probe.call("keep", more=b"") == b"mine"


def test_stop_ends_in_order(node: Node) -> None:
    probe = node.start(SIBLING)
    probe.send(Kind.STOP)
    probe.take(Kind.BYE)
    assert probe.ended() == 0


def test_a_module_that_declares_another_interface_than_its_image(node: Node) -> None:
    image = node.kit.image(entry("pass"), interface=Interface())
    probe = node.load(image)
    assert probe.fault() == "gave up: the module declares another interface than its image"


def test_an_error_at_import_is_reported(node: Node) -> None:
    image = node.kit.image("x = 1\ny = 1 // 0\n", interface=Interface())
    assert node.load(image).fault() == "main.py:2: raised ZeroDivisionError"


# What it prints.


def test_lines_are_told_whole_and_bounded(node: Node) -> None:
    body = (
        "print('a', end='')\nprint('b')\nprint('x' * 5000)\nprint('two\\nlines')\n"
        "print('\\ud800', file=sys.stderr)\nprint('unfinished', end='')"
    )
    probe = node.start(entry(body))
    assert probe.call("go") == 1
    assert probe.printed == ["ab", "x" * 1024, "two", "lines", "?"]


def test_a_module_that_prints_without_end_waits_for_its_host(node: Node, sibling: Enclave) -> None:
    probe = node.start(entry("while True: print('x' * 2000)"))
    probe.begin_call("go")
    for _ in range(2000):
        assert probe.ring.receive(30) == bytes([Kind.PRINT]) + b"x" * 1024
    probe.kill()
    assert probe.ended() == -signal.SIGKILL


# What it has.


def test_an_enclave_has_four_descriptors_and_nothing_of_its_host(node: Node) -> None:
    source = """
from broch import Module
sys = __import__("sys")
module = Module("probe")

@module.entry
def descriptors() -> list[int]:
    select = sys.modules["select"]
    poller = select.poll()
    for number in range(1024):
        poller.register(number, select.POLLOUT)
    return [number for number, event in poller.poll(0) if event != select.POLLNVAL]

@module.entry
def environment() -> dict[str, str]:
    return dict(sys.modules["os"].environ)
"""
    probe = node.start(source)
    # 0 to 2: /dev/null. 3 was the image, read and closed; 4 the ring's memory, of which its
    # mapping keeps a copy, 8. 5 and 6 are the ring's eventfds, 7 is the channel to the device.
    assert probe.call("descriptors") == [0, 1, 2, 5, 6, 7, 8]
    assert probe.call("environment") == {}
    if os.geteuid() == 0:
        links = {n: os.readlink(f"/proc/{probe.pid}/fd/{n}") for n in (0, 1, 2, 5, 6, 7, 8)}
        assert [links[n] for n in (0, 1, 2)] == [os.devnull] * 3
        assert links[5] == links[6] == "anon_inode:[eventfd]"
        assert links[7].startswith("socket:")
        assert links[8].startswith("/memfd:broch-ring")


def test_a_killed_module_leaves_no_process(node: Node) -> None:
    probe = node.start(SIBLING)
    (zygote,) = children(node.pid)
    assert probe.pid in children(zygote)
    probe.kill()
    assert probe.ended() == -signal.SIGKILL
    assert gone(probe.pidfd)
    assert not os.path.exists(f"/proc/{probe.pid}"), "it was reaped"
