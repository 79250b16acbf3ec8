"""Numbers of the Fortanix SGX ABI (fortanix-sgx-abi 0.6.1)."""

import errno
import struct
from enum import IntEnum
from typing import Final


class Result(IntEnum):
    """What a usercall returns in RSI. An enclave aborts on any other value."""

    SUCCESS = 0
    PERMISSION_DENIED = 1
    NOT_FOUND = 2
    INTERRUPTED = 4
    WOULD_BLOCK = 0xB
    ALREADY_EXISTS = 0x11
    INVALID_INPUT = 0x16
    BROKEN_PIPE = 0x20
    ADDR_IN_USE = 0x62
    ADDR_NOT_AVAILABLE = 0x63
    CONNECTION_ABORTED = 0x67
    CONNECTION_RESET = 0x68
    NOT_CONNECTED = 0x6B
    TIMED_OUT = 0x6E
    CONNECTION_REFUSED = 0x6F
    INVALID_DATA = 0x2000_0000
    WRITE_ZERO = 0x2000_0001
    UNEXPECTED_EOF = 0x2000_0002
    OTHER = 0x3FFF_FFFF


_BY_ERRNO: Final = {
    errno.EPERM: Result.PERMISSION_DENIED,
    errno.EACCES: Result.PERMISSION_DENIED,
    errno.ENOENT: Result.NOT_FOUND,
    errno.EINTR: Result.INTERRUPTED,
    errno.EAGAIN: Result.WOULD_BLOCK,
    errno.EEXIST: Result.ALREADY_EXISTS,
    errno.EINVAL: Result.INVALID_INPUT,
    errno.EPIPE: Result.BROKEN_PIPE,
    errno.EADDRINUSE: Result.ADDR_IN_USE,
    errno.EADDRNOTAVAIL: Result.ADDR_NOT_AVAILABLE,
    errno.ECONNABORTED: Result.CONNECTION_ABORTED,
    errno.ECONNRESET: Result.CONNECTION_RESET,
    errno.ENOTCONN: Result.NOT_CONNECTED,
    errno.ETIMEDOUT: Result.TIMED_OUT,
    errno.ECONNREFUSED: Result.CONNECTION_REFUSED,
}


def result_of(error: OSError) -> Result:
    """The result for what the system said."""
    return _BY_ERRNO.get(error.errno or 0, Result.OTHER)


class Number(IntEnum):
    """Usercalls, as RDI of EEXIT names them."""

    READ = 1
    READ_ALLOC = 2
    WRITE = 3
    FLUSH = 4
    CLOSE = 5
    BIND_STREAM = 6
    ACCEPT_STREAM = 7
    CONNECT_STREAM = 8
    LAUNCH_THREAD = 9
    EXIT = 10
    WAIT = 11
    SEND = 12
    INSECURE_TIME = 13
    ALLOC = 14
    FREE = 15
    ASYNC_QUEUES = 16


# How many of RSI, RDX, R8, R9 a usercall has; the others must be zero.
PARAMETERS: Final = {
    Number.READ: 3,
    Number.READ_ALLOC: 2,
    Number.WRITE: 3,
    Number.FLUSH: 1,
    Number.CLOSE: 1,
    Number.BIND_STREAM: 3,
    Number.ACCEPT_STREAM: 3,
    Number.CONNECT_STREAM: 4,
    Number.LAUNCH_THREAD: 0,
    Number.EXIT: 1,
    Number.WAIT: 2,
    Number.SEND: 2,
    Number.INSECURE_TIME: 0,
    Number.ALLOC: 2,
    Number.FREE: 3,
    Number.ASYNC_QUEUES: 3,
}
USER_DEFINED: Final = 0x8000_0000  # bit of a usercall number that Fortanix leaves to others

STDIN: Final = 0
STDOUT: Final = 1
STDERR: Final = 2

EV_USERCALLQ_NOT_FULL: Final = 1
EV_RETURNQ_NOT_EMPTY: Final = 2
EV_UNPARK: Final = 4
EV_CANCELQ_NOT_FULL: Final = 8
EV_ALL: Final = 0xF
WAIT_NO: Final = 0
WAIT_INDEFINITE: Final = 2**64 - 1

DEBUG_BUFFER: Final = 1024  # bytes
BYTE_BUFFER: Final = struct.Struct("<QQ")  # address, length
