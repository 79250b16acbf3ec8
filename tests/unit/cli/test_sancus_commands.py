"""`broch sancus`: keys as Sancus' own tools compute them, and where they may come from."""

import io
import json
import stat
from pathlib import Path

import pytest
from tests.unit.tee.sancus.test_module_file import DRIVER, File

from broch.cli import entry
from broch.tee.sancus.keys import identity, module_key

NODE = "deadbeefcafebabec0defeeddefec8ed"
VENDOR = "0b7bf3ae40880a8be430d0da34fb76f0"  # published for this node and vendor 0x1234


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("node.key").write_text(NODE + "\n")
    Path("vendor.key").write_text(VENDOR)
    Path("led.elf").write_bytes(File().build())


def test_a_vendor_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.run(["sancus", "keys", "--node-key", "node.key", "--vendor", "0x1234"]) == 0
    said = capsys.readouterr()
    assert said.out == VENDOR + "\n"
    assert said.err == "vendor_id: 4660\n"


def typed(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have ``data`` on standard input."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))


def test_from_standard_input_to_a_private_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    typed(NODE.encode(), monkeypatch)
    run = ["sancus", "keys", "--node-key", "-", "--vendor", "4660", "-o", "out.key", "--json"]
    assert entry.run(run) == 0
    said = capsys.readouterr()
    assert json.loads(said.out) == {"vendor_id": 4660, "written": "out.key"}
    assert VENDOR not in said.out + said.err
    assert Path("out.key").read_text() == VENDOR + "\n"
    assert stat.S_IMODE(Path("out.key").stat().st_mode) == 0o600
    assert entry.run([*run[:3], "node.key", *run[4:]]) == 2
    assert "cannot write: File exists" in capsys.readouterr().err


def test_a_module_key(capsys: pytest.CaptureFixture[str]) -> None:
    file = File()
    run = ["sancus", "module-key", "led.elf", "--vendor-key", "vendor.key", "--name"]
    assert entry.run([*run, "pins", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    vendor = bytes.fromhex(VENDOR)
    assert said["key"] == module_key(vendor, DRIVER, file.driver).hex()
    assert said["identity"] == identity(DRIVER, file.driver).hex()
    assert (said["module"], said["secret"]) == ("pins", "0x0020-0x0028")
    assert entry.run([*run, "led"]) == 0
    expected = module_key(vendor, file.text, file.module).hex()
    assert capsys.readouterr().out == expected + "\n"


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["module-key", "led.elf", "--vendor-key", "vendor.key"], 2, "there are 2 modules in it"),
        (
            ["module-key", "led.elf", "--vendor-key", "vendor.key", "--name", "x"],
            2,
            "there is no module 'x'",
        ),
        (["module-key", "no.elf", "--vendor-key", "vendor.key"], 2, "no.elf: cannot be read"),
        (
            ["module-key", "node.key", "--vendor-key", "vendor.key"],
            3,
            "node.key: not a sound ELF file",
        ),
        (["module-key", "led.elf", "--vendor-key", VENDOR], 2, "the vendor key itself was given"),
        (["module-key", "led.elf", "--vendor-key", "led.elf"], 2, "no vendor key in hexadecimal"),
        (["keys", "--node-key", "node.key", "--vendor", "x"], 2, "vendor id 'x' is no number"),
        (["keys", "--node-key", "node.key", "--vendor", "65536"], 2, "does not fit 16 bits"),
        (["keys", "--node-key", "short.key", "--vendor", "1"], 2, "has 4 bytes, expected 8, 10"),
        (["keys", "--node-key", "long.key", "--vendor", "1"], 2, "no node key in hexadecimal"),
        (["keys", "--vendor", "1"], 2, "--node-key"),
    ],
)
def test_what_is_wrong(
    arguments: list[str], code: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("short.key").write_text("00112233")
    Path("long.key").write_text(NODE + " " * 200 + "or something else")
    assert entry.run(["sancus", *arguments]) == code
    assert text in capsys.readouterr().err


def test_binary_on_standard_input_is_no_key(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    typed(b"\xff\xfe\xc3", monkeypatch)
    assert entry.run(["sancus", "keys", "--node-key", "-", "--vendor", "1"]) == 2
    assert "no node key in hexadecimal" in capsys.readouterr().err
