"""Who publishes endorsements, simulated: Intel's PCS, a PCCS and AMD's KDS on this machine.

Each answers as the real one does (paths, parameters, headers with percent-encoded issuer chains,
DER, hexadecimal digits, PEM) out of a hierarchy of its own, and can be made to fail, once or on.
"""

import json
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final
from urllib.parse import parse_qs, quote, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An answer, or a way of failing to give one."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    promised: int | None = None  # the length that is announced, if it is not the body's
    then: Callable[[], object] = lambda: None  # called after the head, before the body


Answers = Callable[[str, Mapping[str, str]], Answer]  # path, parameters


@dataclass(kw_only=True)
class Publisher:
    """A service that is running."""

    base: str = ""
    requests: list[str] = field(default_factory=list)  # paths with parameters, as they came
    faults: deque[Answer] = field(default_factory=deque)  # given first, one a request
    down: Answer | None = None  # given always


@contextmanager
def serve(answers: Answers) -> Iterator[Publisher]:
    """Run a service on loopback."""
    publisher = Publisher()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            parameters = {name: values[0] for name, values in parse_qs(parts.query).items()}
            with lock:
                publisher.requests.append(self.path)
                fault = publisher.faults.popleft() if publisher.faults else publisher.down
            answer = fault or answers(parts.path, parameters)
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            promised = len(answer.body) if answer.promised is None else answer.promised
            self.send_header("Content-Length", str(promised))
            self.end_headers()
            self.wfile.flush()
            answer.then()
            self.wfile.write(answer.body)
            if promised != len(answer.body):
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base's name)
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            pass  # a client that has gone away is what some tests are about

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    publisher.base = f"http://127.0.0.1:{server.server_port}"
    try:
        yield publisher
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def pem(*ders: bytes) -> bytes:
    """Certificates as PEM, in this order."""
    return b"".join(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM) for der in ders)


NOT_FOUND: Final = Answer(status=404)


def intel(
    items: Mapping[str, bytes], pck_chain: bytes, fmspc: str, *, tee: str = "sgx", hexadecimal: bool
) -> Answers:
    """Intel's PCS, or with ``hexadecimal`` a PCCS, out of the items of endorsements.

    Args:
        items: under the names of :mod:`broch.tee.dcap.collateral`.
        pck_chain: PEM: leaf, CA, root.
        fmspc: the one that is known, upper case.
        tee: the one that is known.
        hexadecimal: lists as digits, as a PCCS gives them.
    """
    certs = x509.load_pem_x509_certificates(pck_chain)
    crl_chain = b"".join(cert.public_bytes(Encoding.PEM) for cert in certs[1:])
    ca = "processor" if "Processor CA" in certs[1].subject.rfc4514_string() else "platform"

    def listed(data: bytes, headers: Mapping[str, str]) -> Answer:
        return Answer(body=data.hex().encode() if hexadecimal else data, headers=headers)

    def document(member: str, name: str, header: str) -> Answer:
        signature = json.dumps(items[f"{name}_signature"].hex()).encode()
        body = b'{"%s":%s,"signature":%s}' % (member.encode(), items[name], signature)
        chain = quote(items[f"{name}_issuer_chain"].decode())
        return Answer(body=body, headers={header: chain, "Content-Type": "application/json"})

    def answers(path: str, parameters: Mapping[str, str]) -> Answer:
        if path == "/sgx/certification/v4/rootcacrl":
            return listed(items["root_ca_crl"], {})
        if path == "/sgx/certification/v4/pckcrl" and parameters.get("ca") == ca:
            return listed(items["pck_crl"], {"SGX-PCK-CRL-Issuer-Chain": quote(crl_chain.decode())})
        if path == f"/{tee}/certification/v4/tcb":
            if parameters.get("fmspc") != fmspc:
                return NOT_FOUND
            return document("tcbInfo", "tcb_info", "TCB-Info-Issuer-Chain")
        if path == f"/{tee}/certification/v4/qe/identity":
            return document("enclaveIdentity", "qe_identity", "SGX-Enclave-Identity-Issuer-Chain")
        return NOT_FOUND

    return answers


def amd(
    product: str,
    *,
    ark: bytes,
    ask: bytes,
    crl: bytes,
    veks: Mapping[str, bytes],
    kind: str = "vcek",
) -> Answers:
    """AMD's KDS; ``veks`` are by path and parameters: ``CHIP?blSPL=...``."""
    wanted = {f"/vcek/v1/{product}/{name}": vek for name, vek in veks.items()}

    def answers(path: str, parameters: Mapping[str, str]) -> Answer:
        if path == f"/{kind}/v1/{product}/cert_chain":
            return Answer(body=pem(ask, ark), headers={"Content-Type": "application/x-pem-file"})
        if path == f"/{kind}/v1/{product}/crl":
            return Answer(body=crl, headers={"Content-Type": "application/pkix-crl"})
        query = "&".join(f"{name}={value}" for name, value in parameters.items())
        found = wanted.get(f"{path}?{query}")
        return NOT_FOUND if found is None else Answer(body=found)

    return answers
