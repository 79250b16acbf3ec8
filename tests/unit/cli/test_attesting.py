"""`broch inspect`, `broch verify`: files in, a result out, exit codes, and how they fail."""

import base64
import io
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tests.unit.attest import support
from tests.unit.attest.support import Case

from broch.attest import ear
from broch.attest.endorsements import Store
from broch.cli import entry
from broch.cli.endorsing import source
from broch.cli.inspect import WARNING

Run = Callable[..., tuple[int, str, str]]
KEY: Final = ec.derive_private_key(41, ec.SECP256R1())
PSA_POLICY: Final = f'name = "mine"\n[psa]\nfirmware = ["{(b"m" * 32).hex()}"]\n'
SGX_POLICY: Final = f'emulated = true\n[sgx]\nmeasurements = ["{(b"E" * 32).hex()}"]\n'


@pytest.fixture(scope="module")
def psa() -> Case:
    return support.psa()


@pytest.fixture(scope="module")
def sgx() -> Case:
    return support.sgx()


def fill(folder: Path, case: Case) -> Path:
    """Endorsements as a person keeps them."""
    folder.mkdir()
    for name, value in case.endorsements.items.items():
        (folder / f"{name}.bin").write_bytes(value)
    if case.endorsements.anchors:
        (folder / "anchors").mkdir()
        for index, der in enumerate(case.endorsements.anchors):
            (folder / "anchors" / f"{index}.der").write_bytes(der)
    return folder


@pytest.fixture
def run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    psa: Case,
    sgx: Case,
) -> Run:
    """Run ``broch ...`` in a folder with evidence and policies; (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BROCH_HOME", str(tmp_path / "home"))
    (tmp_path / "psa.bin").write_bytes(psa.evidence)
    (tmp_path / "sgx.bin").write_bytes(sgx.evidence)
    (tmp_path / "psa.toml").write_text(PSA_POLICY)
    (tmp_path / "sgx.toml").write_text(SGX_POLICY)
    (tmp_path / "noise.bin").write_bytes(b"\x01noise\x1b[31m")
    pem = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "key.pem").write_bytes(pem)
    fill(tmp_path / "psa", psa)
    fill(tmp_path / "sgx", sgx)

    def run(*arguments: str, stdin: bytes = b"") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code = entry.run(arguments)
        found = capfd.readouterr()
        return code, found.out, found.err

    return run


def verify(tee: str, case: Case, *more: str, file: str | None = None) -> list[str]:
    """A command line that accepts."""
    return [
        "verify",
        file or f"{tee}.bin",
        *("--policy", f"{tee}.toml", "--endorsements", tee),
        *("--nonce", case.nonce.hex(), "--at", case.at.isoformat()),
        *more,
    ]


@pytest.mark.parametrize("tee", ["psa", "sgx"])
def test_accepted(run: Run, request: pytest.FixtureRequest, tee: str) -> None:
    case: Case = request.getfixturevalue(tee)
    code, out, err = run(*verify(tee, case))
    assert (code, err) == (0, "")
    first = out.splitlines()[0]
    assert first.startswith(f"accepted: evidence of {tee}")
    assert ("(emulated)" in first) is (tee == "sgx")
    assert f"measurement {'45' * 32}" in out or tee == "psa"
    assert "the policy relaxes: emulated" in out or tee == "psa"
    assert "nonce" in out


def test_the_json_is_the_result(run: Run, sgx: Case) -> None:
    code, out, _ = run(*verify("sgx", sgx, "--json"))
    found = json.loads(out)
    assert code == found["exit_code"] == 0
    assert found["status"] == "accepted"
    assert found["emulated"] is True
    assert found["relaxations"] == ["emulated"]
    assert found["policy"] == "sgx.toml"
    assert found["parts"][0]["claims"]["measurement"] == "45" * 32
    assert {item["outcome"] for item in found["parts"][0]["checks"]} == {"passed", "skipped"}


@pytest.mark.parametrize("writing", ["binary", "base64", "hex", "PEM"])
def test_standard_input_in_every_writing(run: Run, psa: Case, writing: str) -> None:
    data = psa.evidence
    text = base64.encodebytes(data)
    written = {
        "binary": data,
        "base64": text,
        "hex": data.hex().encode(),
        "PEM": b"-----BEGIN TOKEN-----\n" + text + b"-----END TOKEN-----\n",
    }[writing]
    assert run(*verify("psa", psa, file="-"), stdin=written)[0] == 0
    code, out, _ = run("inspect", "-", "--json", stdin=written)
    assert (code, json.loads(out)["encoding"]) == (0, writing)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--nonce", "00" * 8], 5, "error: the evidence does not answer this challenge"),
        (["--nonce", "zz"], 2, "error: --nonce is not hexadecimal digits"),
        (["--nonce", "00"], 2, "error: a nonce of 1 bytes, expected 8 to 1024"),
        (["--at", "tomorrow"], 2, "error: --at 'tomorrow' is no time"),
        (["--at", "2026-03-01T12:00:00"], 2, "has no time zone\nhint: write 2026"),
        (["--at", "2060-01-01T00:00:00Z"], 4, "has expired on"),
        (["--endorsements", "nowhere"], 2, "nowhere"),
        (["--endorsements", "psa"], 2, "sgx reads no endorsement named"),
        (["--policy", "nowhere.toml"], 2, "cannot read the policy"),
        (["--policy", "psa.toml"], 5, "evidence of sgx, expected psa"),
        (["--policy", "sgx.bin"], 3, "sgx.bin:1: not UTF-8"),
        (["--ear", "key.pem"], 2, "--ear KEY and --out FILE go together"),
        (["--ear", "sgx.toml", "--out", "o"], 3, "not an unencrypted PEM private key"),
        (["--ear", "key.pem", "--out", "o", "--form", "xml"], 2, "unknown form 'xml'"),
        (["--form", "xml"], 2, "--form says how the signed result is written, and none"),
        (["--form", "jwt"], 2, "--form says how the signed result is written, and none"),
        (["--dialect", "veraison"], 2, "--dialect says how the signed result is written"),
        (["--ear", "key.pem", "--out", "no/o"], 2, "cannot be written"),
        (["--next-tcb-info", "noise.bin"], 3, "next TCB info"),
    ],
)
def test_exit_codes(run: Run, sgx: Case, arguments: list[str], code: int, message: str) -> None:
    found, _, err = run(*verify("sgx", sgx, *arguments))
    assert message in err
    assert found == code
    assert "Traceback" not in err


def test_without_endorsements_it_is_undecided(run: Run, sgx: Case) -> None:
    line = verify("sgx", sgx, "--json")
    place = line.index("--endorsements")
    code, out, err = run(*line[:place], *line[place + 2 :])
    assert code == 6
    assert json.loads(out)["status"] == "undecided"
    assert err.startswith("error: ")
    assert "hint: no endorsements: broch endorsements fetch FILE" in err


def test_the_store_is_read_where_no_folder_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROCH_HOME", str(tmp_path / "home"))
    assert source(None) is None
    store = tmp_path / "home" / "endorsements"
    Store.create(store)
    assert source(None) == store
    assert source(tmp_path) == tmp_path


def test_roots_in_files(run: Run, sgx: Case, tmp_path: Path) -> None:
    (tmp_path / "sgx" / "anchors" / "0.der").rename(tmp_path / "root.der")
    (tmp_path / "sgx" / "anchors").rmdir()
    assert run(*verify("sgx", sgx))[0] in (4, 6)
    assert run(*verify("sgx", sgx, "--anchor", "root.der"))[0] == 0
    assert run(*verify("sgx", sgx, "--anchor", "nowhere.der"))[0] == 2
    assert run(*verify("sgx", sgx, "--anchor", "noise.bin"))[0] == 3


def test_noise(run: Run, psa: Case) -> None:
    for name, stdin in (("noise.bin", b""), ("-", b""), ("psa.toml", b"")):
        code, out, err = run(*verify("psa", psa, file=name), stdin=stdin)
        assert (code, out) == (3, "")
        assert err.startswith(f"error: {name}: ")
        assert run("inspect", name, stdin=stdin)[0] == 3
    assert run("inspect", "nowhere")[0] == 2


def test_a_policy_with_a_typo(run: Run, psa: Case, tmp_path: Path) -> None:
    (tmp_path / "psa.toml").write_text(PSA_POLICY.replace("firmware", "firmwear"))
    code, out, err = run(*verify("psa", psa, "--json"))
    assert code == 3
    assert "error: psa.toml:3: unknown key 'firmwear' in [psa]" in err
    assert "hint: did you mean 'firmware'?" in err
    assert json.loads(out)["error"]["place"] == "psa.toml:3"


@pytest.mark.parametrize("form", ["jwt", "cwt"])
@pytest.mark.parametrize("dialect", ["ear-04", "veraison"])
def test_signed_results(run: Run, psa: Case, tmp_path: Path, form: str, dialect: str) -> None:
    options = ("--ear", "key.pem", "--out", "result", "--form", form, "--dialect", dialect)
    for nonce, code, status in ((psa.nonce, 0, "affirming"), (b"?" * 8, 5, "contraindicated")):
        assert run(*verify("psa", psa, *options, "--nonce", nonce.hex()))[0] == code
        token = (tmp_path / "result").read_bytes()
        now = datetime.now(UTC)
        if form == "jwt":
            found = ear.read_jwt(token.decode(), KEY.public_key(), at=now)
        else:
            found = ear.read_cwt(token, KEY.public_key(), at=now)
        assert found.status == {"psa": status}
        assert found.policies == {"psa": ("mine",)}
        shown = json.loads(run("inspect", "result", "--json")[1])
        assert shown["kind"] == form.upper()
        assert shown["verified"] is False


def test_a_look_ahead(run: Run, sgx: Case, tmp_path: Path) -> None:
    document = json.loads(sgx.endorsements.items["tcb_info"])
    document["tcbLevels"][0]["tcb"]["pcesvn"] += 5
    (tmp_path / "next.json").write_text(json.dumps({"tcbInfo": document}))
    code, out, _ = run(*verify("sgx", sgx, "--next-tcb-info", "next.json"))
    assert code == 0
    assert "the platform goes from UpToDate to" in out
    assert "PCE has SVN" in out


def test_inspect_says_first_that_nothing_was_verified(run: Run) -> None:
    code, out, err = run("inspect", "sgx.bin")
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == WARNING
    assert "nothing was verified" in WARNING
    assert "mrenclave" in out
    found: dict[str, Any] = json.loads(run("inspect", "sgx.bin", "--json")[1])
    assert found["verified"] is False
    assert found["note"] == WARNING
    assert next(iter(found)) == "verified"
    assert found["report"]["mrenclave"] == "45" * 32
    assert found["certificates"][0]["name"] == "Intel SGX PCK Certificate"


def test_text_from_evidence_cannot_act_on_a_terminal(run: Run, tmp_path: Path) -> None:
    case = support.nitro(module_id="i-\x1b[31mred")
    (tmp_path / "nitro.bin").write_bytes(case.evidence)
    assert "\x1b" not in run("inspect", "nitro.bin")[1]
