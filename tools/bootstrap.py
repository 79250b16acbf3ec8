"""Make a virtual environment with pip in it, on a Python that may have no ensurepip.

    python3 tools/bootstrap.py FOLDER

Debian and Ubuntu keep ensurepip in a package of its own, python3-venv, which takes root to install.
Where it is missing, the newest pip is fetched from the package index that pip itself would use
(``PIP_INDEX_URL``, then pip's configuration files, then PyPI), its SHA-256 compared with the one
that the index gives, and the wheel run to install itself. Standard library only.
"""

import base64
import configparser
import hashlib
import os
import re
import ssl
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Final

PYPI: Final = "https://pypi.org/simple"
MAX_PAGE: Final = 16 * 1024 * 1024  # bytes
MAX_WHEEL: Final = 64 * 1024 * 1024  # bytes
TIMEOUT: Final = 60  # seconds, for each read
_WHEEL: Final = re.compile(r"pip-(\d+(?:\.\d+)*)-(?:py2\.)?py3-none-any\.whl")
_AT_LEAST: Final = re.compile(r">=\s*(\d+(?:\.\d+)*)")


class BootstrapError(Exception):
    """No environment could be made; ``hint`` says what may help."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """A pip wheel that an index offers."""

    name: str
    url: str
    sha256: str  # hexadecimal
    version: tuple[int, ...]


class _Links(HTMLParser):
    """Collect (href, attributes) of a page of links (PEP 503)."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[dict[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.found.append({key: value or "" for key, value in attrs})


def config_files(env: Mapping[str, str]) -> list[Path]:
    """Where pip looks for its configuration on Linux, strongest first."""
    home = Path(env.get("HOME", "/nonexistent"))
    user = Path(env.get("XDG_CONFIG_HOME") or home / ".config")
    machine = [Path(d) for d in (env.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":") if d]
    named = env.get("PIP_CONFIG_FILE")
    if named == os.devnull:  # pip's way to say "read none"
        return []
    files = [user / "pip/pip.conf", home / ".pip/pip.conf", Path("/etc/pip.conf")]
    files += [folder / "pip/pip.conf" for folder in machine]
    return [Path(named), *files] if named else files


def setting(name: str, env: Mapping[str, str]) -> str | None:
    """A setting of pip (``index-url``, ``cert``), as pip itself would find it."""
    value = env.get("PIP_" + name.upper().replace("-", "_"))
    if value:
        return value
    for path in config_files(env):
        parser = configparser.RawConfigParser()
        try:
            parser.read(path, encoding="utf-8")
        except (OSError, configparser.Error, UnicodeDecodeError):
            continue  # pip itself will complain about it, and better
        for section in ("install", "global"):
            value = parser.get(section, name, fallback=None)
            if value:
                return value.strip()
    return None


def numbers(version: str) -> tuple[int, ...]:
    """``"3.11"`` as ``(3, 11)``."""
    return tuple(int(part) for part in version.split("."))


def admits(requires: str, python: tuple[int, ...]) -> bool:
    """Whether ``python`` reaches every lower bound in ``data-requires-python``."""
    return all(python >= numbers(bound) for bound in _AT_LEAST.findall(requires))


def newest(page: str, base: str, python: tuple[int, ...]) -> Wheel:
    """The newest released pip that runs on ``python``, among the links of ``page``.

    Raises:
        BootstrapError: there is none with a SHA-256.
    """
    links = _Links()
    links.feed(page)
    wheels = []
    for link in links.found:
        url, _, fragment = urllib.parse.urljoin(base, link.get("href", "")).partition("#")
        name = urllib.parse.unquote(urllib.parse.urlsplit(url).path.rpartition("/")[2])
        match = _WHEEL.fullmatch(name)
        digest = re.fullmatch("sha256=([0-9a-f]{64})", fragment)
        if not match or not digest or "data-yanked" in link:
            continue
        if admits(link.get("data-requires-python", ""), python):
            wheels.append(Wheel(name=name, url=url, sha256=digest[1], version=numbers(match[1])))
    if not wheels:
        raise BootstrapError(
            "the package index offers no pip wheel with a SHA-256 for this Python",
            "set PIP_INDEX_URL to an index that has pip, or apt install python3-venv",
        )
    return max(wheels, key=lambda wheel: wheel.version)


def request(url: str) -> urllib.request.Request:
    """A request for ``url``; a name and password in it become a header, as pip does.

    Raises:
        BootstrapError: the transport is neither TLS nor within this machine.
    """
    parts = urllib.parse.urlsplit(url)
    local = parts.scheme == "http" and parts.hostname in {"127.0.0.1", "::1", "localhost"}
    if parts.scheme not in {"https", "file"} and not local:
        raise BootstrapError(
            f"{parts.scheme}://{parts.hostname}: a package index must be reached over https",
            "set PIP_INDEX_URL to an https address",
        )
    account, _, place = parts.netloc.rpartition("@")
    made = urllib.request.Request(parts._replace(netloc=place).geturl())  # noqa: S310
    made.add_header("Accept", "application/vnd.pypi.simple.v1+html, text/html")
    if account:
        plain = urllib.parse.unquote(account).encode()
        made.add_unredirected_header("Authorization", f"Basic {base64.b64encode(plain).decode()}")
    return made


def fetch(url: str, limit: int, env: Mapping[str, str]) -> bytes:
    """What ``url`` holds, at most ``limit`` bytes.

    Raises:
        BootstrapError: out of reach, or longer.
    """
    asked = request(url)
    shown = urllib.parse.urlsplit(asked.full_url)._replace(query="").geturl()
    cert = setting("cert", env)
    try:
        context = ssl.create_default_context(cafile=cert or None)
        with urllib.request.urlopen(asked, timeout=TIMEOUT, context=context) as answer:  # noqa: S310
            request(answer.url)  # a redirect must not leave TLS either
            data: bytes = answer.read(limit + 1)
    except (OSError, ValueError) as exc:  # URLError and SSLError are OSErrors
        if isinstance(exc, urllib.error.HTTPError):
            exc.close()  # it holds the connection
        reason = getattr(exc, "reason", exc)
        hint = "check the network, set PIP_INDEX_URL to an index in reach"
        if isinstance(reason, ssl.SSLCertVerificationError):
            hint = "apt install ca-certificates, or name the certificates in PIP_CERT"
        raise BootstrapError(f"{shown}: {reason}", f"{hint}, or apt install python3-venv") from exc
    if len(data) > limit:
        raise BootstrapError(f"{shown}: more than {limit} bytes", "is this a package index?")
    return data


def download(folder: Path, env: Mapping[str, str], python: tuple[int, ...]) -> Path:
    """Put the newest pip wheel into ``folder``.

    Raises:
        BootstrapError: the index is out of reach, has no pip, or gives another file than it says.
    """
    index = (setting("index-url", env) or PYPI).rstrip("/") + "/pip/"
    if index.startswith("file:"):  # a folder has no default page
        index += "index.html"
    page = fetch(index, MAX_PAGE, env).decode("utf-8", "replace")
    wheel = newest(page, index, python)
    data = fetch(wheel.url, MAX_WHEEL, env)
    actual = hashlib.sha256(data).hexdigest()
    if actual != wheel.sha256:
        raise BootstrapError(
            f"{wheel.name} has SHA-256 {actual}, the index says {wheel.sha256}",
            "the file was altered on its way: try another index through PIP_INDEX_URL",
        )
    path = folder / wheel.name
    path.write_bytes(data)
    return path


def add_pip(python: Path, env: Mapping[str, str]) -> None:
    """Give the environment of ``python`` its pip: ensurepip's if there is one, else the index's."""
    ensure = [str(python), "-I", "-m", "ensurepip", "--default-pip"]
    if subprocess.run(ensure, capture_output=True, check=False).returncode == 0:
        return
    sys.stderr.write("this Python brings no pip: fetching one\n")
    with tempfile.TemporaryDirectory() as scratch:
        wheel = download(Path(scratch), env, sys.version_info[:2])
        itself = [str(python), "-I", f"{wheel}/pip", "--isolated", "--quiet"]
        install = [*itself, "install", "--no-index", "--no-cache-dir", str(wheel)]
        done = subprocess.run(install, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise BootstrapError(f"pip does not install itself: {last}", "apt install python3-venv")


def make(folder: Path, env: Mapping[str, str]) -> None:
    """Make the environment in ``folder``, which is emptied first."""
    try:
        import venv
    except ImportError as exc:
        raise BootstrapError(
            f"{sys.executable} lacks a part of its standard library: {exc}",
            "apt install python3 (python3-minimal is not enough)",
        ) from exc
    sys.stderr.write(f"making {folder} with Python {sys.version.split()[0]}\n")
    venv.EnvBuilder(clear=True, symlinks=True, with_pip=False).create(folder)
    add_pip(folder / "bin/python", env)


def main(arguments: list[str]) -> int:
    """Run as a command: exit code 0 done, 1 failed, 2 usage."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        sys.stderr.write("error: expected one argument, the folder to make\n")
        return 2
    try:
        make(Path(arguments[0]), os.environ)
    except BootstrapError as exc:
        sys.stderr.write(f"error: {exc}\nhint: {exc.hint}\n")
        return 1
    except OSError as exc:
        sys.stderr.write(f"error: {exc}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
