"""A real Fortanix EDP program: built with Debian's Rust by the steps of docs/rust-edp.md, and run.

It needs the packages rustc-web, cargo-web, rust-web-src and lld (with gcc and binutils, which they
bring); where one is missing the tests skip, and say which.
"""

import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.conftest import Broch

from broch.cpu import native, unicorn_x86

EXAMPLE = Path(__file__).parents[2] / "examples" / "sgx-rust"
BUILD_SECONDS = 800
TOOLS = {"/usr/bin/rustc": "rustc-web", "/usr/bin/cargo": "cargo-web", "ld.lld": "lld", "cc": "gcc"}


def missing() -> str | None:
    """The package that is not installed."""
    for tool, package in TOOLS.items():
        if shutil.which(tool) is None:
            return package
    command = ["/usr/bin/rustc", "--version"]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    version = said.split()[1] if said.startswith("rustc ") else "unknown"
    if not Path(f"/usr/src/rustc-{version}/library/vendor").is_dir():
        return f"rust-web-src (of version {version})"
    return None


@pytest.fixture(scope="module")
def enclave(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The SGXS file; its build takes one to five minutes."""
    if (package := missing()) is not None:
        pytest.skip(f"the Debian package {package} is not installed: see docs/rust-edp.md")
    out = tmp_path_factory.mktemp("edp")
    done = subprocess.run(
        [str(EXAMPLE / "build.sh"), str(out)],
        env={**os.environ, "BROCH": str(Path(sys.executable).with_name("broch"))},
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return out / "hello.sgxs"


@pytest.fixture
def server() -> Iterator[tuple[str, list[bytes]]]:
    """Answers one connection; its address, and what it got."""
    got: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            try:
                connection, _ = listening.accept()
            except OSError:
                return  # nobody came
            with connection:
                got.append(connection.recv(4))
                connection.sendall(b"pong")

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{listening.getsockname()[1]}", got
        listening.shutdown(socket.SHUT_RDWR)
    thread.join()


pytestmark = pytest.mark.slow


@pytest.fixture(params=["native", "unicorn"])
def engine(request: pytest.FixtureRequest) -> str:
    """Each engine that is to be had here."""
    name: str = request.param
    problem = native.missing() if name == "native" else None
    if name == "unicorn" and not unicorn_x86.is_installed():
        problem = "unicorn is not installed"
    if problem is not None:
        pytest.skip(problem)
    return name


class TestEdp:
    """Upstream's runtime, unchanged, on each engine."""

    def test_output_arguments_maps_and_threads(
        self, broch: Broch, enclave: Path, engine: str
    ) -> None:
        ran = broch("run", str(enclave), "--engine", engine, "--", "one", "two three")
        assert ran.code == 0, ran.err
        assert ran.out.splitlines() == [
            "hello from an enclave",
            'arguments: ["one", "two three"]',
            "rose: 3",
            "total: 600",
        ]

    def test_a_tcp_stream(
        self, broch: Broch, enclave: Path, engine: str, server: tuple[str, list[bytes]]
    ) -> None:
        address, got = server
        ran = broch("run", str(enclave), "--engine", engine, "--", address)
        assert ran.code == 0, ran.err
        assert ran.out.splitlines()[-1] == "answer: pong"
        assert got == [b"ping"]

    def test_a_panic_is_shown_as_upstream_shows_it(
        self, broch: Broch, enclave: Path, engine: str
    ) -> None:
        ran = broch("run", str(enclave), "--engine", engine, "--", "panic")
        assert ran.code != 0
        assert "Error while executing SGX enclave.\nEnclave panicked: " in ran.err
        assert "asked to" in ran.err
        assert "src/main.rs:" in ran.err

    def test_an_exit_code(self, broch: Broch, enclave: Path, engine: str) -> None:
        ran = broch("run", str(enclave), "--engine", engine, "--", "fail")
        assert ran.code != 0
        assert "Exited with status code 3" in ran.err
