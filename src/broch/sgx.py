"""Run SGX enclaves here, on the emulated CPU of this installation, and call them from Python.

>>> import broch.sgx
>>> with broch.sgx.Enclave("library.sgxs") as enclave:  # doctest: +SKIP
...     enclave.call(1, b"data").data

Emulated means: formats, checks, measurements and keys behave as those of hardware do; nothing is
protected from who runs it. See docs/sgx-run.md.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Self

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from broch.app.home import Home
from broch.enclave import device_folder
from broch.enclave.device_folder import check_private, write_private
from broch.errors import MalformedError, UsageError
from broch.tee.contract import DeviceSettings, Endorsements
from broch.tee.sgx import TEE, sgxs, signing, sigstruct
from broch.tee.sgx.device import SgxDevice
from broch.tee.sgx.faults import InvalidSigStructError, SgxNumber, SgxUntrustedError
from broch.tee.sgx.run import engines, quoting
from broch.tee.sgx.run.library import Library, Reply
from broch.tee.sgx.run.loading import LoadedEnclave, load
from broch.tee.sgx.run.runner import Runner
from broch.tee.sgx.run.usercalls import Ocall, Usercalls
from broch.tee.sgx.structures import Report
from broch.wire.files import read_whole

__all__ = [
    "Enclave",
    "Program",
    "Reply",
    "dummy_key",
    "endorsements",
    "find_signature",
    "open_device",
]

XCR0: Final = 0x7  # what the emulated CPU saves: x87, SSE, AVX
_MAX_IMAGE: Final = 1 << 30  # bytes of a stream: it is read whole
_MAX_SMALL: Final = 1 << 16  # bytes of a key or a signature
_BEGIN: Final = timedelta(days=1)  # certificates of a new device begin so long ago
_STALE_HINT: Final = (
    "the signature is of another build: sign again, or name it (--signature file=PATH, or dummy)"
)


def open_device(home: Home | None = None) -> SgxDevice:
    """The emulated SGX machine of this installation, on which ``broch run`` runs; made at first.

    Raises:
        UsageError: there is no home folder.
        UntrustedError: the device is another user's, or others may use it.
    """
    folder = _device_folder(home)
    device_folder.make(folder)
    device = SgxDevice(
        DeviceSettings(
            name="run",
            secret=device_folder.read_secret(folder),
            nv=device_folder.FileNonVolatile(folder),
            now=datetime.now(UTC) - _BEGIN,
        )
    )
    if not (folder / "endorsements").exists():
        device_folder.save_endorsements(folder, device.endorsements())
    return device


def endorsements(home: Home | None = None) -> Endorsements:
    """What a verifier needs to believe quotes of :func:`open_device`'s machine."""
    return open_device(home).endorsements()


def _device_folder(home: Home | None) -> Path:
    # No application has such a name, so no node's device is in the way.
    return (home or Home.find()).device("_run", "this", "sgx")


def dummy_key(home: Home | None = None) -> RSAPrivateKey:
    """The key of dummy signatures: this installation's own; made when there is none.

    Raises:
        UntrustedError: it is another user's, or others may use it.
    """
    folder = (home or Home.find()).folder("keys")
    path = folder / "sgx-dummy.pem"
    if not path.exists():
        made = folder / f".sgx-dummy.{os.getpid()}.pem"
        key = TEE.new_signing_key()
        write_private(made, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        try:
            os.link(made, path)
        except FileExistsError:
            pass  # another process was quicker: its key counts
        finally:
            made.unlink()
    check_private(path)
    return signing.read_private_key(_read(path, _MAX_SMALL), str(path))


def find_signature(
    path: Path, stream: bytes, choice: str | None = None, home: Home | None = None
) -> bytes:
    """The SIGSTRUCT to load an image with.

    Args:
        path: of the image.
        stream: what is in it.
        choice: ``coresident`` (the ``.sig`` beside it), ``dummy``, ``file=PATH``; None: the first
            of these that is there.
        home: whose dummy key.

    Raises:
        UsageError: another choice, or no such file.
        DecodeError: not an SGXS stream with a size.
    """
    coresident = path.with_suffix(".sig")
    if choice is None:
        choice = "coresident" if coresident.is_file() else "dummy"
    kind, equals, name = choice.partition("=")
    if choice == "dummy":
        with _of(path):
            mrenclave, create = sgxs.measure(stream), sgxs.read_create(stream)
        date = int(f"{datetime.now(UTC):%Y%m%d}", 16)
        unsigned = signing.dummy(mrenclave, create.ssaframesize, date, xcr0=XCR0)
        return sigstruct.sign(unsigned, dummy_key(home)).to_bytes()
    if choice == "coresident" or (kind == "file" and equals and name):
        return _read(Path(name) if name else coresident, _MAX_SMALL)
    raise UsageError(f"no such signature: {choice!r}", hint="one of coresident, dummy, file=PATH")


@contextmanager
def _of(path: Path) -> Iterator[None]:
    """Within this, malformed input is that file's."""
    try:
        yield
    except MalformedError as exc:
        exc.place = str(path)
        raise


def _read(path: Path, most: int) -> bytes:
    try:
        with _of(path), path.open("rb") as file:
            return read_whole(file, most)
    except OSError as exc:
        raise UsageError(f"cannot be read: {exc.strerror}", place=str(path)) from None


def _load(path: Path, choice: str | None, device: SgxDevice, home: Home | None) -> LoadedEnclave:
    stream = _read(path, _MAX_IMAGE)
    signature = find_signature(path, stream, choice, home)
    try:
        with _of(path):
            return load(stream, signature, device)
    except InvalidSigStructError as exc:
        exc.place = f"the signature of {path}"
        raise
    except SgxUntrustedError as exc:
        if exc.number == SgxNumber.INVALID_MEASUREMENT:
            exc.hint = _STALE_HINT
        raise


class _OnDevice:
    """What programs and libraries have in common: a device, a host, and an engine to come."""

    def __init__(
        self,
        path: str | Path,
        host: Usercalls,
        *,
        signature: str | None,
        engine: str | None,
        sgx2: bool,
        home: Home | None,
    ) -> None:
        self._make_engine = engines.choose(engine, sgx2=sgx2)
        self.device: Final = open_device(home)
        self.usercalls: Final = host
        self._quoted: bytes | None = None
        service = quoting.QuoteService(self.device, self._take_quote)
        host.services.setdefault(quoting.NAME, service)
        self._stack = ExitStack()
        self.enclave: Final = _load(Path(path), signature, self.device, home)
        self._stack.callback(self.enclave.close)

    @property
    def mrenclave(self) -> bytes:
        """Its measurement (32 bytes)."""
        return self.enclave.secs.mrenclave

    @property
    def mrsigner(self) -> bytes:
        """Who signed it (32 bytes)."""
        return self.enclave.secs.mrsigner

    def _runner(self, *, library: bool) -> Runner:
        return Runner(self.enclave, self.device, self.usercalls, self._make_engine, library=library)

    def _take_quote(self, quote: bytes) -> None:
        self._quoted = quote

    def close(self) -> None:
        """End it, whatever it does; calls that wait for it fail."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Program(_OnDevice):
    """An executable enclave, loaded and ready to run once."""

    def __init__(
        self,
        path: str | Path,
        *,
        signature: str | None = None,
        engine: str | None = None,
        sgx2: bool = False,
        usercalls: Usercalls | None = None,
        home: Home | None = None,
    ) -> None:
        """Load it.

        Args:
            path: the SGXS file.
            signature: see :func:`find_signature`.
            engine: ``native`` or ``unicorn``; None: the quickest there is.
            sgx2: the CPU allows RDTSC in enclaves.
            usercalls: its host; None: an honest one with our standard streams.
            home: which installation's device and dummy key.

        Raises:
            UsageError: a file is missing, or a choice is none.
            DecodeError: not an SGXS stream, or not a SIGSTRUCT.
            SgxError: the hardware's refusal.
            UndecidedError: no engine is to be had.
        """
        host = usercalls if usercalls is not None else Usercalls()
        super().__init__(path, host, signature=signature, engine=engine, sgx2=sgx2, home=home)
        with self._stack:
            self._running = self._runner(library=False)
            self._stack.callback(self._running.close)
            self._stack = self._stack.pop_all()

    @property
    def engine(self) -> str:
        """The name of the engine that it runs on."""
        return self._running.engine.name

    @property
    def quote(self) -> bytes | None:
        """The last quote that it got, by connecting to ``quote.broch``."""
        return self._quoted

    def run(self, arguments: Sequence[str] = ()) -> None:
        """Run it to its end.

        Raises:
            EnclavePanickedError: it gave up; also when it exited with a code other than 0.
            EnclaveFaultError: it did what it must not.
        """
        self._running.run_program(arguments)


class Enclave(_OnDevice):
    """A library enclave, loaded and ready to be called.

    Calls may come from several threads of Python; as many run at once as the enclave has threads.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        ocalls: Mapping[int, Ocall] | None = None,
        signature: str | None = None,
        engine: str | None = None,
        sgx2: bool = False,
        usercalls: Usercalls | None = None,
        home: Home | None = None,
    ) -> None:
        """Load it.

        Args:
            path: the SGXS file, converted with ``--library``.
            ocalls: number -> function, for what the enclave asks of its host. A function gets
                bytes and returns nothing, a number (32 bits), bytes, or both. What it raises ends
                the enclave, and is raised by the call.
            signature: see :func:`find_signature`.
            engine: ``native`` or ``unicorn``; None: the quickest there is.
            sgx2: the CPU allows RDTSC in enclaves.
            usercalls: its host, instead of an honest one with ``ocalls``.
            home: which installation's device and dummy key.

        Raises:
            UsageError: a file is missing, or a choice is none.
            DecodeError: not an SGXS stream, or not a SIGSTRUCT.
            SgxError: the hardware's refusal.
            UndecidedError: no engine is to be had.
        """
        host = usercalls if usercalls is not None else Usercalls(ocalls=ocalls)
        super().__init__(path, host, signature=signature, engine=engine, sgx2=sgx2, home=home)
        with self._stack:
            self._library = Library(lambda: self._runner(library=True))
            self._stack.callback(self._library.close)
            self._stack = self._stack.pop_all()

    @property
    def engine(self) -> str:
        """The name of the engine that it runs on."""
        return self._library.engine

    @property
    def quote_target(self) -> bytes:
        """TARGETINFO of the quoting enclave (512 bytes): whom a REPORT to be quoted must be for."""
        return self.device.quote_target.to_bytes()

    def call(self, number: int, data: bytes = b"") -> Reply:
        """Call ``broch_call(number, data)`` in it.

        Raises:
            EnclaveError: it panicked, did what it must not, or ended earlier.
        """
        return self._library.call(number, data)

    def enter(self, *parameters: int) -> tuple[int, int]:
        """EENTER with up to five numbers of 64 bits; RSI and RDX of the return.

        Raises:
            EnclaveError: it panicked, did what it must not, or ended earlier.
        """
        return self._library.enter(*parameters)

    def quote(self, report: bytes) -> bytes:
        """A DCAP quote (version 3) of a REPORT (432 bytes) that an enclave made here.

        Raises:
            DecodeError: not a REPORT.
            UntrustedError: it is not for the quoting enclave, or not of this machine.
        """
        return self.device.quote(Report.from_bytes(report))
