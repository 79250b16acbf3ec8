"""Kernels that are none: device trees in memory that keep the kernel's rules.

Each rule here is one of the driver that it stands for, which is named. What a driver does to memory
that a structure points to is done to the same memory; request numbers, sizes and error codes are
written down once more, as the kernel's headers have them, and not taken from the code under test.
"""

import ctypes
import errno
import hashlib
import os
import struct
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Final

import cbor2

from broch.tee.kernel import Exchange

REPORTS: Final = "/sys/kernel/config/tsm/report"
Maker = Callable[[bytes], bytes]


def error(code: int) -> OSError:
    return OSError(code, os.strerror(code))


class NoKernel:
    """A machine without any such device."""

    def exists(self, path: str) -> bool:
        return False

    def read(self, path: str, limit: int) -> bytes:
        raise error(errno.ENOENT)

    def write(self, path: str, data: bytes) -> None:
        raise error(errno.ENOENT)

    def mkdir(self, path: str) -> None:
        raise error(errno.ENOENT)

    def rmdir(self, path: str) -> None:
        raise error(errno.ENOENT)

    def ioctl(self, path: str, request: int, argument: ctypes.Structure) -> None:
        raise error(errno.ENOENT)

    def talk(self, path: str) -> AbstractContextManager[Exchange]:
        raise error(errno.ENOENT)


@dataclass
class Instance:
    """``struct tsm_report_state``."""

    write_generation: int = 0
    read_generation: int = 0
    inblob: bytes = b""
    level: int = 0
    outblob: bytes | None = None
    auxblob: bytes = b""


@dataclass(kw_only=True)
class TsmKernel(NoKernel):
    """configfs-tsm: drivers/virt/coco/guest/report.c, fs/configfs/file.c (Linux 6.7 and newer).

    ``make(report data, level)`` is the provider; ``trouble`` are error codes that its next calls
    end with; ``before_read`` runs when an outblob is asked for, as another process might.
    """

    provider: str
    make: Callable[[bytes, int], bytes]
    aux: bytes | None = None  # None: the attribute is not visible
    floor: int | None = None  # None: the provider has no levels
    trouble: list[int] = field(default_factory=list)
    refused_writes: int = 0  # so many writes of inblob find the generation at its end: EBUSY
    before_read: Callable[[], None] = lambda: None
    instances: dict[str, Instance] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)

    def _split(self, path: str) -> tuple[Instance, str]:
        folder, _, attribute = path.rpartition("/")
        instance = self.instances.get(folder.removeprefix(REPORTS + "/"))
        if instance is None or attribute not in self._attributes():
            raise error(errno.ENOENT)
        return instance, attribute

    def _attributes(self) -> set[str]:
        found = {"provider", "generation", "inblob", "outblob"}
        if self.floor is not None:
            found |= {"privlevel", "privlevel_floor"}
        return found | ({"auxblob"} if self.aux is not None else set())

    def exists(self, path: str) -> bool:
        if path == REPORTS or path.removeprefix(REPORTS + "/") in self.instances:
            return True
        try:
            self._split(path)
        except OSError:
            return False
        return True

    def mkdir(self, path: str) -> None:
        name = path.removeprefix(REPORTS + "/")
        assert name.count("/") == 0, "configfs makes instances in report/ only"
        if name in self.instances:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        if not self.provider:
            raise error(errno.ENXIO)  # tsm_report_make_item: no provider is registered
        self.instances[name] = Instance()

    def rmdir(self, path: str) -> None:
        if self.instances.pop(path.removeprefix(REPORTS + "/"), None) is None:
            raise error(errno.ENOENT)

    def write(self, path: str, data: bytes) -> None:
        instance, attribute = self._split(path)
        self.calls.append(attribute)
        if attribute == "inblob":
            # configfs_bin_write_iter keeps what is written, up to TSM_REPORT_INBLOB_MAX; the driver
            # gets it when the file is closed, and "result of ->release() is ignored".
            if len(data) > 64:
                raise error(errno.EFBIG)
            if self.refused_writes:
                self.refused_writes -= 1
                return
            instance.write_generation += 1
            instance.inblob = data
        elif attribute == "privlevel":
            # tsm_report_privlevel_store: kstrtouint, then the floor and TSM_REPORT_PRIVLEVEL_MAX
            if not data.strip().isdigit():
                raise error(errno.EINVAL)
            assert self.floor is not None
            if not self.floor <= int(data) <= 3:
                raise error(errno.EINVAL)
            instance.write_generation += 1
            instance.level = int(data)
        else:
            raise error(errno.EACCES)  # the attribute has no store

    def read(self, path: str, limit: int) -> bytes:
        instance, attribute = self._split(path)
        self.calls.append(attribute)
        if attribute == "provider":
            return f"{self.provider}\n".encode()
        if attribute == "generation":
            return f"{instance.write_generation}\n".encode()
        if attribute == "privlevel_floor":
            return f"{self.floor}\n".encode()
        if attribute not in ("outblob", "auxblob"):
            raise error(errno.EACCES)  # the attribute has no show
        self._generate(instance)
        assert instance.outblob is not None
        found = instance.outblob if attribute == "outblob" else instance.auxblob
        if len(found) > limit:
            raise error(errno.EFBIG)
        return found

    def _generate(self, instance: Instance) -> None:
        """``tsm_report_read``: made once a generation, by the provider's ``report_new``."""
        if not instance.inblob:
            raise error(errno.EINVAL)
        if instance.outblob is not None and instance.read_generation == instance.write_generation:
            return
        self.before_read()
        if self.trouble:
            raise error(self.trouble.pop(0))
        if len(instance.inblob) != 64:
            raise error(errno.EINVAL)  # sev_report_new, tdx_report_new
        if self.floor and instance.level < self.floor:
            raise error(errno.EIO)  # the firmware refuses a level above the caller's own
        instance.outblob = self.make(instance.inblob, instance.level)
        instance.auxblob = self.aux or b""
        instance.read_generation = instance.write_generation


def memory(address: int, size: int) -> Any:
    """The bytes at an address, to be read and written."""
    return (ctypes.c_uint8 * size).from_address(address)


def argument_bytes(argument: ctypes.Structure) -> Any:
    return memory(ctypes.addressof(argument), ctypes.sizeof(argument))


@dataclass(kw_only=True)
class SevGuestKernel(NoKernel):
    """/dev/sev-guest: drivers/virt/coco/sev-guest/sev-guest.c, and the firmware behind it."""

    make: Maker = lambda report_data: b"R" * 1184
    certs: bytes = b""
    level: int = 0  # the VMPL that this kernel runs at
    measurement: bytes = b"M" * 48
    policy: int = 0x30000
    chip: bytes = b"a chip"
    trouble: list[int] = field(default_factory=list)
    status: int = 0  # of the next responses
    requests: list[int] = field(default_factory=list)

    def exists(self, path: str) -> bool:
        return path == "/dev/sev-guest"

    def ioctl(self, path: str, request: int, argument: ctypes.Structure) -> None:
        if path != "/dev/sev-guest":
            raise error(errno.ENOENT)
        self.requests.append(request)
        if self.trouble:
            raise error(self.trouble.pop(0))
        given = argument_bytes(argument)
        assert len(given) == 32, "struct snp_guest_request_ioctl"
        version, req, resp = struct.unpack_from("<B7xQQ", given)
        if not version:
            raise error(errno.EINVAL)
        if request not in (0xC0205301, 0xC0205302):
            raise error(errno.ENOTTY)
        if not req or not resp:
            raise error(errno.EINVAL)
        if request == 0xC0205301:
            self._derived_key(req, resp)
        else:
            self._ext_report(req, resp, given)

    def _ext_report(self, req: int, resp: int, given: Any) -> None:
        raw = bytes(memory(req, 112))  # struct snp_ext_report_req with its padding
        user_data, level, reserved = raw[:64], *struct.unpack_from("<I28s", raw, 64)
        address, size = struct.unpack_from("<QI", raw, 96)
        if size and address:
            if size > 0x4000 or size % 4096:
                raise error(errno.EINVAL)
            if len(self.certs) > size:
                # The host says how much it has; the request has been answered without them.
                struct.pack_into("<I", memory(req + 104, 4), 0, -(-len(self.certs) // 4096) * 4096)
                struct.pack_into("<II", given, 24, 0xFF, 1)  # SNP_GUEST_VMM_ERR_INVALID_LEN
                raise error(errno.EIO)
            ctypes.memmove(address, self.certs.ljust(size, b"\0"), size)
        response = memory(resp, 4000)
        if self.status or any(reserved) or level < self.level:
            struct.pack_into("<II", response, 0, self.status or 0x16, 0)
            return
        report = self.make(user_data)
        struct.pack_into("<II24x", response, 0, 0, len(report))
        response[32 : 32 + len(report)] = report

    def _derived_key(self, req: int, resp: int) -> None:
        """MSG_KEY_REQ: the key depends on the chip and on exactly the selected fields."""
        root, reserved, fields, level, svn, tcb = struct.unpack("<IIQIIQ", bytes(memory(req, 32)))
        response = memory(resp, 64)
        if self.status or reserved or root & ~7 or fields & ~0x3F or level < self.level:
            struct.pack_into("<I", response, 0, self.status or 0x16)
            return
        mixed = [self.chip, bytes([root]), struct.pack("<I", level)]
        mixed += [struct.pack("<Q", self.policy)] if fields & 1 else []
        mixed += [self.measurement] if fields & 8 else []
        mixed += [struct.pack("<I", svn)] if fields & 16 else []
        mixed += [struct.pack("<Q", tcb)] if fields & 32 else []
        struct.pack_into("<I28x", response, 0, 0)
        response[32:64] = hashlib.sha256(b"|".join(mixed)).digest()


@dataclass(kw_only=True)
class TdxGuestKernel(NoKernel):
    """/dev/tdx_guest and the registers in sysfs: drivers/virt/coco/tdx-guest/tdx-guest.c."""

    trouble: list[int] = field(default_factory=list)
    with_registers: bool = True
    frozen: bool = False
    rtmr3: bytes = bytes(48)

    def exists(self, path: str) -> bool:
        return path == "/dev/tdx_guest" or (self.with_registers and path == RTMR3)

    def ioctl(self, path: str, request: int, argument: ctypes.Structure) -> None:
        if path != "/dev/tdx_guest":
            raise error(errno.ENOENT)
        if request != 0xC4405401:
            raise error(errno.ENOTTY)
        if self.trouble:
            raise error(self.trouble.pop(0))
        given = argument_bytes(argument)
        assert len(given) == 1088, "struct tdx_report_req"
        given[64:] = td_report(bytes(given[:64]))

    def read(self, path: str, limit: int) -> bytes:
        if not (self.with_registers and path == RTMR3):
            raise error(errno.ENOENT)
        return self.rtmr3

    def write(self, path: str, data: bytes) -> None:
        if not (self.with_registers and path == RTMR3):
            raise error(errno.ENOENT)
        if len(data) != 48:  # tm_digest_write: exactly one digest
            raise error(errno.EINVAL)
        if not self.frozen:
            self.rtmr3 = hashlib.sha384(self.rtmr3 + data).digest()


RTMR3: Final = "/sys/devices/virtual/misc/tdx_guest/measurements/rtmr3:sha384"


def td_report(report_data: bytes) -> bytes:
    """Something like TDREPORT_STRUCT: type 0x81, the report data at its place."""
    return (b"\x81" + bytes(127) + report_data).ljust(1024, b"\0")


@dataclass(kw_only=True)
class NsmKernel(NoKernel):
    """/dev/nsm: drivers/misc/nsm.c, and the Nitro Secure Module behind it (nsm-api 0.4)."""

    make: Callable[[dict[str, Any], dict[int, bytes]], bytes] = lambda fields, pcrs: b"document"
    trouble: list[int] = field(default_factory=list)
    answer: bytes | None = None  # instead of what it would answer
    pcrs: dict[int, bytes] = field(default_factory=lambda: {i: bytes(48) for i in range(32)})
    locked: set[int] = field(default_factory=lambda: set(range(16)))

    def exists(self, path: str) -> bool:
        return path == "/dev/nsm"

    def ioctl(self, path: str, request: int, argument: ctypes.Structure) -> None:
        if path != "/dev/nsm":
            raise error(errno.ENOENT)
        if request != 0xC0200A00:
            raise error(errno.EINVAL)  # nsm_dev_ioctl
        if self.trouble:
            raise error(self.trouble.pop(0))
        given = argument_bytes(argument)
        address, size, out, room = struct.unpack("<QQQQ", bytes(given))
        if size > 0x1000:
            raise error(errno.EMSGSIZE)
        asked = cbor2.loads(bytes(memory(address, size)))
        response = self.answer if self.answer is not None else cbor2.dumps(self._serve(asked))
        sent = response[: min(room, 0x3000)]  # "Truncate any message that does not fit."
        ctypes.memmove(out, sent, len(sent))
        struct.pack_into("<Q", given, 24, len(sent))

    def _serve(self, asked: Any) -> Any:
        if asked == "DescribeNSM":
            return {"DescribeNSM": {"module_id": "i-0-enc0", "max_pcrs": 32, "digest": "SHA384"}}
        if not isinstance(asked, dict) or len(asked) != 1:
            return {"Error": "InvalidOperation"}
        ((name, fields),) = asked.items()
        if name == "Attestation":
            if set(fields) != {"user_data", "nonce", "public_key"}:
                return {"Error": "InvalidArgument"}
            pcrs = {index: self.pcrs[index] for index in sorted(self.locked)}
            return {name: {"document": self.make(fields, pcrs)}}
        index = fields.get("index")
        if not isinstance(index, int) or not 0 <= index < 32:
            return {"Error": "InvalidIndex"}
        if name == "DescribePCR":
            return {name: {"lock": index in self.locked, "data": self.pcrs[index]}}
        if index in self.locked:
            return {"Error": "ReadOnlyIndex"}
        if name == "ExtendPCR":
            self.pcrs[index] = hashlib.sha384(self.pcrs[index] + fields["data"]).digest()
            return {name: {"data": self.pcrs[index]}}
        self.locked.add(index)
        return name  # LockPCR has no fields


@dataclass(kw_only=True)
class GramineKernel(NoKernel):
    """/dev/attestation: libos/src/fs/dev/attestation.c of Gramine."""

    make: Maker = lambda report_data: b"quote over " + report_data
    kind: bytes = b"dcap"
    key: bytes | None = bytes(range(16))
    target_info: bytes = bytes(512)
    report_data: bytes = bytes(64)
    trouble: list[int] = field(default_factory=list)

    def exists(self, path: str) -> bool:
        return path == "/dev/attestation"

    def write(self, path: str, data: bytes) -> None:
        # update_buffer: silently filled up with zeros, or cut off
        name = path.removeprefix("/dev/attestation/")
        if name == "user_report_data":
            self.report_data = data[:64].ljust(64, b"\0")
        elif name == "target_info":
            self.target_info = data[:512].ljust(512, b"\0")
        else:
            raise error(errno.EACCES)

    def read(self, path: str, limit: int) -> bytes:
        name = path.removeprefix("/dev/attestation/")
        if self.trouble:
            raise error(self.trouble.pop(0))
        files = {
            "attestation_type": lambda: self.kind,
            "my_target_info": lambda: b"T" * 512,
            "report": lambda: (self.target_info[:1] * 320 + self.report_data).ljust(432, b"\0"),
        }
        if self.kind != b"none":
            files["quote"] = lambda: self.make(self.report_data)
        if self.key is not None:
            files["keys/_sgx_mrenclave"] = lambda: self.key or b""
        if name not in files:
            raise error(errno.ENOENT)
        found = files[name]()
        if len(found) > limit:
            raise error(errno.EFBIG)
        return found


@dataclass
class Machine(NoKernel):
    """Several of these on one machine; each path belongs to the first that has it."""

    parts: tuple[Any, ...]

    def _of(self, path: str) -> Any:
        for part in self.parts:
            if part.exists(path) or (isinstance(part, TsmKernel) and path.startswith(REPORTS)):
                return part
        return NoKernel()

    def exists(self, path: str) -> bool:
        return any(part.exists(path) for part in self.parts)

    def read(self, path: str, limit: int) -> bytes:
        found: bytes = self._of(path).read(path, limit)
        return found

    def write(self, path: str, data: bytes) -> None:
        self._of(path).write(path, data)

    def mkdir(self, path: str) -> None:
        self._of(path).mkdir(path)

    def rmdir(self, path: str) -> None:
        self._of(path).rmdir(path)

    def ioctl(self, path: str, request: int, argument: ctypes.Structure) -> None:
        self._of(path).ioctl(path, request, argument)
