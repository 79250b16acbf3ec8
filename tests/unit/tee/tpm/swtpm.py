"""A real TPM in software (swtpm, libtpms), as /dev/tpmrm0 would have one. Tests skip without it."""

import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
from tests.kernels import NoKernel

from broch.tee.kernel import Exchange
from broch.tee.tpm import native
from broch.tee.tpm.reader import SHA256

PASSWORD: Final = 0x40000009  # TPM_RS_PW
EXTEND: Final = 0x182  # TPM_CC_PCR_Extend


class SoftwareTpm(NoKernel):
    """Talks to one process of swtpm; closing the other end ends it."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self.commands: list[int] = []

    def exists(self, path: str) -> bool:
        return path == "/dev/tpmrm0"

    @contextmanager
    def talk(self, path: str) -> Iterator[Exchange]:
        assert path == "/dev/tpmrm0"
        yield self._exchange

    def _exchange(self, message: bytes, limit: int) -> bytes:
        self.commands.append(int.from_bytes(message[6:10], "big"))
        self._socket.sendall(message)
        answer = self._socket.recv(limit)
        while len(answer) < 10 or len(answer) < int.from_bytes(answer[2:6], "big"):
            part = self._socket.recv(limit - len(answer))
            if not part:
                raise OSError(5, "the TPM is gone")
            answer += part
        return answer


def extend(tpm: SoftwareTpm, index: int, value: bytes = b"e" * 32) -> None:
    """TPM2_PCR_Extend of the SHA-256 bank."""
    with native.commands(tpm) as commands:
        digests = struct.pack(">IH", 1, SHA256) + value
        commands.run(EXTEND, [index], digests, sessions=[PASSWORD])


@contextmanager
def software_tpm(state: Path) -> Iterator[SoftwareTpm]:
    """A TPM whose state is in this folder; the same folder is the same TPM."""
    program = shutil.which("swtpm")
    if program is None:
        pytest.skip("swtpm is not installed (Debian: apt-get install swtpm)")
    state.mkdir(exist_ok=True)
    ours, theirs = socket.socketpair()
    ours.settimeout(30)
    options = ["--tpmstate", f"dir={state}", "--flags", "not-need-init,startup-clear"]
    with theirs:
        process = subprocess.Popen(
            [program, "socket", "--tpm2", "--fd", str(theirs.fileno()), *options],
            pass_fds=[theirs.fileno()],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    try:
        with ours:
            yield SoftwareTpm(ours)
    finally:
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
