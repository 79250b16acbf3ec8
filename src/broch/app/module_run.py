"""A module of a running application: its enclave, what it was asked, how it ended."""

import asyncio
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from broch.app import values
from broch.app.agent_messages import Load
from broch.app.build import Built
from broch.app.deployer import Admission
from broch.app.journal import Journal
from broch.app.node_run import NodeRun
from broch.enclave.messages import CALL, GAP, NOTICE, RESULT, Kind, Status, decode_fault, head
from broch.errors import (
    BrochError,
    InternalError,
    PolicyError,
    UndecidedError,
    UntrustedError,
    UsageError,
)
from broch.image import PortKind
from broch.tee.hosting import SharedKeyTee

_PATIENCE: Final = 60.0  # seconds for an answer of the join, on top of the module's own limit
_MAX_TEXT: Final = 1000  # characters shown of what an enclave says
_SIGNALS: Final = {-9: "was killed", -11: "crashed (SIGSEGV)", -31: "made a forbidden system call"}


class ModuleFailedError(InternalError):
    """A module of the application ended when it should not have."""

    code = "internal"


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How an enclave ended."""

    orderly: bool
    what: str  # "raised ValueError", "took longer than 5 s"
    place: str = ""  # modules/soil.py:12
    message: str = ""  # the exception's text, from debug images

    def to_data(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"what": self.what, "place": self.place or None, "message": self.message or None}


class ModuleRun:
    """One module while its application runs; over restarts, one enclave after the other."""

    def __init__(self, built: Built, node: NodeRun, journal: Journal) -> None:
        self.built = built
        self.node = node
        self.name = built.spec.name
        self.state = "starting"
        self.restarts = 0
        self.handle = 0
        self.pid: int | None = None
        self.fault: End | None = None
        self.admission: Admission | None = None
        self.ended: asyncio.Future[End] = asyncio.get_running_loop().create_future()
        self.changing = asyncio.Lock()  # held while an update may put another in its place
        self._journal = journal
        self._waiting: dict[int, deque[asyncio.Future[bytes]]] = {}
        self._calls: dict[int, asyncio.Future[tuple[int, bytes]]] = {}
        self._last_call = 0
        self._report: End | None = None
        self._said_bye = False

    @property
    def is_joined(self) -> bool:
        """Whether the enclave that runs now was attested, and is to have keys."""
        admission = self.admission
        is_in = admission is not None and admission.verdict is not None
        return is_in and not self.ended.done() and self.state != "updating"

    # Loading and asking.

    async def load(self, handle: int, *, unsandboxed: bool) -> None:
        """Load the image into a new enclave and wait until its code is loaded."""
        self.handle = handle
        self.admission = None
        self.ended = asyncio.get_running_loop().create_future()
        self._report, self._said_bye = None, False
        ready = self._expect(Kind.READY)
        try:
            signature = await asyncio.to_thread(self._signature)
            self.pid = await self.node.link.load(self._order(handle, signature, unsandboxed))
        except BrochError as exc:
            place = exc.place or self.name
            raise type(exc)(exc.message, place=place, hint=exc.hint) from None
        await self._answer(ready, Kind.READY)

    def _signature(self) -> bytes | None:
        """What the device wants to see beside the image."""
        tee, packed = self.built.tee, self.built.packed
        if not isinstance(tee, SharedKeyTee):
            return packed.signature
        endorsements = self.node.endorsements()
        # Takes long, and is kept for when evidence comes.
        tee.module_key(packed, endorsements, self.node.module_keys())
        return tee.authorise(packed, endorsements)

    def _order(self, handle: int, signature: bytes | None, unsandboxed: bool) -> Load:
        spec, interface = self.built.spec, self.built.interface
        return Load(
            handle=handle,
            module=self.name,
            tee=self.built.tee.name,
            data=self.built.packed.data,
            signature=signature,
            memory_mb=spec.limits.memory_mb,
            unsandboxed=unsandboxed,
            seconds=spec.limits.seconds,
            ocalls={
                interface.number(name): (str(served.path), served.function)
                for name, served in spec.ocalls.items()
            },
            every={
                interface.number(port.name): port.seconds
                for port in interface.of(PortKind.EVERY)
                if port.seconds is not None
            },
            store=self.built.store_name,
        )

    async def attest(self, admission: Admission) -> None:
        """Let the enclave prove itself; raises what is wrong with its evidence."""
        evidence = await self.ask(admission.challenge(), Kind.EVIDENCE)
        admission.appraise(evidence, at=datetime.now(UTC))
        self.admission = admission

    async def ask(self, message: bytes, kind: Kind) -> bytes:
        """Send a message, and wait for the answer of this kind.

        Raises:
            ModuleFailedError: the enclave ended.
            UndecidedError: no answer came.
        """
        waiting = self._expect(kind)
        self.send(message)
        return await self._answer(waiting, kind)

    def send(self, message: bytes) -> None:
        """Send a message to the enclave."""
        if self.ended.done():
            raise self._failed(self.ended.result())
        self.node.link.send(self.handle, message)

    def _expect(self, kind: Kind) -> asyncio.Future[bytes]:
        waiting: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(kind, deque()).append(waiting)
        return waiting

    async def _answer(self, waiting: asyncio.Future[bytes], kind: Kind) -> bytes:
        patience = _PATIENCE + self.built.spec.limits.seconds
        try:
            async with asyncio.timeout(patience):
                return await waiting
        except TimeoutError:
            raise UndecidedError(
                f"did not answer within {patience:g} s ({kind.name})", place=self.name
            ) from None
        finally:
            queue = self._waiting.get(kind)
            if queue is not None and waiting in queue:
                queue.remove(waiting)

    async def grant(self, message: bytes) -> None:
        """Send a GRANT and check that it is confirmed."""
        assert self.admission is not None
        self.admission.confirm(await self.ask(message, Kind.CONFIRM))

    async def call(self, entry: str, arguments: Any) -> Any:
        """Call an entry with JSON arguments; its result as JSON.

        Raises:
            UsageError: no such entry, or not its arguments.
            PolicyError: the module refused.
            ModuleFailedError: the module ended.
        """
        interface, what = self.built.interface, f"{self.name}.{entry}"
        port = interface.find(entry, PortKind.ENTRY)
        if port is None:
            names = ", ".join(p.name for p in interface.of(PortKind.ENTRY)) or "none"
            raise UsageError(f"there is no entry {what}", hint=f"entries of {self.name}: {names}")
        body = values.encode_arguments(port.argument, arguments, what)
        if self.state != "running":
            raise UndecidedError(f"module {self.name} is {self.state}", place=what)
        self._last_call += 1
        number = self._last_call
        waiting: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        self._calls[number] = waiting
        try:
            self.send(CALL.pack(Kind.CALL, number, interface.number(entry)) + body)
            status, result = await waiting
        finally:
            self._calls.pop(number, None)
        if status == Status.OK:
            return values.decode(port.result, result)
        text = result.decode("utf-8", "replace")[:_MAX_TEXT]
        if status == Status.REFUSED:
            raise PolicyError(f"the module refused: {text}", place=what)
        if status == Status.BAD_ARGUMENTS:
            raise UsageError(text, place=what)
        raise UndecidedError(f"the module is not joined: {text}", place=what)

    # What comes from the enclave, through its agent.

    def said(self, message: bytes) -> None:
        """Take a message; raises :class:`BrochError` for one that makes no sense."""
        kind = message[0]
        queue = self._waiting.get(kind)
        if queue:
            waiting = queue.popleft()
            if not waiting.done():
                waiting.set_result(message)
        elif kind == Kind.RESULT:
            number, status = head(RESULT, message)
            call = self._calls.get(number)
            if call is not None and not call.done():
                call.set_result((status, message[RESULT.size :]))
        elif kind == Kind.PRINT:
            self._journal.add("print", self.name, _text(message[1:]))
        elif kind == Kind.FAULT:
            self._take_fault(message)
        elif kind == Kind.REFUSED:
            self._take_refusal(message)
        elif kind == Kind.GAP:
            connection, lost = head(GAP, message)
            self._journal.gap(self.name, connection, lost)
        elif kind == Kind.BYE:
            self._said_bye = True

    def _take_fault(self, message: bytes) -> None:
        report = decode_fault(message)
        place = self.built.real_place(report.place) if report.place else ""
        self._report = End(
            orderly=False,
            what=report.what[:_MAX_TEXT],
            place=place,
            message=report.message[:_MAX_TEXT],
        )

    def _take_refusal(self, message: bytes) -> None:
        (connection,) = head(NOTICE, message)
        text = _text(message[NOTICE.size :])
        queue = self._waiting.get(Kind.CONFIRM)
        if connection == 0 and queue:
            _reject(queue.popleft(), UntrustedError(f"refused its grant: {text}", place=self.name))
        self._journal.refused(self.name, connection, text)

    def has_ended(self, status: int, why: str) -> None:
        """The enclave is gone."""
        if self._said_bye and status == 0 and not why:
            end = End(orderly=True, what="ended")
        elif why:
            end = End(orderly=False, what=why)
        elif self._report is not None:
            end = self._report
        else:
            what = _SIGNALS.get(status) or (
                f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
            )
            end = End(orderly=False, what=what)
        if not end.orderly:
            self.fault = end
        self._settle(end, self._failed(end))

    def is_lost(self) -> None:
        """Its node is gone, and the enclave with it."""
        end = End(orderly=False, what=f"its node {self.node.node.name} is gone")
        self.fault = end
        self._settle(end, self._failed(end))

    def _settle(self, end: End, error: BrochError) -> None:
        if not self.ended.done():
            self.ended.set_result(end)
        for queue in self._waiting.values():
            for waiting in queue:
                _reject(waiting, error)
            queue.clear()
        for call in self._calls.values():
            _reject(call, error)
        self.pid = None

    def _failed(self, end: End) -> ModuleFailedError:
        detail = f": {end.message}" if end.message else ""
        return ModuleFailedError(f"module {self.name} {end.what}{detail}", place=end.place or None)

    def failure(self, hint: str | None = None) -> ModuleFailedError:
        """Why this module is gone for good."""
        why = self._failed(self.fault or End(orderly=True, what="ended"))
        return ModuleFailedError(why.message, place=why.place, hint=hint)

    def status(self) -> dict[str, Any]:
        """What is shown of it."""
        measurement = self.built.measurement
        verdict = self.admission.verdict if self.admission is not None else None
        return {
            "name": self.name,
            "node": self.node.node.name,
            "tee": self.built.tee.name,
            "emulated": verdict.claims.emulated if verdict is not None else self.node.is_emulated,
            "measurement": measurement.value.hex(),
            "signer": measurement.signer.hex() if measurement.signer is not None else None,
            "verdict": str(verdict) if verdict is not None else None,
            "seals_to": self.built.seals_to.value if self.built.seals_to else None,
            "state": self.state,
            "restarts": self.restarts,
            "pid": self.pid,
            "fault": self.fault.to_data() if self.fault is not None else None,
        }


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")[:_MAX_TEXT]


def _reject(waiting: "asyncio.Future[Any]", error: Exception) -> None:
    if not waiting.done():
        waiting.set_exception(error)
        waiting.exception()  # whoever waits gets it; nobody else need
