"""A device on disk: private or not used, whole or not at all, and its public half as written."""

import os
import stat
from pathlib import Path
from typing import Any, Final

import cbor2
import pytest

from broch.enclave import device_folder
from broch.enclave.device_folder import FileNonVolatile
from broch.errors import DecodeError, UndecidedError, UntrustedError, UsageError
from broch.tee.contract import Endorsements

ENDORSEMENTS: Final = Endorsements(anchors=(b"root", b"other"), items={"crl": b"\0", "a": b""})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    device_folder.make(tmp_path / "devices" / "field.sgx")
    return tmp_path / "devices" / "field.sgx"


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def leftovers(folder: Path) -> list[str]:
    return [name for _, _, names in os.walk(folder) for name in names if name.startswith(".new-")]


# Making one


def test_a_device_is_private(folder: Path) -> None:
    assert [mode_of(folder), mode_of(folder / "nv")] == [0o700, 0o700]
    assert mode_of(folder / "secret") == 0o600


def test_a_secret_is_random_and_kept(folder: Path, tmp_path: Path) -> None:
    secret = device_folder.read_secret(folder)
    assert len(secret) == device_folder.SECRET_SIZE
    device_folder.make(folder)
    assert device_folder.read_secret(folder) == secret
    device_folder.make(tmp_path / "another")
    assert device_folder.read_secret(tmp_path / "another") != secret


def test_making_closes_a_folder_that_was_open(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o755)
    device_folder.make(tmp_path / "open")
    assert mode_of(tmp_path / "open") == 0o700


def test_a_device_that_ran_gets_no_second_secret(folder: Path) -> None:
    device_folder.save_endorsements(folder, ENDORSEMENTS)
    (folder / "secret").unlink()
    with pytest.raises(UndecidedError, match="the device's secret is gone") as caught:
        device_folder.make(folder)
    assert caught.value.place == str(folder / "secret")
    assert caught.value.hint is not None
    assert str(folder) in caught.value.hint
    assert not (folder / "secret").exists()


def test_a_device_whose_making_was_cut_off_is_made(folder: Path) -> None:
    (folder / "secret").unlink()
    device_folder.make(folder)
    assert len(device_folder.read_secret(folder)) == device_folder.SECRET_SIZE


def test_a_device_cannot_be_made_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot make the folder"):
        device_folder.make(tmp_path / "file" / "device")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_the_folder_of_another_user_is_left_alone(folder: Path) -> None:
    folder.chmod(0o755)
    os.chown(folder, 12345, -1)
    with pytest.raises(UntrustedError, match="belongs to user 12345"):
        device_folder.make(folder)
    assert mode_of(folder) == 0o755


# Using one


@pytest.mark.parametrize("name", ["", "nv", "secret"])
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o601, 0o660, 0o777])
def test_what_others_may_use_is_not_used(folder: Path, name: str, mode: int) -> None:
    path = folder / name
    path.chmod(mode | (0o100 if path.is_dir() else 0))
    with pytest.raises(UntrustedError, match=r"others may use it \(mode 0[67]") as caught:
        device_folder.read_secret(folder)
    assert caught.value.place == str(path)
    assert caught.value.hint is not None
    assert caught.value.hint.startswith(f"chmod go= {path}, and make the device anew")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("name", ["", "nv", "secret"])
def test_what_another_user_owns_is_not_used(folder: Path, name: str) -> None:
    os.chown(folder / name, 12345, -1)
    with pytest.raises(UntrustedError, match=r"belongs to user 12345, not to you \(user 0\)"):
        device_folder.read_secret(folder)


@pytest.mark.parametrize("name", ["secret", ""])
def test_a_device_that_is_not_there(folder: Path, name: str) -> None:
    place = folder / "secret" if name else folder.parent / "nowhere"
    (folder / "secret").unlink()
    with pytest.raises(UndecidedError, match="No such file or directory") as caught:
        device_folder.read_secret(folder if name else place)
    assert caught.value.place == str(place)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_secret_of_another_size_is_none(folder: Path, size: int) -> None:
    (folder / "secret").write_bytes(bytes(size))
    with pytest.raises(DecodeError, match="expected 32 bytes"):
        device_folder.read_secret(folder)


# Its memory


def test_memory_keeps_what_was_put(folder: Path) -> None:
    memory = FileNonVolatile(folder)
    assert memory.get("counter.1") is None
    memory.put("counter.1", b"1")
    memory.put("counter.1", b"2")
    memory.put("empty", b"")
    assert FileNonVolatile(folder).get("counter.1") == b"2"
    assert memory.get("empty") == b""
    assert mode_of(folder / "nv" / "counter.1") == 0o600
    assert leftovers(folder) == []


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../secret", "a/b", "/etc/passwd", ".new-x", "a b", "ü", "a\n", "a" * 129],
)
def test_names_in_memory_stay_in_memory(folder: Path, name: str) -> None:
    memory = FileNonVolatile(folder)
    use: list[Any] = [lambda: memory.get(name), lambda: memory.put(name, b"")]
    for call in use:
        with pytest.raises(DecodeError, match="not a name in a device's memory"):
            call()
    assert os.listdir(folder / "nv") == []


def test_memory_that_others_may_use_is_not_believed(folder: Path) -> None:
    memory = FileNonVolatile(folder)
    memory.put("counter", b"1")
    (folder / "nv" / "counter").chmod(0o666)
    with pytest.raises(UntrustedError, match="others may use it"):
        memory.get("counter")


def test_memory_changes_whole_or_not_at_all(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = FileNonVolatile(folder)
    memory.put("counter", b"1")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        memory.put("counter", b"2")
    assert memory.get("counter") == b"1"
    assert leftovers(folder) == []


def test_memory_is_on_disk_when_it_was_put(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file before its name, its name before the return: or a power cut would turn it back."""
    order: list[str] = []
    fsync, replace = os.fsync, os.replace

    def recorded_fsync(descriptor: int) -> None:
        order.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def recorded_replace(source: str, target: Path) -> None:
        order.append("name")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "replace", recorded_replace)
    FileNonVolatile(folder).put("counter", b"1")
    assert order == ["file", "name", "folder"]


# Its public half


def test_endorsements_come_back_as_they_went(folder: Path) -> None:
    device_folder.save_endorsements(folder, ENDORSEMENTS)
    assert device_folder.read_endorsements(folder) == ENDORSEMENTS


def test_endorsements_are_written_when_they_change(folder: Path) -> None:
    path = folder / "endorsements"
    device_folder.save_endorsements(folder, ENDORSEMENTS)
    written = path.stat().st_ino
    device_folder.save_endorsements(folder, ENDORSEMENTS)
    assert path.stat().st_ino == written
    other = Endorsements(anchors=(b"root",), items={})
    device_folder.save_endorsements(folder, other)
    assert device_folder.read_endorsements(folder) == other


def test_endorsements_of_a_device_that_never_ran(folder: Path) -> None:
    with pytest.raises(UndecidedError, match="No such file"):
        device_folder.read_endorsements(folder)


def test_endorsements_that_others_may_change_are_not_used(folder: Path) -> None:
    device_folder.save_endorsements(folder, ENDORSEMENTS)
    (folder / "endorsements").chmod(0o666)
    with pytest.raises(UntrustedError, match="others may use it"):
        device_folder.read_endorsements(folder)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xff", id="not CBOR"),
        pytest.param(cbor2.dumps([]), id="empty list"),
        pytest.param(cbor2.dumps([[b"root"], {}, 1]), id="three items"),
        pytest.param(cbor2.dumps([b"root", {}]), id="anchors as bytes"),
        pytest.param(cbor2.dumps(["root", {}]), id="anchors as text"),
        pytest.param(cbor2.dumps([[5], {}]), id="anchor as number"),
        pytest.param(cbor2.dumps([["root"], {}]), id="anchor as text"),
        pytest.param(cbor2.dumps([[10**9], {}]), id="anchor as large number"),
        pytest.param(cbor2.dumps([[], {"a": 10**9}]), id="item as large number"),
        pytest.param(cbor2.dumps([[], {1: b""}]), id="name as number"),
        pytest.param(cbor2.dumps([[], []]), id="items as list"),
        pytest.param(cbor2.dumps([[], {}]) + b"\0", id="bytes after it"),
        pytest.param(b"\x9f\x80\xa0\xff", id="list of no length"),
        pytest.param(b"\x82\x80\xb8\x00", id="long form"),
        pytest.param(b"\x81" * 5000, id="nested"),
        pytest.param(cbor2.dumps([[], {"b": b"", "a": b""}]), id="order of names"),
    ],
)
def test_what_no_device_wrote_is_refused(folder: Path, data: bytes) -> None:
    device_folder.write_private(folder / "endorsements", data)
    with pytest.raises(DecodeError) as caught:
        device_folder.read_endorsements(folder)
    assert caught.value.place == str(folder / "endorsements")
