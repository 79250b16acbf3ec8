"""The launcher, seen from the process that builds and starts an application."""

import contextlib
import os
import socket
import stat
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import msgspec

import broch
from broch.enclave import closure, packets
from broch.enclave.launcher_main import Declare, Declared, Hello, StartNode, Wrong
from broch.enclave.machine import MachineSpec
from broch.errors import InternalError, UntrustedError
from broch.image import Interface
from broch.sdk import DeclarationError

_BOOT: Final = (
    "import sys; sys.path += sys.argv[2:]; sys.dont_write_bytecode = False; "
    "from broch.enclave.launcher_main import main; main(int(sys.argv[1]))"
)
_START_SECONDS: Final = 60  # the first start on a machine compiles all of the closure
_DECLARE_SECONDS: Final = 90  # more than a builder lives, if it does not fight its own end
_outcome: Final = msgspec.msgpack.Decoder(Declared | Wrong)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeProcess:
    """A node's machine and agent, just forked."""

    name: str
    control: socket.socket  # to the agent; closing it ends the node
    panel: socket.socket  # to the machine: what an operator does at the device itself

    def close(self) -> None:
        """End the node."""
        self.control.close()
        self.panel.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class StateFunctions:
    """Which of the two functions a module declares that hand its state to a successor."""

    exports: bool
    imports: bool


class Launcher:
    """Builds interfaces and starts nodes from one process that holds the runtime closure.

    All of its methods may be called from several threads at once.
    """

    def __init__(self, child: subprocess.Popen[bytes], control: socket.socket, hello: Hello):
        self._child = child
        self._control = control
        self.manifest = hello.manifest
        self.runtime = closure.digest(hello.manifest)  # 32 bytes, what images name

    @classmethod
    def begin(cls, pycache: Path) -> "Starting":
        """Start the process and return at once; :meth:`Starting.wait` gives the launcher.

        Args:
            pycache: folder for the closure's bytecode; only its owner may be able to write it.

        Raises:
            UntrustedError: the folder is another user's, or others may write to it.
        """
        pycache.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_pycache(pycache)
        ours, theirs = packets.pair()
        with theirs:
            child = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", "-X", f"pycache_prefix={pycache}", "-c", _BOOT),
                    str(theirs.fileno()),
                    *_search_path(),
                ],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=None if os.environ.get("BROCH_DEBUG") else subprocess.DEVNULL,
                start_new_session=True,
            )
        return Starting(child, ours)

    @classmethod
    def start(cls, pycache: Path) -> Self:
        """Start the process and wait until it has loaded everything."""
        launcher = cls.begin(pycache).wait()
        assert isinstance(launcher, cls)
        return launcher

    def declare(self, files: Mapping[str, bytes], main: str) -> Interface:
        """The interface that ``main`` declares, found by running it in a closed process.

        Raises:
            DeclarationError: the code is wrong; its place is relative to the image.
        """
        return Interface.from_data(self._declared(files, main).interface)

    def state_functions(self, files: Mapping[str, bytes], main: str) -> StateFunctions:
        """Whether ``main`` declares how to export and import state; raises as :meth:`declare`."""
        declared = self._declared(files, main)
        return StateFunctions(exports=declared.exports_state, imports=declared.imports_state)

    def _declared(self, files: Mapping[str, bytes], main: str) -> Declared:
        ours, theirs = packets.pair()
        with ours:
            with theirs:
                order = msgspec.msgpack.encode(Declare(dict(files), main))
                packets.send(self._control, order, (theirs.fileno(),))
            ours.settimeout(_DECLARE_SECONDS)
            try:
                packet = packets.receive(ours)
            except TimeoutError:
                packet = None
        if packet is None:
            raise DeclarationError(
                "the module's code did not come to an end",
                place=f"{main}:1",
                hint="at import a module may only declare; it ran too long, took too much memory "
                "or ended its process",
            )
        outcome: Declared | Wrong = _outcome.decode(packet[0])
        if isinstance(outcome, Wrong):
            raise DeclarationError(outcome.message, place=outcome.place, hint=outcome.hint)
        return outcome

    def start_node(self, machine: MachineSpec, target: str, spec: bytes) -> NodeProcess:
        """Fork a machine and its agent, which runs ``target`` (``package.module:function``)."""
        ours, theirs = socket.socketpair()
        panel, device = packets.pair()
        with theirs, device:
            order = msgspec.msgpack.encode(StartNode(machine, target, spec))
            packets.send(self._control, order, (theirs.fileno(), device.fileno()))
        return NodeProcess(name=machine.name, control=ours, panel=panel)

    def close(self) -> None:
        """End the launcher and everything that it started."""
        self._control.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(timeout=5)
        if self._child.poll() is None:
            self._child.kill()
            self._child.wait()


class Starting:
    """A launcher on its way."""

    def __init__(self, child: subprocess.Popen[bytes], control: socket.socket) -> None:
        self._child = child
        self._control = control

    def wait(self) -> Launcher:
        """The launcher, once it has loaded everything; raises :class:`InternalError`."""
        self._control.settimeout(_START_SECONDS)
        try:
            packet = packets.receive(self._control)
        except TimeoutError:
            packet = None
        if packet is None:
            self._child.kill()
            self._child.wait()
            self._control.close()
            raise InternalError(
                "the launcher did not start", hint="run again with BROCH_DEBUG=1 to see why"
            )
        self._control.settimeout(None)
        hello = msgspec.msgpack.decode(packet[0], type=Hello)
        return Launcher(self._child, self._control, hello)


def _check_pycache(folder: Path) -> None:
    """Bytecode is run and not measured: nobody else may have put it there."""
    status = folder.stat()
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise UntrustedError(
            f"belongs to user {status.st_uid}, mode {stat.S_IMODE(status.st_mode):04o}: others "
            "may have put bytecode there",
            place=str(folder),
            hint="remove the folder; it is made anew",
        )


def _search_path() -> list[str]:
    """Where packages are: this process's own path without scripts' folders and Python's own."""
    home = str(Path(broch.__file__).resolve().parent.parent)
    own = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}
    packages = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    found = [p for p in sys.path if p not in own and (p == home or p in packages)]
    found += [p for p in sys.path if p.endswith(("site-packages", "dist-packages"))]
    return list(dict.fromkeys([*found, home]))
