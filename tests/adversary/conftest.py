"""One home for all tests of a process: bytecode, keys and devices are made once."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.adversary.edp_programs import stream

from broch.app.home import Home

from .world import Plan, SharedLauncher, Stage, World

if TYPE_CHECKING:
    from tests.adversary.edp_host import Host


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("adversary") / "home")


@pytest.fixture(scope="session")
def launcher(home: Home) -> Iterator[SharedLauncher]:
    made = SharedLauncher(home.folder("pycache"))
    yield made
    made.end()


@pytest.fixture
def stage(home: Home, tmp_path: Path, launcher: SharedLauncher) -> Iterator[Stage]:
    """Applications that end with the test."""
    with Stage(home, tmp_path, launcher) as made:
        yield made


@pytest.fixture(scope="module")
def calm_stage(home: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Applications that end with the tests of a file; their launcher is their own."""
    with Stage(home, tmp_path_factory.mktemp("calm")) as made:
        yield made


@pytest.fixture(scope="module")
def calm(calm_stage: Stage) -> World:
    """An application that several attacks in a row leave running."""
    return calm_stage.begin(Plan(name="calm", source="limits = { seconds = 1.5 }"))


@pytest.fixture
def library() -> "Host":
    """A library enclave in C, and a host that lies if it is told to."""
    from tests.adversary.edp_host import Host  # needs unicorn

    return Host(stream=stream("edp_library.c", library=True))


@pytest.fixture
def executable() -> "Host":
    """The same, of an executable enclave."""
    from tests.adversary.edp_host import Host

    return Host(stream=stream("edp_main.c", library=False))
