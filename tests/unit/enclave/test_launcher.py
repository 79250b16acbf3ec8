"""The launcher: what a module's code may do while it is built, and that nothing outlives it."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

import broch
from broch.enclave import closure, launcher_main, packets
from broch.enclave.launcher import Launcher
from broch.enclave.launcher_main import Declare, Hello, Wrong
from broch.errors import InternalError, UntrustedError
from broch.image import PortKind
from broch.sdk import DeclarationError

from .harness import Kit, Node, children, fork, gone, wait, watch

GOOD = """
from broch import Module, Struct
class Moisture(Struct):
    percent: float
module = Module("probe")
valve = module.output("valve", bool)
@module.input
def moisture(reading: Moisture) -> None: ...
"""


def test_declare_finds_the_interface(kit: Kit) -> None:
    interface = kit.launcher.declare({"a.py": GOOD.encode()}, "a.py")
    found = [(port.kind, port.name) for port in interface.ports]
    assert found == [(PortKind.OUTPUT, "valve"), (PortKind.INPUT, "moisture")]


@pytest.mark.parametrize(
    ("code", "place", "message"),
    [
        pytest.param("x = (", "main.py:1", "never closed", id="syntax"),
        pytest.param("import os", "main.py:1", "cannot be imported", id="import"),
        pytest.param("x = 1\ny = 1 // 0", "main.py:2", "ZeroDivisionError", id="raises"),
        pytest.param("x = 1\nraise SystemExit(3)", "main.py:2", "SystemExit: 3", id="exits"),
        pytest.param("x = 1", "main.py:1", "declares no modules", id="no module"),
        pytest.param(
            GOOD + "module.valve = valve.emit(True)", "main.py:9", "not running", id="emits"
        ),
        pytest.param(GOOD + "module.store['a'] = 1", "main.py:9", "only while", id="stores"),
        pytest.param(
            GOOD + "@module.input\nasync def x(y: int) -> None: ...",
            "main.py:9",
            "async function",
            id="async",
        ),
        pytest.param(
            GOOD + "module.output('valve', int)", "main.py:9", "declared already", id="twice"
        ),
        pytest.param(
            GOOD + "open('/etc/passwd')", "main.py:9", "PermissionError", id="reads a file"
        ),
        pytest.param(GOOD + "open('new', 'w')", "main.py:9", "PermissionError", id="writes a file"),
        pytest.param(
            GOOD + "__import__('socket').socket()", "main.py:9", "PermissionError", id="network"
        ),
        pytest.param(
            GOOD + "hog = []\nwhile True: hog.append(bytearray(1 << 20))",
            "main.py:10",
            "MemoryError",
            id="memory bomb",
        ),
        pytest.param(GOOD + "def f(): f()\nf()", "main.py:9", "RecursionError", id="recurses"),
        pytest.param(
            GOOD + "env = __import__('os').environ\nraise ValueError(len(env))",
            "main.py:10",
            "ValueError: 0",
            id="environment",
        ),
    ],
)
def test_declare_says_what_is_wrong_and_where(
    kit: Kit, code: str, place: str, message: str
) -> None:
    with pytest.raises(DeclarationError) as caught:
        kit.launcher.declare({"main.py": code.encode()}, "main.py")
    assert caught.value.place == place
    assert message in caught.value.message


@pytest.mark.parametrize(
    "code",
    ["os._exit(0)", "os.kill(os.getppid(), 9)", "os.fork()", "__import__('ctypes').string_at(0)"],
)
def test_code_that_ends_its_process(kit: Kit, code: str) -> None:
    text = f"os = __import__('os')\n{code}"
    with pytest.raises(DeclarationError, match="did not come to an end") as caught:
        kit.launcher.declare({"main.py": text.encode()}, "main.py")
    assert caught.value.place == "main.py:1"
    kit.launcher.declare({"a.py": GOOD.encode()}, "a.py")


def declare_here(code: str) -> tuple[int, Wrong | None]:
    """Be a builder, in a child of the test: its status and what it answered."""
    ours, theirs = packets.pair()
    with ours, theirs:
        order = Declare({"main.py": code.encode()}, "main.py")
        status = wait(fork(lambda: launcher_main._declare(order, theirs.fileno())))
        theirs.close()
        packet = packets.receive(ours)
    return status, msgspec.msgpack.decode(packet[0], type=Wrong) if packet else None


def test_a_loop_without_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher_main, "_BUILD_SECONDS", 1)
    status, answer = declare_here("while True: pass")
    assert status in (-signal.SIGKILL, -signal.SIGXCPU)
    assert answer is None


def test_a_sleep_without_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher_main, "_BUILD_WAIT", 1)
    status, answer = declare_here("import time\ntime.sleep(1 << 30)")
    assert status == -signal.SIGALRM
    assert answer is None


def test_interfaces_larger_than_a_packet(kit: Kit) -> None:
    code = (
        GOOD + "for i in range(240): module.output(f'o{i}', dict[str, list[list[list[Moisture]]]])"
    )
    interface = kit.launcher.declare({"main.py": code.encode()}, "main.py")
    assert len(interface.ports) == 242
    assert len(msgspec.msgpack.encode(interface.to_data())) > packets.MAX_INLINE


# The closure.


def manifest_of(package: Path, pycache: Path, cwd: Path) -> bytes:
    """The manifest of a launcher that finds Broch there."""
    ours, theirs = packets.pair()
    boot = (
        "import sys; sys.path += sys.argv[2:]; "
        "from broch.enclave.launcher_main import main; main(int(sys.argv[1]))"
    )
    others = [p for p in sys.path if p.endswith("site-packages")]
    flags = ("-I", "-S", "-X", f"pycache_prefix={pycache}", "-c", boot)
    with ours, theirs:
        child = subprocess.Popen(
            [sys.executable, *flags, str(theirs.fileno()), str(package), *others],
            pass_fds=[theirs.fileno()],
            cwd=cwd,
            start_new_session=True,
        )
        theirs.close()
        ours.settimeout(60)
        packet = packets.receive(ours)
    child.wait()
    assert packet is not None
    return msgspec.msgpack.decode(packet[0], type=Hello).manifest


def test_the_manifest_is_that_of_the_files(kit: Kit, tmp_path: Path) -> None:
    """Equal from another folder, another cache, another place; another byte, another manifest."""
    again = Launcher.start(tmp_path / "cache")
    again.close()
    assert again.manifest == kit.launcher.manifest
    assert again.runtime == closure.digest(again.manifest)

    copy = tmp_path / "copy"
    shutil.copytree(Path(broch.__file__).parent, copy / "broch")
    elsewhere = manifest_of(copy, tmp_path / "cache", tmp_path)
    assert elsewhere == kit.launcher.manifest
    ring = copy / "broch" / "enclave" / "ring.py"
    ring.write_text(ring.read_text() + "\n")
    changed = manifest_of(copy, tmp_path / "cache", tmp_path)
    differing = set(changed.splitlines()) ^ set(elsewhere.splitlines())
    assert {line.split(b"  ")[1] for line in differing} == {b"broch/enclave/ring.py"}


def test_it_starts_in_any_folder(
    kit: Kit, tmp_path: Path, pycache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder with files that Python might take for its own."""
    for name in ("socket.py", "broch.py", "sitecustomize.py", "msgspec.py"):
        (tmp_path / name).write_text("raise SystemExit('wrong file')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONSTARTUP", str(tmp_path / "socket.py"))
    with contextlib.closing(Launcher.start(pycache)) as launcher:
        assert launcher.manifest == kit.launcher.manifest


def test_bytecode_that_others_may_write_is_not_used(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    for mode in (0o770, 0o707):
        folder.chmod(mode)
        with pytest.raises(UntrustedError, match=f"mode {mode:04o}"):
            Launcher.begin(folder)
    if os.geteuid() == 0:
        folder.chmod(0o700)
        os.chown(folder, 65534, 65534)
        with pytest.raises(UntrustedError, match="belongs to user 65534"):
            Launcher.begin(folder)


def test_the_folder_for_bytecode_is_the_user_s_alone(pycache: Path, kit: Kit) -> None:
    assert pycache.stat().st_mode & 0o077 == 0
    assert kit.launcher.runtime


# The end.


def test_a_launcher_that_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    starting = Launcher.begin(tmp_path / "cache")
    with pytest.raises(InternalError, match="the launcher did not start"):
        starting.wait()


@pytest.fixture
def own(pycache: Path, kit: Kit) -> Launcher:
    """A launcher to wreck."""
    return Launcher.start(pycache)


def family(launcher: Launcher) -> list[int]:
    """Watched descriptors of the launcher and all that it forked, and that they forked."""
    found = [launcher._child.pid]
    for pid in found:
        found += children(pid)
    return [watch(pid) for pid in found]


@pytest.mark.parametrize("how", ["close", "kill"])
def test_nothing_outlives_it(
    kit: Kit, how: str, tmp_path: Path, pycache: Path, agents: Path
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(agents))
        launcher = Launcher.start(pycache)
    node = Node(Kit(launcher, kit.deployer), tmp_path / "device")
    node.start(GOOD)
    pidfds = family(launcher)
    assert len(pidfds) == 5, "launcher, machine, agent, zygote, enclave"
    if how == "close":
        launcher.close()
    else:
        os.kill(launcher._child.pid, signal.SIGKILL)
    assert all(gone(pidfd) for pidfd in pidfds)
    launcher.close()
    node.close()
    for pidfd in pidfds:
        os.close(pidfd)


def test_builders_do_not_outlive_it(own: Launcher) -> None:
    ours, theirs = packets.pair()
    with ours:
        order = Declare({"main.py": b"import time\ntime.sleep(1 << 30)"}, "main.py")
        packets.send(own._control, msgspec.msgpack.encode(order), (theirs.fileno(),))
        theirs.close()
        while not (pids := children(own._child.pid)):
            os.sched_yield()
        (builder,) = map(watch, pids)
        own.close()
        assert gone(builder)
        os.close(builder)
        assert ours.recv(1) == b""


def test_close_twice(own: Launcher) -> None:
    own.close()
    own.close()


def test_what_it_forks_is_reaped(kit: Kit) -> None:
    for _ in range(3):
        kit.launcher.declare({"a.py": GOOD.encode()}, "a.py")
    pid = kit.launcher._child.pid
    zombies = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            if int(parent) == pid and state == "Z":
                zombies.append(entry.name)
    assert not zombies


def test_a_socket_pair_is_what_a_node_is_held_by(make_node: Callable[..., Node]) -> None:
    """The machine and the zygote do not hold the agent's end of its control channel."""
    node = make_node()
    agent = watch(node.agent["pid"])
    os.kill(node.agent["pid"], signal.SIGKILL)
    assert gone(agent)
    os.close(agent)
    with contextlib.suppress(ConnectionResetError):
        assert node.process.control.recv(1) == b""
    assert not gone(node.pidfd, 0)
    assert node.process.control.family == socket.AF_UNIX
