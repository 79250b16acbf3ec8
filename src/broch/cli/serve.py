"""``broch serve verifier``: the same answers over HTTP."""

import errno
import ipaddress
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from broch.cli import binary, output
from broch.cli.endorsing import read_anchors, source
from broch.errors import UsageError

if TYPE_CHECKING:
    from broch.attest.server import Settings

_MAX_AT_ONCE = 64  # requests; more are told to come back (503)
_FREE_PORT = "--port 0 takes a free one"
_GRACE = 5  # seconds that requests have to end, once the server is to


def serve_verifier(
    *,
    policy: Path,
    endorsements: Path | None,
    anchors: list[Path],
    ear: Path | None,
    host: str,
    port: int,
    as_json: bool,
) -> int:
    """Serve until ended by a signal."""
    settings = _settings(policy, endorsements, anchors, ear)
    try:
        import uvicorn
    except ImportError:
        raise UsageError(
            "the server needs uvicorn, which is not installed",
            hint="pip install 'broch[server]'",
        ) from None
    from broch.attest.server import application

    config = uvicorn.Config(
        application(settings),
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=_MAX_AT_ONCE,
        timeout_graceful_shutdown=_GRACE,
        lifespan="off",
        ws="none",
    )
    listening = _listen(host, port)
    with listening:
        address, number = listening.getsockname()[:2]
        shown = f"[{address}]" if ":" in address else address
        _say(f"http://{shown}:{number}", settings, as_json)
        uvicorn.Server(config).run(sockets=[listening])
    return 0


def _settings(
    policy: Path, endorsements: Path | None, anchors: list[Path], ear: Path | None
) -> "Settings":
    from broch.attest import policy_file
    from broch.attest.endorsements import Shelf
    from broch.attest.server import Settings

    key = None
    if ear is not None:
        from broch.attest.ear import read_key

        key = read_key(binary.read_all(ear, binary.MAX_SMALL), str(ear))
    return Settings(
        policy=policy_file.load(policy),
        source=Shelf(source(endorsements), anchors=read_anchors(anchors)).get,
        key=key,
    )


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        UsageError: no such address here, or the port is in use.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise UsageError(f"--host {host!r:.60} is no IP address", hint="127.0.0.1 or ::1") from None
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(_MAX_AT_ONCE)
    except OSError as exc:
        listening.close()
        is_elsewhere = exc.errno == errno.EADDRNOTAVAIL
        raise UsageError(
            f"cannot listen on {host}, port {port}: {exc.strerror}",
            hint="--host: an address of this machine" if is_elsewhere else _FREE_PORT,
        ) from None
    if not address.is_loopback:
        output.note(
            f"note: {host} can be reached from outside; nothing here is encrypted, "
            "so put a TLS server in front"
        )
    return listening


def _say(url: str, settings: "Settings", as_json: bool) -> None:
    """Where it listens, once it does: a line that programs wait for."""
    if as_json:
        where = {"url": f"{url}/verify", "openapi": f"{url}/openapi.json"}
        output.print_json({**where, "policy": settings.policy.name})
        return
    output.say(f"verifier at {url}/verify, policy {output.clean(settings.policy.name)}")
    output.flush()
