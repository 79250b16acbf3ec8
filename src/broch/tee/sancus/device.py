"""An emulated Sancus node: a microcontroller, its node key, its peripherals.

The node key comes from the installation's secret by HKDF. The deployer is vendor 1, and the vendor
key is the device's endorsement: a secret between the two, in a file that only the user can read.

Loading. Hardware protects whatever it is told to, so on a real node whoever boots it first owns
its pins. Here the loader is the device's own, and stricter in one thing: a module with drivers is
loaded only with its deployer's word for it, a tag under the vendor key. Anybody may load others.
"""

import hmac
import os
from collections.abc import Callable
from typing import Any, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from broch.crypto.spongent import SpongeWrap
from broch.errors import DecodeError, PolicyError, UntrustedError, UsageError
from broch.tee.contract import (
    DeviceSettings,
    Endorsements,
    Identity,
    Loaded,
    Measurement,
    Packed,
    SealKeyRequest,
)
from broch.tee.counter import Counter
from broch.tee.hosting import HostedModule
from broch.tee.sancus.board import Board, LoadedModule, Outcome
from broch.tee.sancus.evidence import Evidence
from broch.tee.sancus.keys import vendor_key
from broch.tee.sancus.module_file import ModuleFile, read_module
from broch.tee.sancus.panel import Panel
from broch.tee.sancus.verify import EMULATED_VENDOR_KEY, KEY_SIZE

VENDOR_ID: Final = 1
# Of odd length, so that it is no text with its layout, which the hardware makes module keys of.
_AUTHORISE: Final = b"broch/sancus/load/1\x00"


class SancusModule:
    """A module on this node (:class:`broch.tee.hosting.HostedModule`)."""

    def __init__(self, board: Board, loaded: LoadedModule) -> None:
        self._board = board
        self.loaded = loaded

    @property
    def measurement(self) -> Measurement:
        """Who it is."""
        return Measurement(tee="sancus", value=self.loaded.file.measure())

    @property
    def interrupts(self) -> frozenset[int]:
        """The vectors that it wants to hear of."""
        return self.loaded.file.ports.interrupts

    def number(self, port: int) -> int:
        """Its own number of a port of its interface; raises :class:`IndexError`."""
        return self.loaded.file.ports.number(port)

    def enter(self, function: int, data: bytes) -> Outcome:
        """Call it."""
        return self._board.enter(self.loaded, function, data)

    def evidence(self, challenge: bytes, nonce: bytes, tag: bytes) -> bytes:
        """What it answered, with what a verifier must know of it."""
        module = self.loaded.file.module
        return Evidence(
            vendor_id=VENDOR_ID,
            layout=module.layout,
            challenge=challenge,
            nonce=nonce,
            tag=tag,
            text=module.text,
        ).to_bytes()


class SancusDevice:
    """One emulated node. Pure logic but for randomness, which modules draw at 0x01b0."""

    tee: str = "sancus"
    emulated: bool = True

    def __init__(
        self, settings: DeviceSettings, *, random: Callable[[int], bytes] = os.urandom
    ) -> None:
        self.name: str = settings.name
        info = b"broch/sancus/node-key/1/" + settings.name.encode("utf-8")
        kdf = HKDF(hashes.SHA256(), KEY_SIZE, salt=None, info=info)
        node_key = kdf.derive(settings.secret)
        self._vendor_key = vendor_key(node_key, VENDOR_ID)
        self.board = Board(node_key, random=random, store=settings.nv)
        self._panel = Panel(self.board)

    def install(self, packed: Packed) -> SancusModule:
        """Check a module, load it, protect it (:class:`broch.tee.hosting.Microcontroller`)."""
        if packed.tee != self.tee:
            raise DecodeError(0, f"packed for {packed.tee}, this is a {self.tee} node")
        file = read_module(packed.data)
        if file.drivers:
            expected = authorisation(self._vendor_key, file)
            if not hmac.compare_digest(packed.signature or b"", expected):
                raise UntrustedError(
                    f"{file.module.name} owns peripherals, and its deployer did not say so",
                    hint="load it by broch up: the deployer's word is a tag under the vendor key",
                )
        return SancusModule(self.board, self.board.load(file, vendor=VENDOR_ID))

    def remove(self, module: HostedModule) -> None:
        """Wipe a module that is loaded here; raises :class:`UsageError` for another."""
        if not isinstance(module, SancusModule) or module.loaded not in self.board.loaded:
            raise UsageError("that module is not loaded on this node")
        self.board.unload(module.loaded)

    def interrupts(self) -> list[int]:
        """The vectors that peripherals ask for now."""
        return self.board.interrupts()

    def operate(self, action: str, target: str, value: Any) -> dict[str, Any]:
        """The operator's panel (:mod:`.panel`)."""
        return self._panel.operate(action, target, value)

    def endorsements(self) -> Endorsements:
        """The vendor key: what a verifier needs, and a secret."""
        return Endorsements(anchors=(), items={EMULATED_VENDOR_KEY: self._vendor_key})

    # The rest of a device's contract is about processes on a larger machine.

    def load(self, packed: Packed) -> Loaded:
        """A microcontroller runs its modules itself: see :meth:`install`.

        Raises:
            UsageError: always.
        """
        raise UsageError("a Sancus node runs modules in C, by itself")

    def evidence(self, identity: Identity, report_data: bytes) -> bytes:
        """Only a module can answer; raises :class:`PolicyError`."""
        raise PolicyError("evidence of a Sancus module comes from the module alone")

    def seal_key(self, identity: Identity, request: SealKeyRequest) -> bytes:
        """Sancus derives no keys for sealing; raises :class:`PolicyError`."""
        raise PolicyError("Sancus has no sealing keys")

    def counter(self, identity: Identity, name: str) -> Counter:
        """A microcontroller remembers nothing; raises :class:`PolicyError`."""
        raise PolicyError("a Sancus node has no counters")


def authorisation(vendor: bytes, file: ModuleFile) -> bytes:
    """The tag (16 bytes) by which the holder of a vendor key lets a module own peripherals."""
    message = _AUTHORISE + file.digest()
    return SpongeWrap(vendor).mac(message + bytes(1 - len(message) % 2))
