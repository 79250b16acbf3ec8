"""`broch evidence get`: what it refuses. What it gets is tested end to end."""

import json
from pathlib import Path

import pytest

from broch.cli.entry import run

NONCE = bytes(range(32)).hex()


@pytest.mark.parametrize(
    ("arguments", "code", "text", "hint"),
    [
        (["--nonce", NONCE], 6, "no hardware that gives evidence is here", "broch doctor"),
        (["--nonce", NONCE, "--tee", "nitro"], 6, "no AWS Nitro Enclaves device", "broch doctor"),
        (["--nonce", NONCE, "--tee", "cca"], 6, "no Arm CCA device", "broch doctor"),
        (["--tee", "nitro"], 2, "neither a nonce nor report data", "nonce"),
        (["--nonce", "xyz"], 2, "--nonce is not hexadecimal digits", None),
        (["--report-data", "123"], 2, "--report-data is not hexadecimal digits", None),
        (["--nonce", NONCE, "--tee", "psa"], 2, "'psa' cannot be asked", "one of sgx, nitro"),
        (["--nonce", NONCE, "--ak", "0x40000001"], 2, "no handle of a persistent key", None),
        (["--nonce", NONCE, "--ak", "key"], 2, "no handle of a persistent key", None),
        (["--nonce", NONCE, "--tee", "snp", "--ak-public", "x"], 2, "--ak-public", None),
        (["--nonce", NONCE, "--root", "absent"], 2, "no such folder", None),
    ],
)
def test_refusals(
    arguments: list[str],
    code: int,
    text: str,
    hint: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("root").mkdir()
    root = [] if "--root" in arguments else ["--root", "root"]
    assert run(["evidence", "get", *arguments, *root, "--out", "quote", "--json"]) == code
    said = capsys.readouterr()
    error = json.loads(said.out)["error"]
    assert text in error["message"]
    assert (hint or "") in (error["hint"] or "")
    assert f"error: {error['place'] or ''}" in said.err
    assert not Path("quote").exists()
