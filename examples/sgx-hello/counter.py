"""Build the library enclave counter.c, sign it, load it, call it. One command, no SGX:

python examples/sgx-hello/counter.py
"""

import struct
import tempfile
from pathlib import Path

import broch.sgx
from broch.tee.contract import CompileSettings
from broch.tee.sgx import TEE

ADD, LARGEST = 1, 2  # calls
LOG = 1  # ocalls
SOURCE = Path(__file__).with_name("counter.c")


def build(folder: Path) -> Path:
    """Compile, convert and sign; the enclave."""
    settings = CompileSettings(name="counter", library=True, debug=True)
    built = TEE.compile(SOURCE, settings, TEE.new_signing_key())
    for suffix, data in built.files.items():
        (folder / f"counter{suffix}").write_bytes(data)
    return folder / "counter.sgxs"


def log(line: bytes) -> None:
    """Serve the ocall: what the enclave says is only shown."""
    print(f"enclave: {line.decode()}")


def main() -> None:
    """Add three numbers inside, and look for the largest."""
    with tempfile.TemporaryDirectory() as folder:
        path = build(Path(folder))
        with broch.sgx.Enclave(path, ocalls={LOG: log}) as enclave:
            print(f"MRENCLAVE {enclave.mrenclave.hex()} (emulated SGX, {enclave.engine} engine)")
            for number in (40, 1, 1):
                reply = enclave.call(ADD, struct.pack("<q", number))
            print(f"total: {struct.unpack('<q', reply.data)[0]}")
            reply = enclave.call(LARGEST, struct.pack("<5q", 3, 1, 4, 1, 5))
            print(f"largest: {struct.unpack('<q', reply.data)[0]}")
            print(f"a call that there is not: {enclave.call(99).value}")


if __name__ == "__main__":
    main()
