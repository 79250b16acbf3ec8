"""`broch serve verifier` as a process: the same answer as the command's, and how it ends."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.unit.attest import support

POLICY = f'[psa]\nfirmware = ["{(b"m" * 32).hex()}"]\n'
SECONDS = 60


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    case = support.psa()  # has no dates: it holds at any time
    (tmp_path / "policy.toml").write_text(POLICY)
    (tmp_path / "evidence").write_bytes(case.evidence)
    (tmp_path / "keys").mkdir()
    for name, value in case.endorsements.items.items():
        (tmp_path / "keys" / name).write_bytes(value)
    return tmp_path


def command(*arguments: str) -> list[str]:
    options = ("--policy", "policy.toml", "--endorsements", "keys", "--json")
    start = "from broch.cli import main; main()"
    return [sys.executable, "-c", start, *arguments, *options]


@contextmanager
def serving(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server on a free port, and its address."""
    process = subprocess.Popen(
        command("serve", "verifier", "--port", "0"),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "BROCH_HOME": str(folder / "home")},
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate(timeout=SECONDS)[1]
        said = json.loads(line)
        url = said["url"].removesuffix("/verify")
        assert said["url"] == f"{url}/verify"
        assert said["openapi"] == f"{url}/openapi.json"
        yield process, url
    finally:
        process.kill()
        process.communicate(timeout=SECONDS)


def without_time(result: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in result.items() if name not in ("at", "ear")}


def test_the_client_gets_what_the_command_prints(folder: Path) -> None:
    evidence = (folder / "evidence").read_bytes()
    with serving(folder) as (process, url):
        assert url.startswith("http://127.0.0.1:")
        for nonce, status, code in (("6e" * 64, 200, 0), ("00" * 8, 403, 5)):
            reply = httpx.post(f"{url}/verify", content=evidence, params={"nonce": nonce})
            assert reply.status_code == status
            done = subprocess.run(
                [*command("verify", "evidence"), "--nonce", nonce],
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=SECONDS,
                check=False,
            )
            assert done.returncode == code
            assert without_time(reply.json()) == without_time(json.loads(done.stdout))
        assert httpx.get(f"{url}/openapi.json").json()["openapi"] == "3.1.0"
        # The port is taken.
        port = url.rpartition(":")[2]
        second = subprocess.run(
            command("serve", "verifier", "--port", port),
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert second.returncode == 2
        assert "cannot listen on 127.0.0.1" in second.stderr
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=SECONDS)
        assert process.returncode in (143, -signal.SIGTERM, 0)


def test_no_address_here(folder: Path) -> None:
    for host, message in (
        ("example.org", "is no IP address"),
        ("192.0.2.1", "hint: --host: an address of this machine"),
    ):
        done = subprocess.run(
            command("serve", "verifier", "--host", host, "--port", "0"),
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 2
        assert message in done.stderr
