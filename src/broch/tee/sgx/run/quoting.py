"""How an enclave gets a quote: it connects to ``quote.broch``, a name that ends in its host.

    host -> enclave   512 bytes: TARGETINFO of the quoting enclave
    enclave -> host   432 bytes: a REPORT for it, with 64 bytes of the enclave's choice
    host -> enclave   4 bytes, little-endian: length; then the DCAP quote

The host adds nothing: what is not a REPORT of this machine for the quoting enclave becomes no
quote, and the connection ends.
"""

import socket
import struct
from collections.abc import Callable
from typing import Final

from broch.errors import BrochError
from broch.tee.sgx.device import SgxDevice
from broch.tee.sgx.structures import REPORT_SIZE, Report

NAME: Final = "quote.broch"
_LENGTH: Final = struct.Struct("<I")


class QuoteService:
    """Serves connections to :data:`NAME`."""

    def __init__(self, device: SgxDevice, made: Callable[[bytes], None]) -> None:
        """Quote on ``device``; ``made`` hears of each quote, in a thread of its own."""
        self._device = device
        self._made = made

    def __call__(self, sock: socket.socket) -> None:
        """Serve one connection."""
        try:
            sock.sendall(self._device.quote_target.to_bytes())
            report = _receive(sock, REPORT_SIZE)
            if report is None:
                return
            quote = self._device.quote(Report.from_bytes(report))
            self._made(quote)
            sock.sendall(_LENGTH.pack(len(quote)) + quote)
        except (BrochError, OSError):
            pass  # hung up, or not a report to be quoted: the enclave sees the end


def _receive(sock: socket.socket, size: int) -> bytes | None:
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            return None
        data += more
    return data
