"""Whole commands, run as a user runs them: processes, exit codes, streams."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

SECONDS: Final = 120  # more than any command takes; a command that hangs fails its test


@dataclass(frozen=True, slots=True)
class Done:
    """A command that ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, which is one JSON value."""
        assert self.out.count("\n") == 1, self.out
        return json.loads(self.out)


@dataclass(frozen=True, slots=True)
class Broch:
    """Runs commands in a folder, with a home of their own."""

    folder: Path
    environment: dict[str, str]

    def __call__(self, *arguments: str, folder: Path | None = None) -> Done:
        done = subprocess.run(
            self.command(*arguments),
            cwd=folder or self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert "Traceback" not in done.stderr
        return Done(done.returncode, done.stdout, done.stderr)

    @property
    def home(self) -> Path:
        """Where it keeps what outlives a command."""
        return Path(self.environment["BROCH_HOME"])

    def command(self, *arguments: str) -> list[str]:
        return [str(Path(sys.executable).with_name("broch")), *arguments]

    @contextmanager
    def start(self, *arguments: str, **options: Any) -> Iterator["subprocess.Popen[str]"]:
        """A command that goes on; it has ended when the block is left."""
        process = subprocess.Popen(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            text=True,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
        )
        with process:
            try:
                yield process
                process.wait(SECONDS)
            except BaseException:
                process.kill()
                raise

    def check_nothing_is_left(self, app: str, status: dict[str, Any] | None = None) -> None:
        """No lock, no socket, and none of the processes of ``status``."""
        left = sorted(path.name for path in (self.home / "apps" / app).iterdir())
        assert left in ([], ["stores"])
        for module in (status or {}).get("modules", []):
            with pytest.raises(ProcessLookupError):
                os.kill(module["pid"], 0)


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all tests of a session: applications in it have different names."""
    path = tmp_path_factory.mktemp("home")
    path.chmod(0o700)
    return path


@pytest.fixture
def broch(tmp_path: Path, home: Path) -> Broch:
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "HOME": str(tmp_path),
        "BROCH_HOME": str(home),
        "LC_ALL": "C.UTF-8",
    }
    return Broch(tmp_path, environment)


@pytest.fixture
def project(broch: Broch, request: pytest.FixtureRequest) -> Iterator[str]:
    """A new application, named after the test; ended with it."""
    name = request.node.name.replace("test_", "").replace("[", "-").strip("]")[:40].lower()
    assert broch("new", name).code == 0
    yield name
    broch("down", name)
