"""A node of a running application: its device's folder, its processes, the line to its agent."""

import asyncio
import contextlib
import hashlib
import secrets
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broch.app.agent_client import AgentLink, Listener
from broch.app.agent_messages import TOKEN_SIZE, AgentSpec
from broch.app.build import Built, tee_of
from broch.app.deployer import Admission
from broch.app.descriptor import Descriptor
from broch.app.descriptor_nodes import DeviceKind, Node
from broch.app.home import Home
from broch.app.keyed import KeyedAdmission
from broch.app.native import NativeAdmission, evidence_devices
from broch.app.reports import error_from_data
from broch.attest import Policy
from broch.enclave import device_folder, mcu
from broch.enclave.launcher import Launcher, NodeProcess
from broch.enclave.machine import MachineSpec
from broch.errors import BrochError, InternalError, UsageError
from broch.tee import registry
from broch.tee.contract import Endorsements, NonVolatile
from broch.tee.hosting import SharedKeyTee

_AGENT: Final = "broch.app.agent:main"
_START_SECONDS: Final = 60  # a new device makes its keys
_MAX_WORD: Final = 65536  # bytes of the agent's first word


class _Word(msgspec.Struct, frozen=True):
    """An agent's first word: where it listens, or why it does not."""

    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 0
    lacks: list[str] = []
    error: dict[str, Any] | None = None


_word: Final = msgspec.json.Decoder(_Word)


class NodeRun:
    """One node while its application runs."""

    def __init__(
        self, descriptor: Descriptor, node: Node, home: Home, hardware: Path = Path("/")
    ) -> None:
        self.node = node
        self.state = "starting"
        self.lacks: list[str] = []
        self.address: tuple[str, int] = (node.host, node.port)
        self._descriptor = descriptor
        self._home = home
        native = node.device is DeviceKind.NATIVE
        kind = f"{node.tee}-native" if native else node.tee
        self._native = str(hardware) if native else ""
        self._evidence = evidence_devices(node, hardware)
        self._device = home.device(descriptor.app.name, node.name, kind)
        self._endorsements: Endorsements | None = None
        self._process: NodeProcess | None = None
        self._panel = asyncio.Lock()
        self._link: AgentLink | None = None

    @property
    def link(self) -> AgentLink:
        """The line to the agent; raises :class:`InternalError` while there is none."""
        if self._link is None or not self._link.is_open:
            raise InternalError(f"the agent of node {self.node.name} is gone")
        return self._link

    @property
    def is_emulated(self) -> bool:
        """Whether its device only pretends to be hardware."""
        return self.node.device is DeviceKind.EMULATED

    def admission(self, built: Built, deployer: Ed25519PrivateKey) -> Admission:
        """One join with a module that runs here; ``deployer`` signs its grants."""
        policy = self._descriptor.policy
        kind: Callable[..., Admission] = Admission
        if self._native:
            kind = partial(NativeAdmission, node=self.node)
        elif isinstance(built.tee, SharedKeyTee):
            kind = partial(KeyedAdmission, packed=built.packed, shared=built.tee)
        return kind(
            app=self._descriptor.app.name,
            module=built.spec.name,
            tee=built.tee,
            expected=built.measurement,
            endorsements=self.endorsements(),
            policy=Policy(emulated=policy.emulated, allow_debug=policy.debug),
            deployer=deployer,
        )

    def endorsements(self) -> Endorsements:
        """The public half of the node's device, which its machine wrote before it was up.

        Read once: with it goes what was verified by it, which need not be verified at each join.
        """
        if self._endorsements is None:
            self._endorsements = device_folder.read_endorsements(self._device)
        return self._endorsements

    def module_keys(self) -> NonVolatile:
        """Where keys that are shared with modules are kept, so that each is computed once."""
        self._home.folder("keys", "modules", "nv")
        return device_folder.FileNonVolatile(self._home.folder("keys", "modules"))

    async def start(self, launcher: Launcher, peer_token: bytes, listener: Listener) -> None:
        """Start the node's processes and connect to its agent.

        Raises:
            UsageError: its port is in use.
            UntrustedError: its device's files are another user's.
            InternalError: it did not start.
        """
        name, app = self.node.name, self._descriptor.app.name
        await asyncio.to_thread(self._make_device)
        token = secrets.token_bytes(TOKEN_SIZE)
        spec = AgentSpec(
            node=name,
            host=self.node.host,
            port=self.node.port,
            deployer_token=token,
            peer_token=peer_token,
            stores=str(self._home.app(app).stores(name)),
            readable=[str(self._descriptor.folder)],
            hidden=[str(path) for path in (*self._home.private, *self._evidence)],
        )
        machine = MachineSpec(
            tee=self.node.tee, name=name, folder=str(self._device), native=self._native
        )
        encoded = msgspec.msgpack.encode(spec)
        starting = asyncio.to_thread(launcher.start_node, machine, _AGENT, encoded)
        forking = asyncio.ensure_future(starting)
        try:
            self._process = await asyncio.shield(forking)
        except asyncio.CancelledError:
            self._process = await forking  # to be closed
            raise
        word = await self._first_word()
        if word.error is not None:
            raise self._placed(error_from_data(word.error))
        self.lacks = word.lacks
        self.address = (self.node.host, word.port)
        loop = asyncio.get_running_loop()
        link = AgentLink(name, token, listener)
        try:
            await loop.create_connection(lambda: link, *self.address)
        except OSError as exc:
            raise InternalError(f"node {name} cannot be reached: {exc.strerror}") from None
        self._link = link
        self.state = "running"

    def _make_device(self) -> None:
        """Make the device, for what this installation signs: no agent was near it before."""
        if self._native:  # the hardware has the secrets
            self._device.mkdir(mode=0o700, exist_ok=True)
            return
        device_folder.make(self._device)
        key = self._home.signing_key(registry.find(self.node.tee))
        memory = device_folder.FileNonVolatile(self._device)
        if key is not None and memory.get("signer") is None:
            public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            memory.put("signer", hashlib.sha256(public).digest())

    def _placed(self, error: BrochError) -> BrochError:
        place = error.place or self._descriptor.place("nodes", self.node.name)
        return type(error)(error.message, place=place, hint=error.hint)

    async def _first_word(self) -> "_Word":
        line = await self._first_line()
        try:
            word = _word.decode(line)
        except (msgspec.MsgspecError, ValueError):
            word = _Word()
        if word.error is None and not word.port:
            raise InternalError(
                f"the agent of node {self.node.name} did not start",
                hint="run again with BROCH_DEBUG=1 to see why",
            )
        return word

    async def _first_line(self) -> bytes:
        """What the agent says first; nothing if it ends or takes too long."""
        assert self._process is not None
        control = self._process.control
        control.setblocking(False)
        loop = asyncio.get_running_loop()
        line = b""
        with contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(_START_SECONDS):
                while not line.endswith(b"\n") and len(line) < _MAX_WORD:
                    part = await loop.sock_recv(control, 4096)
                    if not part:
                        break
                    line += part
        return line

    async def operate(self, action: str, target: str, value: Any) -> dict[str, Any]:
        """Act on the device's peripherals, or look at them: hands and eyes, past the agent.

        Raises:
            UsageError: no such action or peripheral, or a device without any.
            PolicyError: no module owns the peripheral.
            InternalError: the device is gone.
        """
        if self._process is None or not isinstance(tee_of(self.node), SharedKeyTee):
            raise UsageError(
                f"node {self.node.name} ({self.node.tee}) has no peripherals to operate",
                hint="a node of a microcontroller has: tee = 'sancus'",
            )
        order = mcu.PanelOrder(action, self.node.peripherals.get(target, target), value)
        try:
            async with self._panel:
                seen = await asyncio.to_thread(mcu.operate, self._process.panel, order)
        except UsageError as exc:
            raise UsageError(exc.message, hint=self._with_names(exc.hint)) from None
        return {"node": self.node.name, "named": dict(self.node.peripherals), **seen}

    def _with_names(self, hint: str | None) -> str | None:
        """A hint at the device's peripherals, with those that the descriptor has names for."""
        names = ", ".join(self.node.peripherals)
        return f"{hint}; of node {self.node.name}: {names}" if hint and names else hint

    def close(self) -> None:
        """End the node's processes."""
        if self._link is not None:
            self._link.close()
        if self._process is not None:
            self._process.close()
            self._process = None

    def status(self) -> dict[str, Any]:
        """What is shown of it."""
        return {
            "name": self.node.name,
            "tee": self.node.tee,
            "device": self.node.device.value,
            "emulated": self.is_emulated,
            "address": f"{self.address[0]}:{self.address[1]}",
            "state": self.state,
            "lacks": self.lacks,
        }
