"""The launcher's process: imports the runtime closure once, then forks machines, agents, builders.

Started by :class:`broch.enclave.launcher.Launcher` as ``python -I -S`` with a search path that was
given to it, so that nothing but the closure is loaded. Whatever it forks stays in its process
group, and it ends the group when its parent hangs up.
"""

import importlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import msgspec

from broch.enclave import closure, loader, machine, packets, process, sandbox
from broch.enclave.machine import MachineSpec
from broch.enclave.preload import preload
from broch.sdk import DeclarationError

_BUILD_MB: Final = 512  # memory that a module's code may use while it is built
_BUILD_SECONDS: Final = 20  # processor time that it may take
_BUILD_WAIT: Final = 60  # seconds that it may take, asleep or not


class Hello(msgspec.Struct, frozen=True):
    """The launcher's first word."""

    manifest: bytes


class Declare(msgspec.Struct, frozen=True, tag=True):
    """Run a module's code and tell its interface. Descriptor: where to answer."""

    files: dict[str, bytes]
    main: str


class Declared(msgspec.Struct, frozen=True, tag=True):
    """What a module declares."""

    interface: list[dict[str, Any]]
    exports_state: bool
    imports_state: bool


class Wrong(msgspec.Struct, frozen=True, tag=True):
    """What is wrong with a module's code."""

    message: str
    place: str | None
    hint: str | None


class StartNode(msgspec.Struct, frozen=True, tag=True):
    """Fork a machine and its agent. Descriptors: the agent's control channel, the panel."""

    machine: MachineSpec
    target: str  # "package.module:function", called as function(machine, control, spec)
    spec: bytes


Order = Declare | StartNode
_order: Final = msgspec.msgpack.Decoder(Order)


def main(descriptor: int) -> None:
    """Serve the parent on this descriptor until it hangs up."""
    control = socket.socket(fileno=descriptor)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps what this process forks
    preload()
    manifest = closure.manifest()
    runtime = closure.digest(manifest)
    packets.send(control, msgspec.msgpack.encode(Hello(manifest)))
    while (packet := packets.receive(control)) is not None:
        message, (answer, *panels) = packet
        order = _order.decode(message)
        if isinstance(order, Declare):
            _fork(partial(_declare, order, answer), control)
            os.close(answer)
        else:
            with (
                socket.socket(fileno=answer) as agent_control,
                socket.socket(fileno=panels[0]) as panel,
            ):
                _start_node(order, runtime, agent_control, panel, control)
    os.killpg(0, signal.SIGKILL)


def _fork(work: Callable[[], None], control: socket.socket, *others: socket.socket) -> None:
    """Do ``work`` in a child that does not hold the launcher's own channel."""
    parent = os.getpid()
    if os.fork():
        return
    try:
        sandbox.die_with_parent(parent)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        control.close()
        for other in others:
            other.close()
        work()
        os._exit(0)
    except BaseException:  # noqa: BLE001 (a forked child ends here, never in the launcher's loop)
        if os.environ.get("BROCH_DEBUG"):
            sys.excepthook(*sys.exc_info())
    finally:
        os._exit(1)


def _start_node(
    order: StartNode,
    runtime: bytes,
    agent_control: socket.socket,
    panel: socket.socket,
    control: socket.socket,
) -> None:
    ours, theirs = packets.pair()
    work = partial(machine.run, order.machine, runtime, ours, panel)
    _fork(work, control, theirs, agent_control)
    _fork(partial(_run_agent, order, theirs, agent_control), control, ours, panel)
    ours.close()
    theirs.close()


def _run_agent(order: StartNode, machine: socket.socket, control: socket.socket) -> None:
    sandbox.name_process(f"agent:{order.machine.name}")
    module, _, function = order.target.partition(":")
    target = getattr(importlib.import_module(module), function)
    target(machine, control, order.spec)


def _declare(order: Declare, answer: int) -> None:
    """Run the code as an enclave would, in a process as closed; send what it declares."""
    reply = socket.socket(fileno=os.dup(answer))
    os.environ.clear()
    sandbox.limit_processor(_BUILD_SECONDS)
    signal.alarm(_BUILD_WAIT)  # nobody handles it: it ends the process
    try:
        loader.check_imports(order.files)
        sandbox.seal(_BUILD_MB, writes_memory_files=True)
        outcome: Declared | Wrong = _run(order.files, order.main)
    except DeclarationError as exc:
        outcome = Wrong(exc.message, exc.place, exc.hint)
    packets.send(reply, msgspec.msgpack.encode(outcome))


def _run(files: Mapping[str, bytes], main: str) -> Declared | Wrong:
    silent = process.Discard()
    sys.stdout = sys.stderr = silent
    try:
        module = loader.run(files, main)
    except DeclarationError:
        raise
    except BaseException as exc:  # noqa: BLE001 (author's code: anything)
        place = process.place_in(files, exc) or f"{main}:1"
        return Wrong(f"{type(exc).__name__}: {exc}", place, None)
    interface = module.interface().to_data()
    return Declared(interface, module._export is not None, module._import is not None)
