"""The real kernel underneath: files, a terminal as a device, ioctls that it refuses."""

import ctypes
import errno
import os
import threading
import tty
from pathlib import Path

import pytest

from broch.errors import BrochError, InternalError, UndecidedError
from broch.tee.kernel import Linux, iowr, is_busy, problem
from broch.tee.nitro.native import IOCTL_RAW
from broch.tee.snp.native import GET_DERIVED_KEY, GET_EXT_REPORT
from broch.tee.tdx.native import GET_REPORT0


def test_request_numbers_are_those_of_the_headers() -> None:
    assert GET_REPORT0 == 0xC4405401  # TDX_CMD_GET_REPORT0
    assert GET_DERIVED_KEY == 0xC0205301  # SNP_GET_DERIVED_KEY
    assert GET_EXT_REPORT == 0xC0205302  # SNP_GET_EXT_REPORT
    assert IOCTL_RAW == 0xC0200A00  # NSM_IOCTL_RAW


def test_paths_begin_at_the_root(tmp_path: Path) -> None:
    (tmp_path / "sys").mkdir()
    (tmp_path / "sys" / "name").write_bytes(b"value\n")
    kernel = Linux(tmp_path)
    assert kernel.exists("/sys/name")
    assert not kernel.exists("/sys/other")
    assert kernel.read("/sys/name", 6) == b"value\n"
    kernel.write("/sys/name", b"other")
    assert (tmp_path / "sys" / "name").read_bytes() == b"other\n"  # nothing is cut off or made
    kernel.mkdir("/sys/new")
    with pytest.raises(FileExistsError):
        kernel.mkdir("/sys/new")
    kernel.rmdir("/sys/new")
    assert not kernel.exists("/sys/new")


def test_a_file_that_is_too_long_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "long").write_bytes(bytes(65))
    with pytest.raises(OSError, match="too large") as caught:
        Linux(tmp_path).read("/long", 64)
    assert caught.value.errno == errno.EFBIG


def test_a_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Linux(tmp_path).write("/new", b"x")
    assert not (tmp_path / "new").exists()


class WindowSize(ctypes.Structure):
    """``struct winsize``."""

    _fields_ = (("rows", ctypes.c_uint16), ("columns", ctypes.c_uint16), ("rest", ctypes.c_uint32))


def test_the_kernel_changes_the_structure_of_an_ioctl() -> None:
    host, device = os.openpty()
    try:
        path, kernel = os.ttyname(device), Linux()
        kernel.ioctl(path, 0x5414, WindowSize(rows=24, columns=80))  # TIOCSWINSZ
        found = WindowSize()
        kernel.ioctl(path, 0x5413, found)  # TIOCGWINSZ
        assert (found.rows, found.columns) == (24, 80)
        with pytest.raises(OSError, match="Inappropriate ioctl"):
            kernel.ioctl(path, iowr(ord("S"), 2, WindowSize), WindowSize())
    finally:
        os.close(host)
        os.close(device)


def test_one_message_is_answered_by_one() -> None:
    host, device = os.openpty()
    tty.setraw(device)

    def answer() -> None:
        for _ in range(2):
            os.write(host, os.read(host, 100)[::-1])

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        with Linux().talk(os.ttyname(device)) as exchange:
            assert exchange(b"abc", 100) == b"cba"
            assert exchange(b"12", 100) == b"21"
    finally:
        thread.join()
        os.close(host)
        os.close(device)


@pytest.mark.parametrize(
    ("code", "kind", "text"),
    [
        (errno.ENOENT, UndecidedError, "no Abacus device: /dev/abacus is missing"),
        (errno.ENXIO, UndecidedError, "is missing"),
        (errno.EACCES, UndecidedError, "may not be used by this user"),
        (errno.EPERM, UndecidedError, "may not be used by this user"),
        (errno.EBUSY, UndecidedError, "is busy"),
        (errno.ETIMEDOUT, UndecidedError, "is busy"),
        (errno.EIO, InternalError, "Abacus: /dev/abacus failed: Input/output error"),
    ],
)
def test_what_went_wrong_is_said(code: int, kind: type[BrochError], text: str) -> None:
    raised = OSError(code, os.strerror(code))
    found = problem(raised, "/dev/abacus", "Abacus")
    assert type(found) is kind
    assert text in str(found)
    assert is_busy(raised) is (code in (errno.EBUSY, errno.ETIMEDOUT))
    assert found.hint or kind is InternalError
