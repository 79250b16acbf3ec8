"""The operator's own ends of connections: the deployer seals and opens like a module does."""

from dataclasses import dataclass

from broch.app.wiring import Connection as Wire
from broch.crypto.channel import Direction, Opener, Sealer
from broch.enclave.join import Connection
from broch.enclave.messages import SEALED, Kind, head
from broch.errors import UntrustedError


@dataclass(slots=True)
class Tally:
    """What came and went on one connection."""

    events: int = 0
    gaps: int = 0
    refused: int = 0


class OperatorEnds:
    """The operator's keys, one end a connection."""

    def __init__(self) -> None:
        self._sealers: dict[int, tuple[Sealer, int]] = {}
        self._openers: dict[int, tuple[Opener, int]] = {}
        self.tallies: dict[int, Tally] = {}

    def take(self, granted: Connection) -> None:
        """Use this key from now on; ``role`` is the operator's: it sends by an output."""
        seals = granted.role == "output"
        make = Sealer if seals else Opener
        end = make(
            granted.cipher,
            granted.key,
            connection=granted.id,
            direction=Direction.FORWARD,
            epoch=granted.epoch,
        )
        if isinstance(end, Sealer):
            self._sealers[granted.id] = (end, granted.epoch)
        else:
            self._openers[granted.id] = (end, granted.epoch)
        self.tallies.setdefault(granted.id, Tally())

    def seal(self, wire: Wire, data: bytes) -> bytes:
        """An EVENT message of the operator's."""
        sealer, epoch = self._sealers[wire.id]
        counter, sealed = sealer.seal(data)
        self.tallies[wire.id].events += 1
        return SEALED.pack(Kind.EVENT, wire.id, epoch, counter) + sealed

    def open(self, message: bytes) -> tuple[int, bytes, int]:
        """Connection, plaintext, and how many messages before it never came.

        Raises:
            UntrustedError: a replay, out of order, forged, or on no connection of the operator's.
        """
        connection, epoch, counter = head(SEALED, message)
        found = self._openers.get(connection)
        if found is None:
            raise UntrustedError(f"connection {connection} does not lead to the operator")
        opener, current = found
        tally = self.tallies[connection]
        if epoch != current:
            tally.refused += 1
            raise UntrustedError(f"an event under epoch {epoch}, the connection is at {current}")
        gaps = opener.gaps
        try:
            data = opener.open(counter, message[SEALED.size :])
        except UntrustedError:
            tally.refused += 1
            raise
        tally.events += 1
        tally.gaps += opener.gaps - gaps
        return connection, data, opener.gaps - gaps
