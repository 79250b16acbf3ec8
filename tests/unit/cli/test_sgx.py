"""`broch sgx`: files in, files out, what is said, and how it fails."""

import io
import json
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from tests.unit.tee.sgx.elf_maker import Maker

import broch.sgx
from broch.app.home import Home
from broch.cli import binary, entry
from broch.errors import UntrustedError
from broch.tee.sgx import TEE, sgxs, sigstruct
from broch.tee.sgx.sgxs import ALL_MEASURED, Create, Page, Sgxs
from broch.tee.sgx.sigstruct import Sigstruct

Run = Callable[..., tuple[int, str, str]]
CODE = Page(0, 0x205, ALL_MEASURED, bytes(range(256)) * 16)
SIZED = Sgxs(create=Create(ssaframesize=1, size=0x2000), pages=(CODE,)).to_bytes()
OPEN = Sgxs(create=Create(ssaframesize=1, size=0x100, sized=False), pages=(CODE,)).to_bytes()


@pytest.fixture(scope="module")
def key() -> RSAPrivateKey:
    return TEE.new_signing_key()


@pytest.fixture
def run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
    key: RSAPrivateKey,
) -> Run:
    """Run ``broch sgx ...`` in a folder with a few files; (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BROCH_HOME", str(tmp_path / "home"))
    (tmp_path / "a.elf").write_bytes(Maker().build())
    (tmp_path / "a.sgxs").write_bytes(SIZED)
    (tmp_path / "open.sgxs").write_bytes(OPEN)
    (tmp_path / "data").write_bytes(b"configuration")
    (tmp_path / "b.sgxs").write_bytes(Maker().build())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "key.pem").write_bytes(pem)
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "pub.pem").write_bytes(public)

    def invoke(*words: str) -> tuple[int, str, str]:
        code = entry.run(["sgx", *words])
        shown = capfdbinary.readouterr()
        return code, shown.out.decode("latin-1"), shown.err.decode()

    return invoke


def answer(result: tuple[int, str, str]) -> dict[str, Any]:
    code, out, err = result
    assert (code, err) == (0, ""), err
    shown: dict[str, Any] = json.loads(out)
    return shown


def stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


# convert


def test_convert(run: Run, tmp_path: Path) -> None:
    shown = answer(run("convert", "a.elf", "-H", "0x3000", "-S", "8192", "--json", "-t", "2"))
    stream = (tmp_path / "a.sgxs").read_bytes()
    assert shown["output"] == "a.sgxs"
    assert shown["mrenclave"] == sgxs.measure(stream).hex()
    assert (shown["bytes"], shown["sized"]) == (len(stream), True)
    assert len(Sgxs.from_bytes(stream).pages) == 3 + 3 + 2 * 5


def test_convert_unsized_to_a_named_file(run: Run, tmp_path: Path) -> None:
    words = ("-H", "0", "-S", "0", "--unsized", "-o", "b", "-d", "--library", "--ssaframesize", "2")
    code, out, err = run("convert", "a.elf", *words)
    assert (code, out, err) == (0, "b: unsized\n", "")
    assert not Sgxs.from_bytes((tmp_path / "b").read_bytes()).create.sized


def test_convert_to_stdout(run: Run) -> None:
    code, out, _ = run("convert", "a.elf", "-H", "0", "-S", "0", "-o", "-")
    assert code == 0
    assert Sgxs.from_bytes(out.encode("latin-1")).create.sized


@pytest.mark.parametrize(
    ("words", "code", "error", "hint"),
    [
        (("a.elf", "-H", "1", "-S", "0"), 2, "heap size 0x1", "0x1000"),
        (("a.elf", "-H", "0", "-S", "0", "-t", "0"), 2, "threads: 0", ""),
        (("a.elf", "-H", "z", "-S", "0"), 2, "--heap-size: 'z' is not a number", ""),
        (("a.elf", "-S", "0"), 2, "--heap-size", "--help"),
        (("none", "-H", "0", "-S", "0"), 2, "none: cannot be read", ""),
        (("data", "-H", "0", "-S", "0"), 3, "data: offset 0x0: begins with b'conf'", ""),
        (("a.elf", "-H", "0", "-S", "0", "-o", "no/b"), 2, "no/b: cannot be written", ""),
        (("a.elf", "-H", "0", "-S", "0", "--heap"), 2, "no such option", "--heap-size"),
        (("a.elf", "-H", "0", "-S", "0", "-o", "-", "--json"), 2, "cannot both go", "-o FILE"),
        (("a.sgxs", "-H", "0", "-S", "0"), 3, "a.sgxs: offset 0x0: begins with b'ECRE'", ""),
        (("b.sgxs", "-H", "0", "-S", "0"), 2, "would replace the input", "name another"),
    ],
)
def test_convert_fails(run: Run, words: tuple[str, ...], code: int, error: str, hint: str) -> None:
    found, _, err = run("convert", *words)
    assert found == code
    assert error in err.splitlines()[0]
    assert hint in err.splitlines()[-1]


def test_a_broken_rule_names_the_file_and_what_to_do(run: Run, tmp_path: Path) -> None:
    (tmp_path / "c.elf").write_bytes(Maker(note=None).build())
    code, out, err = run("convert", "c.elf", "-H", "0", "-S", "0")
    assert (code, out) == (3, "")
    first, second = err.splitlines()
    assert first.startswith("error: c.elf: there is no section .note.x86_64-fortanix")
    assert second.startswith("hint: build for the Rust target")
    assert not (tmp_path / "c.sgxs").exists()


def test_output_to_a_pipe_and_through_a_link(run: Run, tmp_path: Path) -> None:
    """What is not a file is written to, not replaced; a link goes on being one."""
    pipe, real, link = tmp_path / "pipe", tmp_path / "real", tmp_path / "link"
    os.mkfifo(pipe)
    real.write_bytes(b"before")
    link.symlink_to(real)
    words = ("convert", "a.elf", "-H", "0", "-S", "0", "-o")
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    assert run(*words, "pipe") == (0, "", "")
    with os.fdopen(reader, "rb") as file:
        stream = file.read()
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert run(*words, "link")[0] == 0
    assert link.is_symlink()
    assert real.read_bytes() == stream
    code, _, err = run(*words, "pipe", "--json")
    assert (code, "cannot both go" in err) == (2, True)


@pytest.mark.parametrize(
    "words",
    [
        ("convert", "large", "-H", "0", "-S", "0"),
        ("append", "open.sgxs", "-rm", "large", "-o", "b"),
        ("build", "rw=large", "-o", "b"),
        ("info", "large"),
        ("sign", "a.sgxs", "-k", "large"),
        ("sign", "a.sgxs", "--signature", "large", "--public-key", "pub.pem"),
        ("sign", "a.sgxs", "--signature", "data", "--public-key", "large"),
        ("sigstruct", "large"),
    ],
    ids=" ".join,
)
def test_oversized_files(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    """Nothing is read that is longer than it could be; else a file could fill the memory."""
    monkeypatch.setattr(binary.read_all, "__defaults__", (1 << 17,))
    (tmp_path / "large").write_bytes(bytes((1 << 17) + 1))
    code, _, err = run(*words)
    assert code == 3
    assert err.startswith("error: large: longer than ")
    assert not (tmp_path / "b").exists()


# append


def test_append_in_place(run: Run, tmp_path: Path) -> None:
    (tmp_path / "open.sgxs").chmod(0o640)
    shown = answer(run("append", "--json", "-i", "open.sgxs", "-rm", "data"))
    parsed = Sgxs.from_bytes((tmp_path / "open.sgxs").read_bytes())
    assert parsed.pages[1].data.startswith(b"configuration")
    assert shown["size"] == parsed.create.size == 0x2000
    assert stat.S_IMODE((tmp_path / "open.sgxs").stat().st_mode) == 0o640


def test_append_to_stdout_and_to_a_file(run: Run, tmp_path: Path) -> None:
    words = ("append", "--", "open.sgxs", "-align", "65536", "-", "data")
    _, out, _ = run(*words)
    code, said, _ = run(*words, "-o", "b.sgxs")
    assert code == 0
    assert said.startswith("b.sgxs: 0x20000 bytes of enclave\nmrenclave  ")
    assert (tmp_path / "b.sgxs").read_bytes() == out.encode("latin-1")


def test_append_as_upstream(run: Run, tmp_path: Path) -> None:
    words = ("append", "open.sgxs", "-rm", "data", "-rwm", "data", "-o", "b.sgxs")
    for more, flags in (((), 0x201), (("--as-upstream",), 0x203)):
        assert run(*words, *more)[0] == 0
        assert Sgxs.from_bytes((tmp_path / "b.sgxs").read_bytes()).pages[1].flags == flags


@pytest.mark.parametrize(
    ("words", "code", "error", "hint"),
    [
        ((), 2, "missing argument", ""),
        (("-i",), 2, "FILE", ""),
        (("a.sgxs",), 3, "a.sgxs: the stream is sized already", "--unsized"),
        (("open.sgxs", "-q", "data"), 2, "got 'q', expected", "-MODE is any of"),
        (("open.sgxs", "-r"), 2, "after '-r' a parameter is missing", ""),
        (("open.sgxs", "-align", "3"), 2, "not a power of two", "4096"),
        (("open.sgxs", "--as-upstraem"), 2, "no such option", "--as-upstream"),
        (("open.sgxs", "data"), 2, "'data' where -MODE FILE", ""),
        (("-i", "open.sgxs", "-o", "x"), 2, "-i writes to FILE itself", ""),
        (("open.sgxs", "--json"), 2, "cannot both go to stdout", "-o FILE"),
    ],
)
def test_append_fails(run: Run, words: tuple[str, ...], code: int, error: str, hint: str) -> None:
    found, _, err = run("append", *words)
    assert found == code
    assert error in err.splitlines()[0]
    assert hint in err.splitlines()[-1]


# build


def test_build(run: Run, tmp_path: Path) -> None:
    shown = answer(
        run("build", "ssaframesize=2", "rx=data", "tcs=nssa:1", "-o", "b.sgxs", "--json")
    )
    parsed = Sgxs.from_bytes((tmp_path / "b.sgxs").read_bytes())
    assert [page.flags for page in parsed.pages] == [0x205, 0x100, 0x203, 0x203]
    assert shown["mrenclave"] == sgxs.measure((tmp_path / "b.sgxs").read_bytes()).hex()


@pytest.mark.parametrize(
    ("parts", "error", "hint"),
    [
        (("rv=data",), "rv=data: not a part", "did you mean"),
        (("data",), "data: not a part", "a part is r=FILE"),
        (("tcs=1",), "tcs=1: not a part", "tcs=nssa:N"),
        (("tcs=nssa:x",), "tcs=nssa:x: 'x' is not a number", ""),
        (("r=data", "ssaframesize=1"), "must come first", ""),
        (("r=none",), "none: cannot be read", ""),
    ],
)
def test_build_fails(run: Run, parts: tuple[str, ...], error: str, hint: str) -> None:
    code, _, err = run("build", *parts)
    assert code == 2
    assert error in err.splitlines()[0]
    assert hint in err.splitlines()[-1]


# info


def test_info(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = "   0- fff Reg  r-x  (data) meas=all\n1000-1fff (unmapped)\n"
    for words in (("a.sgxs",), ("summary", "a.sgxs"), ("info", "a.sgxs")):
        assert run("info", *words) == (0, expected, "")
    stdin(monkeypatch, SIZED)
    assert run("info", "-")[1] == expected
    assert run("info", "list-pages", "a.sgxs")[1].splitlines()[1].endswith("measured=all")
    assert len(run("info", "list-all", "a.sgxs")[1].splitlines()) == 18
    assert run("info", "dump-mem", "a.sgxs")[1].encode("latin-1") == CODE.data


def test_info_as_json(run: Run) -> None:
    assert answer(run("info", "a.sgxs", "--json"))["mrenclave"] == sgxs.measure(SIZED).hex()
    assert len(answer(run("info", "list-pages", "a.sgxs", "--json"))["pages"]) == 1
    assert len(answer(run("info", "list-all", "a.sgxs", "--json"))["records"]) == 18
    assert run("info", "dump-mem", "a.sgxs", "--json")[0] == 2


def test_info_fails(run: Run) -> None:
    code, _, err = run("info", "list-page", "a.sgxs")
    assert (code, err.splitlines()[-1]) == (2, "hint: did you mean 'list-pages'?")
    code, _, err = run("info", "data")
    assert (code, err) == (3, "error: data: offset 0xd: shorter than its first record\n")


def test_no_binary_to_a_terminal(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    for words in (
        ("info", "dump-mem", "a.sgxs"),
        ("append", "open.sgxs"),
        ("build", "r=data"),
        ("sign", "a.sgxs", "-", "-k", "key.pem"),
        ("sign", "a.sgxs", "--tbs", "-"),
    ):
        code, out, err = run(*words)
        assert (code, out) == (2, "")
        assert "standard output is a terminal" in err


# measure


def test_measure(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = sgxs.measure(SIZED).hex()
    assert run("measure", "a.sgxs") == (0, f"{expected}\n", "")
    stdin(monkeypatch, SIZED)
    shown = answer(run("measure", "-", "--json"))
    assert shown == {"format": "sgxs", "mrenclave": expected}


def test_measure_fails(run: Run) -> None:
    code, _, err = run("measure", "open.sgxs")
    assert code == 3
    assert err.splitlines()[1].startswith("hint: give it its size with: broch sgx append")
    assert run("measure", "none")[0] == 2
    assert run("measure", "a.elf")[0] == 3
    code, _, err = run("info", "a.elf")
    assert code == 3
    assert err.splitlines()[1] == "hint: an ELF file becomes a stream by: broch sgx convert"
    assert run("measure", "a.sgxs", "-o", "b")[0] == 2


# sign


def test_sign(run: Run, tmp_path: Path, key: RSAPrivateKey) -> None:
    shown = answer(run("sign", "a.sgxs", "-k", "key.pem", "-v", "3", "-p", "0x10", "--json"))
    signed = Sigstruct.from_bytes((tmp_path / "a.sig").read_bytes())
    sigstruct.verify(signed)
    assert (signed.isvsvn, signed.isvprodid) == (3, 16)
    assert signed.modulus == key.public_key().public_numbers().n
    assert signed.enclavehash == sgxs.measure(SIZED)
    assert 0x20260000 <= signed.date <= 0x99991231
    assert shown["output"] == "a.sig"


def test_sign_from_stdin_to_stdout(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    stdin(monkeypatch, SIZED)
    code, out, _ = run("sign", "-", "-k", "key.pem", "--date", "20260102")
    assert code == 0
    assert Sigstruct.from_bytes(out.encode("latin-1")).date == 0x20260102


def test_dropped_bits_are_said(run: Run) -> None:
    code, _, err = run("sign", "a.sgxs", "-k", "key.pem", "-a", "0x104")
    assert (code, err) == (0, "warning: unknown ATTRIBUTES 0x100 are dropped\n")


def test_sign_in_two_steps(run: Run, tmp_path: Path, key: RSAPrivateKey) -> None:
    options = ("--date", "20260102", "--isvsvn", "7")
    assert run("sign", "a.sgxs", "once.sig", "-k", "key.pem", *options)[0] == 0
    code, out, err = run("sign", "a.sgxs", "--tbs", "a.tbs", *options)
    assert code == 0
    assert "20260102" in out
    assert "openssl dgst -sha256 -sign" in err
    tbs = (tmp_path / "a.tbs").read_bytes()
    (tmp_path / "a.rsa").write_bytes(key.sign(tbs, PKCS1v15(), SHA256()))
    words = ("sign", "a.sgxs", "twice.sig", "--signature", "a.rsa", "--public-key", "pub.pem")
    assert run(*words, *options)[0] == 0
    assert (tmp_path / "twice.sig").read_bytes() == (tmp_path / "once.sig").read_bytes()
    code, _, err = run(*words, "--date", "20260103", "--isvsvn", "7")
    assert code == 4
    assert "--date" in err.splitlines()[1]


def test_a_dummy_signature(run: Run, tmp_path: Path) -> None:
    code, _, err = run("sign", "a.sgxs", "--dummy")
    assert code == 0
    assert "nobody should trust" in err
    first = Sigstruct.from_bytes((tmp_path / "a.sig").read_bytes())
    assert first.debug
    sigstruct.verify(first)
    pem = tmp_path / "home" / "keys" / "sgx-dummy.pem"
    assert stat.S_IMODE(pem.stat().st_mode) == 0o600
    assert [path.name for path in pem.parent.iterdir()] == ["sgx-dummy.pem"]
    assert run("sign", "a.sgxs", "--dummy")[0] == 0
    second = Sigstruct.from_bytes((tmp_path / "a.sig").read_bytes())
    assert first.modulus == second.modulus
    pem.chmod(0o644)
    with pytest.raises(UntrustedError):
        broch.sgx.dummy_key(Home(tmp_path / "home"))


def test_verify_existing(run: Run, tmp_path: Path) -> None:
    words = ("sign", "a.sgxs", "-k", "key.pem", "--verify-existing", "pub.pem")
    assert run(*words)[0] == 2, "there is nothing to be replaced"
    assert run(*words[:4])[0] == 0
    assert run(*words, "-v", "2")[0] == 0
    before = (tmp_path / "a.sig").read_bytes()
    (tmp_path / "a.sgxs").write_bytes(SIZED.replace(b"\xff", b"\0"))
    code, _, err = run(*words)
    assert code == 4
    assert "signed for another enclave" in err
    assert (tmp_path / "a.sig").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "code", "error", "hint"),
    [
        (("a.sgxs",), 2, "give one of --key PEM", "openssl genrsa -3"),
        (("a.sgxs", "--dummy", "-k", "key.pem"), 2, "give one of", "openssl"),
        (("a.sgxs", "--signature", "data"), 2, "belong together", ""),
        (("a.sgxs", "a.sig", "--tbs", "a.tbs"), 2, "a.sig: --tbs writes no SIGSTRUCT", "OUTPUT"),
        (("a.sgxs", "-k", "data"), 3, "data: not a private key", "openssl genrsa -3"),
        (("a.sgxs", "-k", "key.pem", "-x", "y"), 2, "--xfrm: 'y' is not a number", ""),
        (("a.sgxs", "-k", "key.pem", "-p", "65536"), 2, "isvprodid 0x10000", ""),
        (("a.sgxs", "-k", "key.pem", "--date", "1"), 2, "is not a date", "YYYYMMDD"),
        (("open.sgxs", "-k", "key.pem"), 3, "open.sgxs: ", "broch sgx append"),
        (("none", "-k", "key.pem"), 2, "none: cannot be read", ""),
        (("12", "--in-hash", "-k", "key.pem"), 2, "64 hexadecimal digits", ""),
        (("ab" * 32, "--in-hash", "-k", "key.pem"), 2, "OUTPUT must be given", ""),
        (("a.sgxs", "-k", "key.pem", "--isvsn", "1"), 2, "no such option", "--isvsvn"),
    ],
)
def test_sign_fails(run: Run, words: tuple[str, ...], code: int, error: str, hint: str) -> None:
    found, _, err = run("sign", *words)
    assert found == code
    assert error in err.splitlines()[0]
    assert hint in err.splitlines()[-1]
    assert not Path("a.sig").exists()


# sigstruct


def test_sigstruct(run: Run, tmp_path: Path) -> None:
    assert run("sign", "a.sgxs", "-k", "key.pem")[0] == 0
    assert answer(run("sigstruct", "a.sig", "--json"))["valid"] is True
    assert "signature             holds" in run("sigstruct", "a.sig")[1]
    assert "[checks]" in run("sigstruct", "a.sig", "--format", "toml")[1]
    assert run("sigstruct", "a.sig", "--format", "xml")[0] == 2
    assert run("sigstruct", "data")[0] == 3
    bent = bytearray((tmp_path / "a.sig").read_bytes())
    bent[1026] ^= 1
    (tmp_path / "a.sig").write_bytes(bent)
    code, out, err = run("sigstruct", "a.sig", "--json")
    assert (code, err) == (4, "error: a.sig: does not hold: signature\n")
    assert json.loads(out)["checks"] == {"signature": False, "q1": True, "q2": True}
