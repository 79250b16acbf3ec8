"""tools/bootstrap.py: which index, which pip, and what is refused. The index is on loopback."""

import hashlib
import importlib.util
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import ClassVar, Final

import pytest

ROOT: Final = Path(__file__).parents[2]
PYTHON: Final = (3, 11)
BASE: Final = "https://index.example/simple/pip/"
ZEROS: Final = "0" * 64


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bootstrap", ROOT / "tools" / "bootstrap.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bootstrap"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


bootstrap = _load()


def link(name: str, digest: str = ZEROS, more: str = "") -> str:
    return f'<a href="../../files/{name}#sha256={digest}" {more}>{name}</a>\n'


def newest(*links: str) -> str:
    return str(bootstrap.newest("".join(links), BASE, PYTHON).name)


def test_newest_is_by_number_and_not_by_spelling() -> None:
    assert newest(
        link("pip-9.0.3-py2.py3-none-any.whl"),
        link("pip-24.10-py3-none-any.whl"),
        link("pip-24.9.1-py3-none-any.whl"),
    ) == ("pip-24.10-py3-none-any.whl")


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(link("pip-99.0.tar.gz"), id="a source archive"),
        pytest.param(link("pip-99.0rc1-py3-none-any.whl"), id="a release candidate"),
        pytest.param(link("pip-99.0-cp311-cp311-linux_x86_64.whl"), id="a compiled wheel"),
        pytest.param(link("pipx-99.0-py3-none-any.whl"), id="another project"),
        pytest.param(link("pip-99.0-py3-none-any.whl", more="data-yanked"), id="withdrawn"),
        pytest.param(
            link("pip-99.0-py3-none-any.whl", more='data-requires-python="&gt;=3.12"'),
            id="needs a newer Python",
        ),
        pytest.param(link("pip-99.0-py3-none-any.whl", digest="12"), id="half a digest"),
        pytest.param('<a href="pip-99.0-py3-none-any.whl">x</a>', id="no digest"),
    ],
)
def test_what_is_not_taken(other: str) -> None:
    assert newest(link("pip-24.0-py3-none-any.whl"), other) == "pip-24.0-py3-none-any.whl"
    with pytest.raises(bootstrap.BootstrapError, match="no pip wheel"):
        newest(other)


def test_links_are_relative_to_the_page() -> None:
    wheel = bootstrap.newest(link("pip-24.0-py3-none-any.whl"), BASE, PYTHON)
    assert wheel.url == "https://index.example/files/pip-24.0-py3-none-any.whl"
    assert wheel.sha256 == ZEROS


def settings(tmp_path: Path, files: Mapping[str, str], **env: str) -> str | None:
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    full = {"HOME": str(tmp_path), "XDG_CONFIG_DIRS": str(tmp_path / "machine"), **env}
    found = bootstrap.setting("index-url", full)
    return None if found is None else str(found)


USER: Final = ".config/pip/pip.conf"
MACHINE: Final = "machine/pip/pip.conf"


def test_the_index_is_the_one_that_pip_would_use(tmp_path: Path) -> None:
    files = {MACHINE: "[global]\nindex-url = https://machine.example/simple\n"}
    assert settings(tmp_path, files) == "https://machine.example/simple"
    files[USER] = "[global]\nindex-url = https://user.example/%7Ea/simple\n"
    assert settings(tmp_path, files) == "https://user.example/%7Ea/simple"
    files[USER] += "[install]\nindex-url = https://install.example\n"
    assert settings(tmp_path, files) == "https://install.example"
    assert settings(tmp_path, files, PIP_INDEX_URL="https://env.example") == "https://env.example"


def test_a_named_configuration_is_stronger_and_null_means_none(tmp_path: Path) -> None:
    files = {"own.conf": "[global]\nindex-url = https://own.example\n", USER: "[global]\n"}
    own = str(tmp_path / "own.conf")
    assert settings(tmp_path, files, PIP_CONFIG_FILE=own) == "https://own.example"
    assert settings(tmp_path, files, PIP_CONFIG_FILE="/dev/null") is None


@pytest.mark.parametrize("text", ["index-url\n", "[global\n", "\xff\xfe"])
def test_a_broken_configuration_is_left_to_pip(tmp_path: Path, text: str) -> None:
    path = tmp_path / USER
    path.parent.mkdir(parents=True)
    path.write_bytes(text.encode("latin-1"))
    machine = tmp_path / MACHINE
    machine.parent.mkdir(parents=True)
    machine.write_text("[global]\nindex-url = https://machine.example\n")
    env = {"HOME": str(tmp_path), "XDG_CONFIG_DIRS": str(tmp_path / "machine")}
    assert bootstrap.setting("index-url", env) == "https://machine.example"


@pytest.mark.parametrize("url", ["http://index.example/simple", "ftp://127.0.0.1/", "simple"])
def test_only_https_leaves_this_machine(url: str) -> None:
    with pytest.raises(bootstrap.BootstrapError, match="https"):
        bootstrap.request(url)


def test_a_password_goes_into_a_header_and_nowhere_else() -> None:
    made = bootstrap.request("https://user:p%40ss@index.example/simple/pip/")
    assert made.full_url == BASE
    assert made.get_header("Authorization") == "Basic dXNlcjpwQHNz"


class Index(BaseHTTPRequestHandler):
    """A package index with one wheel."""

    pages: ClassVar[dict[str, bytes]] = {}

    def do_GET(self) -> None:
        body = self.pages.get(self.path)
        self.send_response(404 if body is None else 200)
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def index() -> Iterator[str]:
    Index.pages = {}
    with ThreadingHTTPServer(("127.0.0.1", 0), Index) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def offer(content: bytes, digest: str) -> None:
    name = "pip-24.0-py3-none-any.whl"
    Index.pages["/simple/pip/"] = link(name, digest).encode()
    Index.pages[f"/files/{name}"] = content


def test_download_is_what_the_index_says(tmp_path: Path, index: str) -> None:
    offer(b"a wheel", hashlib.sha256(b"a wheel").hexdigest())
    env = {"PIP_INDEX_URL": f"{index}/simple/"}
    path = bootstrap.download(tmp_path, env, PYTHON)
    assert path.read_bytes() == b"a wheel"


def test_an_altered_wheel_is_refused_and_not_kept(tmp_path: Path, index: str) -> None:
    offer(b"another wheel", hashlib.sha256(b"a wheel").hexdigest())
    with pytest.raises(bootstrap.BootstrapError, match="the index says"):
        bootstrap.download(tmp_path, {"PIP_INDEX_URL": f"{index}/simple"}, PYTHON)
    assert list(tmp_path.iterdir()) == []


def test_a_page_without_end_is_refused(index: str) -> None:
    Index.pages["/long"] = bytes(101)
    with pytest.raises(bootstrap.BootstrapError, match="more than 100 bytes"):
        bootstrap.fetch(f"{index}/long", 100, {})
    assert len(bootstrap.fetch(f"{index}/long", 101, {})) == 101


def test_an_index_without_pip_is_an_error_with_a_hint(tmp_path: Path, index: str) -> None:
    with pytest.raises(bootstrap.BootstrapError, match="/simple/pip/: Not Found") as caught:
        bootstrap.download(tmp_path, {"PIP_INDEX_URL": f"{index}/simple"}, PYTHON)
    assert "PIP_INDEX_URL" in caught.value.hint


def find_python(argument: str, path: Path | str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", str(ROOT / "tools" / "find_python.sh"), argument],
        env={"PATH": str(path)},
        capture_output=True,
        text=True,
        check=False,
    )


def fake(folder: Path, name: str, *, version: str, new: bool) -> Path:
    """A Python that answers the two questions that it is asked."""
    program = folder / name
    answer = f'case "$2" in *print*) echo {version};; *) exit {0 if new else 1};; esac'
    program.write_text(f"#!/bin/sh\n{answer}\n")
    program.chmod(0o755)
    return program


def test_the_newest_python_is_found(tmp_path: Path) -> None:
    fake(tmp_path, "python3", version="3.11.2", new=True)
    assert find_python("", tmp_path).stdout == "python3\n"
    fake(tmp_path, "python3.12", version="3.12.1", new=True)
    assert find_python("", tmp_path).stdout == "python3.12\n"
    fake(tmp_path, "python3.14", version="none", new=False)  # a shim with nothing behind it
    assert find_python("", tmp_path).stdout == "python3.12\n"


def test_no_python_is_an_error_with_a_hint(tmp_path: Path) -> None:
    found = find_python("", tmp_path)
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr.startswith("error: no Python 3.11 or newer on PATH; there is no python3")
    fake(tmp_path, "python3", version="3.9.2", new=False)
    found = find_python("", tmp_path)
    assert (found.returncode, found.stdout) == (2, "")
    error, hint = found.stderr.splitlines()
    assert error == "error: no Python 3.11 or newer on PATH; python3 is version 3.9.2"
    assert hint.startswith("hint: install one")


def test_a_named_python_is_taken_or_refused(tmp_path: Path) -> None:
    new = fake(tmp_path, "new", version="3.13.0", new=True)
    old = fake(tmp_path, "old", version="3.10.9", new=False)
    assert find_python(str(new), tmp_path).stdout == f"{new}\n"
    refused = find_python(str(old), tmp_path)
    assert refused.returncode == 2
    assert f"error: PYTHON={old} is version 3.10.9, and Broch needs 3.11" in refused.stderr
    missing = find_python("nothing", tmp_path)
    assert (missing.returncode, missing.stdout) == (2, "")
    assert "error: PYTHON=nothing: no such program" in missing.stderr


def test_usage() -> None:
    assert bootstrap.main([]) == 2
    assert bootstrap.main(["--help"]) == 2
