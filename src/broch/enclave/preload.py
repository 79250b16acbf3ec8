"""What is in memory before an enclave process seals itself, and so all that a module can import.

Importing this module imports all of it: Python's own modules that authors may use, what those
import late by themselves, Broch's runtime and its dependencies. Together these are the runtime
closure (:mod:`broch.enclave.closure`).
"""

import importlib
from typing import Final

#: What module code may import besides its own files and ``broch``.
FOR_MODULES: Final = (
    "__future__ abc array base64 binascii bisect calendar cmath collections collections.abc "
    "contextlib copy dataclasses datetime decimal enum fractions functools hashlib heapq hmac "
    "itertools json math msgspec numbers operator random re secrets statistics string struct "
    "textwrap time types typing unicodedata uuid zlib zoneinfo"
).split()

#: What those, Broch and cryptography import only when they are first used.
_LATE: Final = (
    "_strptime ctypes encodings.ascii encodings.idna encodings.latin_1 encodings.utf_8 fcntl "
    "linecache mmap resource select signal socket traceback warnings "
    "cryptography.exceptions cryptography.hazmat.backends "
    "cryptography.hazmat.backends.openssl.backend "
    "cryptography.hazmat.primitives.asymmetric.ed25519 "
    "cryptography.hazmat.primitives.asymmetric.x25519 cryptography.hazmat.primitives.ciphers.aead "
    "cryptography.hazmat.primitives.hpke cryptography.hazmat.primitives.serialization "
    "msgspec.inspect msgspec.json msgspec.msgpack cbor2 "
    "broch broch.crypto.channel broch.enclave.gate broch.enclave.handover broch.enclave.join "
    "broch.enclave.loader broch.enclave.process broch.enclave.ring broch.enclave.runtime "
    "broch.enclave.sandbox broch.enclave.sealed broch.image broch.sdk"
).split()


def preload() -> None:
    """Import everything; cheap when it was done before."""
    for name in (*FOR_MODULES, *_LATE):
        importlib.import_module(name)
