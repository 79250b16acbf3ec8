"""The runtime: what runs a module inside its enclave.

It takes one message at a time from the gate: opens inputs, calls the author's function, seals what
goes out, and keeps the store. Nothing of the host is believed: an event that does not open under
its connection's key is dropped and reported, a message that no honest host can have sent ends the
enclave (:class:`~broch.enclave.ring.PoisonedError`).
"""

from collections.abc import Callable
from typing import Any, Final, NoReturn

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from msgspec.structs import asdict

from broch.enclave import handover, join
from broch.enclave.connections import Connections, Incoming, Outgoing
from broch.enclave.device_channel import DeviceChannel
from broch.enclave.gate import Codec, Gate, WrongResultError, encode_as, encode_result
from broch.enclave.messages import (
    CALL,
    FAILED,
    GAP,
    NOTICE,
    OCALL,
    RESULT,
    RETURN,
    SEALED,
    TICK,
    Kind,
    Status,
    head,
)
from broch.enclave.ring import PoisonedError, Ring
from broch.enclave.sealed import SealedStore
from broch.errors import DecodeError, UntrustedError
from broch.image import Image, PortKind
from broch.sdk import Module, ModuleIdentity, OcallFailed, Refused, RequestFailed, StoreError
from broch.sdk.declare import Declared, function_place

_MAX_NOTICE: Final = 200  # characters of a refusal's text
_SIGN_LABEL: Final = b"broch/sign/1"
_DERIVE_LABEL: Final = "broch/derive/1/"


class Stop(BaseException):
    """The host asked for an orderly end."""


def _raise(poison: PoisonedError | StoreError) -> NoReturn:
    raise poison


class Runtime:
    """One module, running. Also the :class:`broch.sdk.host.Host` of its author's code.

    Args:
        image: what is run.
        module: what its code declared.
        ring: the way to the host.
        device: the way to the device.
        end: ends the enclave. Poison that comes while author's code waits for an answer must not
            pass through that code as an exception, which it could catch.
    """

    def __init__(
        self,
        image: Image,
        module: Module,
        ring: Ring,
        device: DeviceChannel,
        end: Callable[[PoisonedError | StoreError], NoReturn] = _raise,
    ) -> None:
        self._image = image
        self._module = module
        self._ring = ring
        self._gate = Gate(ring)
        self._end = end
        self._device = device
        self._info = device.info()
        self._declared: list[Declared] = module._declared
        self._codecs = [Codec(declared) for declared in self._declared]
        self._connections = Connections(self._declared)
        self._exchange = X25519PrivateKey.generate()
        self._signing = _signing_key(device, seals=self._info.seals)
        self._keys = join.ModuleKeys(
            self._exchange.public_key().public_bytes_raw(),
            self._signing.public_key().public_bytes_raw(),
        )
        self._nonce: bytes | None = None
        self._serial = 0
        self._has_taken_over = False
        self._ocalls = 0
        self._store = SealedStore(device, self._load_blob, self._save_blob)
        self._store_dirty = False
        self._work: dict[int, Callable[[bytes], None]] = {
            Kind.EVENT: self._on_event,
            Kind.REQUEST: self._on_request,
            Kind.CALL: self._on_call,
            Kind.TICK: self._on_tick,
            Kind.CHALLENGE: self._on_challenge,
            Kind.GRANT: self._on_grant,
            Kind.EXPORT: self._on_export,
            Kind.IMPORT: self._on_import,
            Kind.STOP: self._on_stop,
        }
        module._attach(self)

    def serve(self) -> None:
        """Work off messages until the host asks to stop, which raises :class:`Stop`."""
        take, work, tell = self._gate.next, self._work, self._ring.tell_progress
        self._ring.send(bytes([Kind.READY]))
        done = 0
        while True:
            message = take()
            work[message[0]](message)
            if self._store_dirty:
                self._commit()
            done += 1
            tell(done)

    # Messages of the host.

    def _on_event(self, message: bytes) -> None:
        _, connection, epoch, counter = SEALED.unpack_from(message)
        end = self._connections.inputs.get(connection)
        if end is None or end.epoch != epoch:
            self._refuse(connection, f"no input under epoch {epoch}")
            return
        try:
            data = end.opener.open(counter, message[SEALED.size :])
            value = end.decode(data)
        except (UntrustedError, ValueError) as exc:
            self._refuse(connection, _why(exc))
            return
        if end.opener.gaps:
            self._tell_gaps(connection, end)
        try:
            end.function(value)
        except Refused as exc:
            self._refuse(connection, str(exc))

    def _on_request(self, message: bytes) -> None:
        connection, epoch, counter = head(SEALED, message)
        end = self._connections.handlers.get(connection)
        if end is None or end.epoch != epoch:
            self._refuse(connection, f"no handler under epoch {epoch}")
            return
        try:
            value = end.decode(end.opener.open(counter, message[SEALED.size :]))
        except (UntrustedError, ValueError) as exc:
            self._refuse(connection, _why(exc))
            return
        if end.opener.gaps:
            self._tell_gaps(connection, end)
        try:
            result = end.function(value)
            place = self._declared[end.port].place
            body = b"\x00" + encode_result(result, self._codecs[end.port].result, place)
        except Refused as exc:
            body = b"\x01" + _notice(str(exc))
        if self._store_dirty:
            self._commit()
        self._ring.send(end.reply(body, counter))

    def _on_call(self, message: bytes) -> None:
        call, port = head(CALL, message)
        declared = self._port(port, PortKind.ENTRY)
        codec = self._codecs[port]
        try:
            arguments = codec.argument.decode(message[CALL.size :])
        except (ValueError, RecursionError) as exc:
            self._ring.send(_result(call, Status.BAD_ARGUMENTS, _notice(str(exc))))
            return
        assert declared.function is not None
        try:
            result = declared.function(**asdict(arguments))
            body = encode_result(result, codec.result, declared.place)
            status = Status.OK
        except Refused as exc:
            status, body = Status.REFUSED, _notice(str(exc))
        if self._store_dirty:
            self._commit()
        self._ring.send(_result(call, status, body))

    def _on_tick(self, message: bytes) -> None:
        (port,) = head(TICK, message)
        function = self._port(port, PortKind.EVERY).function
        assert function is not None
        function()

    def _on_challenge(self, message: bytes) -> None:
        self._nonce = message[1:]
        self._serial = 0
        data = join.report_data(
            self._nonce,
            self._keys,
            self._image.app,
            self._image.module,
            self._info.report_data_size,
        )
        evidence = self._device.evidence(data)
        self._ring.send(
            bytes([Kind.EVIDENCE]) + self._keys.exchange + self._keys.signing + evidence
        )

    def _on_grant(self, message: bytes) -> None:
        nonce = self._joined()
        try:
            terms = join.open_grant(
                message[1:], nonce, self._keys, self._exchange, self._image.deployer
            )
            if terms.serial <= self._serial:
                raise UntrustedError(f"grant {terms.serial} after grant {self._serial}: replayed")
            self._connections.take(terms.connections)
        except (UntrustedError, DecodeError) as exc:
            self._refuse(0, str(exc))
            return
        self._serial = terms.serial
        self._ring.send(bytes([Kind.CONFIRM]) + join.confirmation(terms, nonce, self._keys))

    def _on_export(self, message: bytes) -> None:
        export = self._module._export
        if export is None:
            raise PoisonedError("this module exports no state")
        target = handover.open_export_order(
            message[1:], self._image.deployer, self._joined(), self._keys
        )
        state = export()
        try:
            plain = msgspec.msgpack.encode(state)
        except (TypeError, ValueError, OverflowError, RecursionError) as exc:
            raise WrongResultError(f"not plain: {exc}", function_place(export)) from None
        digest = join.module_digest(self._image.app, self._image.module)
        self._connections.drop()  # what is handed over must not change any more
        sealed = handover.seal_state(plain, target, digest, self._signing)
        self._ring.send(bytes([Kind.STATE]) + sealed)

    def _on_import(self, message: bytes) -> None:
        take_over = self._module._import
        if take_over is None:
            raise PoisonedError("this module imports no state")
        order, nonce = message[1:], self._joined()
        plain = handover.open_import_order(
            order,
            self._image.deployer,
            nonce,
            self._keys,
            self._exchange,
            join.module_digest(self._image.app, self._image.module),
        )
        if self._has_taken_over:  # a replay would put back what the module went on from
            raise PoisonedError("state was taken over already")
        self._has_taken_over = True
        take_over(msgspec.msgpack.decode(plain))
        if self._store_dirty:
            self._commit()
        proof = handover.sign_imported(order, nonce, self._keys, self._signing)
        self._ring.send(bytes([Kind.IMPORTED]) + proof)

    def _on_stop(self, message: bytes) -> None:
        raise Stop

    def _joined(self) -> bytes:
        if self._nonce is None:
            raise PoisonedError("a message of the join before its challenge")
        return self._nonce

    def _port(self, number: int, kind: PortKind) -> Declared:
        if number >= len(self._declared) or self._declared[number].port.kind is not kind:
            raise PoisonedError(f"port {number} is not an {kind}")
        return self._declared[number]

    def _refuse(self, connection: int, why: str) -> None:
        self._ring.send(NOTICE.pack(Kind.REFUSED, connection) + _notice(why))

    def _tell_gaps(self, connection: int, end: Incoming) -> None:
        self._ring.send(GAP.pack(Kind.GAP, connection, end.opener.gaps))
        end.opener.gaps = 0

    # Services to the author's code.

    def emit(self, port: int, value: Any) -> None:
        """Seal ``value`` to every connection of this output."""
        data = encode_as(value, self._codecs[port].argument)
        try:
            if self._store_dirty:
                self._commit()
            for end in self._connections.outputs.get(port, ()):
                self._ring.send(end.event(data))
        except (PoisonedError, StoreError) as exc:
            self._end(exc)

    def request(self, port: int, value: Any) -> Any:
        """Seal a question, wait for its answer."""
        codec = self._codecs[port]
        data = encode_as(value, codec.argument)
        end = self._connections.requests.get(port)
        if end is None:
            raise RequestFailed("the request is not connected")
        try:
            return self._request(end, data, codec)
        except (PoisonedError, StoreError) as exc:
            self._end(exc)

    def _request(self, end: Outgoing, data: bytes, codec: Codec) -> Any:
        if self._store_dirty:
            self._commit()
        message, counter = end.request(data)
        self._ring.send(message)
        while True:
            answer = self._gate.answer((Kind.REPLY, Kind.FAILED))
            if answer[0] == Kind.FAILED:
                connection, failed = head(FAILED, answer)
                if (connection, failed) == (end.connection, counter):
                    text = answer[FAILED.size :].decode("utf-8", "replace")
                    raise RequestFailed(text[:_MAX_NOTICE])
                continue
            try:
                body = end.open_reply(answer, counter)
                if body[:1] == b"\x00":
                    return codec.result.decode(body[1:])
            except (UntrustedError, ValueError) as exc:
                self._refuse(end.connection, _why(exc))
                continue
            raise RequestFailed(f"refused: {body[1:].decode('utf-8', 'replace')}")

    def ocall(self, port: int, value: Any) -> Any:
        """Ask the host; what it answers has the declared type, and is otherwise anything."""
        codec = self._codecs[port]
        data = encode_as(value, codec.argument)
        try:
            return self._ocall(port, data, codec)
        except (PoisonedError, StoreError) as exc:
            self._end(exc)

    def _ocall(self, port: int, data: bytes, codec: Codec) -> Any:
        if self._store_dirty:
            self._commit()
        self._ocalls += 1
        self._ring.send(OCALL.pack(Kind.OCALL, self._ocalls, port) + data)
        answer = self._gate.answer((Kind.RETURN, Kind.NORETURN))
        (number,) = head(RETURN, answer)
        if number != self._ocalls:
            raise PoisonedError(f"answer to ocall {number}, asked was {self._ocalls}")
        if answer[0] == Kind.NORETURN:
            raise OcallFailed(answer[RETURN.size :].decode("utf-8", "replace")[:_MAX_NOTICE])
        try:
            return codec.result.decode(answer[RETURN.size :])
        except (ValueError, RecursionError) as exc:
            name = self._declared[port].port.name
            raise PoisonedError(f"answer to ocall {name}: {exc}") from None

    def load_store(self) -> dict[str, Any]:
        """Read the sealed store."""
        try:
            return self._store.read()
        except (PoisonedError, StoreError) as exc:
            self._end(exc)

    def store_changed(self) -> None:
        """Remember to write the store before anything else leaves."""
        self._store_dirty = True

    def _commit(self) -> None:
        self._store.write(self._module.store._snapshot())
        self._store_dirty = False

    def _load_blob(self) -> bytes:
        self._ring.send(bytes([Kind.LOAD]))
        return self._gate.answer((Kind.LOADED,))[1:]

    def _save_blob(self, blob: bytes) -> None:
        self._ring.send(bytes([Kind.SAVE]) + blob)
        self._gate.answer((Kind.SAVED,))

    def derive_key(self, label: str) -> bytes:
        """A key of the device's for this label."""
        return self._device.seal_key((_DERIVE_LABEL + label).encode())

    def sign(self, data: bytes) -> bytes:
        """Sign with the module's own key."""
        return self._signing.sign(data)

    def identity(self) -> ModuleIdentity:
        """Who the module is."""
        return ModuleIdentity(
            app=self._image.app,
            module=self._image.module,
            tee=self._info.tee,
            emulated=self._info.emulated,
            measurement=self._info.measurement,
            signer=self._info.signer,
            signing_key=self._keys.signing,
        )


def _signing_key(device: DeviceChannel, *, seals: bool) -> Ed25519PrivateKey:
    """The module's own key: the same after a restart, where the device has sealing keys."""
    if not seals:
        return Ed25519PrivateKey.generate()
    return Ed25519PrivateKey.from_private_bytes(device.seal_key(_SIGN_LABEL))


def _notice(text: str) -> bytes:
    return text.encode("utf-8", "replace")[:_MAX_NOTICE]


def _why(exc: UntrustedError | ValueError) -> str:
    """What the host may know: what was wrong with a value says what was in it."""
    return str(exc) if isinstance(exc, UntrustedError) else "not of the declared type"


def _result(call: int, status: Status, body: bytes) -> bytes:
    return RESULT.pack(Kind.RESULT, call, status) + body
