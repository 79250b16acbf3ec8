"""The private channel between an enclave process and its device.

A SOCK_SEQPACKET pair that the device host (:mod:`broch.enclave.machine`) made when it loaded the
image: which socket a question comes from decides in whose name it is answered, so nobody can ask in
another enclave's name. One msgpack array a packet: question ``[operation, argument]``, answer
``[ok, value or text]``.
"""

import socket
from typing import Any, Final

import msgspec

from broch.errors import BrochError, InternalError, UntrustedError
from broch.tee.contract import Device, Identity, SealBinding, SealKeyRequest

MAX_PACKET: Final = 65536  # bytes; the longest answer is evidence
_MAX_REPORT: Final = 64
_MAX_LABEL: Final = 64


class DeviceInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an enclave may know of its device and of itself."""

    tee: str
    emulated: bool
    report_data_size: int
    measurement: bytes
    signer: bytes | None
    seals: bool = True  # whether it has sealing keys


class DeviceChannel:
    """The enclave's end."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def _ask(self, operation: str, argument: object = None) -> Any:
        try:
            self._socket.send(msgspec.msgpack.encode([operation, argument]))
            packet = self._socket.recv(MAX_PACKET)
        except ConnectionError:
            packet = b""
        if not packet:
            raise InternalError("the device is gone")
        ok, value = msgspec.msgpack.decode(packet)
        if not ok:
            raise UntrustedError(f"the device refused {operation}: {value}")
        return value

    def info(self) -> DeviceInfo:
        """Who this enclave is."""
        return msgspec.convert(self._ask("info"), DeviceInfo)

    def evidence(self, report_data: bytes) -> bytes:
        """Evidence over ``report_data`` in this enclave's own name."""
        return bytes(self._ask("evidence", report_data))

    def seal_key(self, label: bytes) -> bytes:
        """32 bytes by the TEE's first seal binding; ``label`` has at most 64 bytes.

        Raises:
            UntrustedError: the device has no sealing keys.
        """
        return bytes(self._ask("seal_key", label))

    def counter(self, name: str) -> int:
        """A monotonic counter's value."""
        return int(self._ask("counter", name))

    def increment(self, name: str) -> int:
        """Add one to a monotonic counter; its new value."""
        return int(self._ask("increment", name))

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


class DeviceService:
    """The device's end: answers one enclave, in that enclave's name."""

    def __init__(
        self,
        device: Device,
        identity: Identity,
        report_data_size: int,
        binding: SealBinding | None,
    ) -> None:
        self._device = device
        self._identity = identity
        self._binding = binding
        self._info = DeviceInfo(
            tee=device.tee,
            emulated=device.emulated,
            report_data_size=report_data_size,
            measurement=identity.measurement.value,
            signer=identity.measurement.signer,
            seals=binding is not None,
        )

    def answer(self, packet: bytes) -> bytes:
        """Answer one question; a refusal is an answer too."""
        try:
            operation, argument = _question.decode(packet)
            value = self._serve(operation, argument)
        except (msgspec.MsgspecError, RecursionError):
            return msgspec.msgpack.encode([False, "not a question"])
        except BrochError as exc:
            return msgspec.msgpack.encode([False, exc.message])
        return msgspec.msgpack.encode([True, value])

    def _serve(self, operation: str, argument: object) -> object:
        if operation == "info":
            return self._info
        if operation == "evidence" and isinstance(argument, bytes):
            if len(argument) > min(_MAX_REPORT, self._info.report_data_size):
                raise UntrustedError("report data too long")
            return self._device.evidence(self._identity, argument)
        if operation == "seal_key" and isinstance(argument, bytes) and len(argument) <= _MAX_LABEL:
            # Without a binding the device refuses, and says why it has none.
            binding = self._binding or SealBinding.CODE
            request = SealKeyRequest(label=argument, binding=binding)
            return self._device.seal_key(self._identity, request)
        if operation in ("counter", "increment") and _is_counter_name(argument):
            counter = self._device.counter(self._identity, str(argument))
            return counter.read() if operation == "counter" else counter.increment()
        raise UntrustedError("no such question")


def _is_counter_name(name: object) -> bool:
    return isinstance(name, str) and 0 < len(name) <= _MAX_LABEL and name.isascii()


_question: Final = msgspec.msgpack.Decoder(tuple[str, Any])
