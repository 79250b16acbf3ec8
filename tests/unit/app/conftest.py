"""A home that all tests of a process share: its bytecode is compiled once."""

from pathlib import Path

import pytest

from broch.app.home import Home


@pytest.fixture(scope="session")
def shared_home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("shared") / "home")


@pytest.fixture
def app_folder(tmp_path: Path) -> Path:
    return tmp_path / "app"
