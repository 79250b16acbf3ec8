"""Private folders, keys that are refused when others may use them, locks, long paths."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from broch.app.home import Home
from broch.errors import MalformedError, UntrustedError, UsageError
from broch.tee import registry


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.mark.parametrize(
    ("environ", "root"),
    [
        ({"BROCH_HOME": "/b", "XDG_STATE_HOME": "/x", "HOME": "/h"}, "/b"),
        ({"XDG_STATE_HOME": "/x", "HOME": "/h"}, "/x/broch"),
        ({"XDG_STATE_HOME": "relative", "HOME": "/h"}, "/h/.local/state/broch"),
        ({"HOME": "/h"}, "/h/.local/state/broch"),
    ],
)
def test_where_home_is(environ: dict[str, str], root: str) -> None:
    assert Home.find(environ).root == Path(root)


def test_no_home_is_an_error() -> None:
    with pytest.raises(UsageError, match="no home folder"):
        Home.find({})


def test_folders_are_private(home: Home) -> None:
    home.app("demo").stores("node")
    home.device("demo", "node", "sgx")
    for folder, _, _ in os.walk(home.root):
        assert os.stat(folder).st_mode & 0o777 == 0o700, folder


def test_deployer_key_is_made_once_and_private(home: Home) -> None:
    first = home.deployer_key().public_key().public_bytes_raw()
    assert home.deployer_key().public_key().public_bytes_raw() == first
    path = home.root / "keys" / "deployer.pem"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_signing_keys_only_where_used(home: Home) -> None:
    assert home.signing_key(registry.find("keystone")) is None
    key = home.signing_key(registry.find("sgx"))
    again = home.signing_key(registry.find("sgx"))
    assert key is not None
    assert again is not None
    assert key.public_key() == again.public_key()


def test_open_key_is_refused(home: Home) -> None:
    home.deployer_key()
    path = home.root / "keys" / "deployer.pem"
    path.chmod(0o644)
    with pytest.raises(UntrustedError) as caught:
        home.deployer_key()
    assert caught.value.exit_code == 4
    assert caught.value.place == str(path)
    assert caught.value.hint


def test_open_folder_is_refused(home: Home) -> None:
    home.folder("keys").chmod(0o755)
    with pytest.raises(UntrustedError):
        home.deployer_key()


def test_folder_of_another_user_is_refused(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.deployer_key()
    other = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: other)
    with pytest.raises(UntrustedError, match="belongs to user") as caught:
        home.deployer_key()
    assert "BROCH_HOME" in str(caught.value.hint)


def test_broken_key_is_malformed(home: Home) -> None:
    path = home.folder("keys") / "deployer.pem"
    path.write_text("not a key")
    path.chmod(0o600)
    with pytest.raises(MalformedError, match="PEM"):
        home.deployer_key()


def test_home_below_a_file_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot make the folder"):
        Home(tmp_path / "file" / "home").folder("keys")


def test_lock_is_held_once_and_leaves_nothing(home: Home) -> None:
    app = home.app("demo")
    lock = app.lock()
    assert app.is_running()
    with pytest.raises(UsageError, match="runs already"):
        home.app("demo").lock()
    lock.release()
    lock.release()
    assert not app.is_running()
    assert list(app.path.iterdir()) == []


def test_lock_goes_with_its_process(home: Home) -> None:
    code = "import sys; from pathlib import Path; from broch.app.home import Home; "
    code += "Home(Path(sys.argv[1])).app('demo').lock()"
    subprocess.run([sys.executable, "-c", code, str(home.root)], check=True)
    assert not home.app("demo").is_running()
    home.app("demo").lock().release()


def test_control_socket_at_a_long_path(tmp_path: Path) -> None:
    app = Home(tmp_path / ("d" * 200)).app("demo")
    with pytest.raises(UsageError, match="does not run"):
        app.connect()
    server = app.listen()
    with server, app.connect() as client:
        peer, _ = server.accept()
        with peer:
            client.sendall(b"x")
            assert peer.recv(100) == app.token() + b"x"
    assert (app.path / "control.sock").stat().st_mode & 0o777 == 0o600
    with pytest.raises(UsageError, match="does not run"):
        app.connect()
    app.listen().close()
    app.remove_socket()
    assert list(app.path.iterdir()) == []


def test_names_of_apps(home: Home) -> None:
    assert home.app_names() == []
    assert home.existing_app("demo") is None
    home.app("demo")
    assert home.app_names() == ["demo"]
    assert home.existing_app("demo") is not None
