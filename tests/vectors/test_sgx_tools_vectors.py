"""The SGX tools against upstream's own: same input, same bytes; one test a recorded row."""

import hashlib
import json
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from broch.cli import entry
from broch.errors import UsageError
from broch.tee.sgx import compose, info, sgxs, sigstruct
from broch.tee.sgx.append import Align, Part, append, parse_mode
from broch.tee.sgx.convert import Options, convert
from broch.tee.sgx.sigstruct import Sigstruct

# What upstream measures otherwise than it should: rights of the next file, data that moves up.
DEFECTS: Final = {"mix_perm", "mix_perm_big", "align"}
ADDED: Final = (
    *("finalize", "r", "rm", "rwm", "two_same", "mix_meas", "mix_perm", "mix_perm_big"),
    *("align", "align0", "noflags", "badflag", "alignbig"),
)
SIGNED: Final = (
    *("default", "xfrm7_0", "xfrm7", "xfrm3_e4", "debug", "ids", "misc", "miscbad", "attrs"),
    *("bits32", "sw", "attrbad", "attr_debug"),
)


@pytest.fixture(scope="module")
def folder(vectors: Path) -> Path:
    return vectors / "sgx"


def rows(path: Path) -> dict[str, tuple[list[str], list[str]]]:
    """Name -> (arguments, what came out) of a file of lines ``name [arguments] outcome``."""
    found = {}
    for line in path.read_text().splitlines():
        name, rest = line.split(" [", 1)
        arguments, outcome = rest.split("] ", 1)
        found[name] = (shlex.split(arguments), outcome.split())
    return found


# Convert


@pytest.mark.parametrize("row", range(12))
def test_convert(folder: Path, row: int) -> None:
    rows = json.loads((folder / "elf2sgxs_expected.json").read_text())
    assert len(rows) == 12
    expected = rows[row]
    options = Options(
        heap_size=expected["heap"],
        stack_size=expected["stack"],
        threads=expected["threads"],
        ssaframesize=expected["ssaframesize"],
        debug=bool(expected["debug"]),
        library=bool(expected["library"]),
        sized=not expected["unsized"],
    )
    stream = b"".join(convert((folder / expected["elf"]).read_bytes(), options))
    assert len(stream) == expected["size"]
    assert hashlib.sha256(stream).hexdigest() == expected["sha256"]


# Append


def operations(folder: Path, arguments: list[str]) -> Iterator[Part | Align]:
    for word, parameter in zip(arguments[::2], arguments[1::2], strict=True):
        if word == "-align":
            yield Align(int(parameter))
        else:
            flags, measured = parse_mode(word)
            data = (folder / parameter).read_bytes()
            yield Part(flags=flags, measured=measured, data=data)


@pytest.mark.parametrize("name", ADDED)
def test_append(folder: Path, name: str) -> None:
    expected = rows(folder / "sgxs-append_expected.txt")
    assert set(expected) == set(ADDED)
    arguments, outcome = expected[name]
    unsized = (folder / "c.unsized.sgxs").read_bytes()
    if outcome[0] == "FAIL":
        with pytest.raises(UsageError, match="'-q': got 'q', expected 'm', 'r', 'w', or 'x'"):
            list(operations(folder, arguments))
        return
    made = list(operations(folder, arguments))
    stream = append(unsized, made, as_upstream=True)
    assert [hashlib.sha256(stream).hexdigest(), str(len(stream))] == outcome
    assert (append(unsized, made) == stream) is (name not in DEFECTS)


def test_what_upstream_appends_wrongly(folder: Path) -> None:
    unsized = (folder / "c.unsized.sgxs").read_bytes()
    made = list(operations(folder, ["-rm", "a100.bin", "-rw", "c300.bin"]))
    for as_upstream, flags in ((True, 0x203), (False, 0x201)):
        parsed = sgxs.Sgxs.from_bytes(append(unsized, made, as_upstream=as_upstream))
        assert parsed.pages[-2].flags == flags
    made = list(operations(folder, ["-rm", "a100.bin", "-align", "512", "-rm", "c300.bin"]))
    data = (folder / "c300.bin").read_bytes()
    for as_upstream in (True, False):
        parsed = sgxs.Sgxs.from_bytes(append(unsized, made, as_upstream=as_upstream))
        assert (data in parsed.pages[-1].data) is not as_upstream


# Build


def test_build(folder: Path) -> None:
    parts: list[compose.Blob | compose.Thread] = [
        compose.Blob(flags=compose.RIGHTS["rx"], data=(folder / "min.bin").read_bytes()),
        compose.Thread(nssa=1),
    ]
    assert b"".join(compose.build(parts)) == (folder / "min.sgxs").read_bytes()


# Info

Show = Callable[[bytes], Iterator[str]]


@pytest.mark.parametrize("name", ["c", "c.unsized", "app_partial"])
@pytest.mark.parametrize(
    ("mode", "show"),
    [
        ("summary", info.summary),
        ("list-pages", info.list_pages),
        ("list-all", info.list_all),
    ],
)
def test_info(folder: Path, name: str, mode: str, show: Show) -> None:
    shown = "".join(f"{line}\n" for line in show((folder / f"{name}.sgxs").read_bytes()))
    assert shown == (folder / "info" / f"{name}.{mode}.txt").read_text()


@pytest.mark.parametrize("name", ["c", "c.unsized"])
def test_dump_mem(folder: Path, name: str) -> None:
    memory = b"".join(info.dump_memory((folder / f"{name}.sgxs").read_bytes()))
    expected = (folder / "info" / f"{name}.dump-mem.sha256").read_text().split()[0]
    assert hashlib.sha256(memory).hexdigest() == expected


# Sign, by the command itself


@pytest.mark.parametrize("name", SIGNED)
def test_sign(folder: Path, tmp_path: Path, name: str) -> None:
    expected = rows(folder / "sgxs-sign_expected.txt")
    assert set(expected) == set(SIGNED)
    arguments, (digest,) = expected[name]
    out = tmp_path / "c.sig"
    key = str(folder / "sig1" / "sig1.key.pem")
    words = ["sgx", "sign", "--key", key, "--date", "20160109", *arguments]
    assert entry.run([*words, str(folder / "c.sgxs"), str(out)]) == 0
    assert hashlib.sha256(out.read_bytes()).hexdigest() == digest


def test_sign_a_hash(folder: Path, tmp_path: Path) -> None:
    """The SIGSTRUCT of ``sig1``, by the options that its upstream test gives."""
    expected = (folder / "sig1" / "sig1.sigstruct.bin").read_bytes()
    mrenclave = Sigstruct.from_bytes(expected).enclavehash.hex()
    out = tmp_path / "x.sig"
    key = str(folder / "sig1" / "sig1.key.pem")
    words = ["-x", "3/0xe4", "--date", "20160109", "--in-hash", "-k", key, mrenclave, str(out)]
    assert entry.run(["sgx", "sign", *words]) == 0
    assert out.read_bytes() == expected


def test_sign_in_two_steps(folder: Path, tmp_path: Path) -> None:
    """The signature of ``sig1`` is of other bytes: the refusal names the date."""
    stream, tbs = str(folder / "c.sgxs"), tmp_path / "c.tbs"
    assert entry.run(["sgx", "sign", stream, "--tbs", str(tbs), "--date", "20160109"]) == 0
    assert len(tbs.read_bytes()) == 256
    signature = tmp_path / "c.rsa"
    signature.write_bytes((folder / "sig1" / "sig1.sig.bin").read_bytes()[::-1])
    words = ["--signature", str(signature), "--public-key", str(folder / "sig1" / "sig1.key.pem")]
    assert entry.run(["sgx", "sign", stream, str(tmp_path / "x.sig"), *words]) == 4
    assert not (tmp_path / "x.sig").exists()


def test_the_sigstruct_of_upstream_is_valid(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / "sig1" / "sig1.sigstruct.bin"
    assert entry.run(["sgx", "sigstruct", "--json", str(path)]) == 0
    shown = json.loads(capsys.readouterr().out)
    parsed = Sigstruct.from_bytes(path.read_bytes())
    sigstruct.verify(parsed)
    assert shown["valid"] is True
    assert shown["mr_signer"] == parsed.mrsigner().hex()
