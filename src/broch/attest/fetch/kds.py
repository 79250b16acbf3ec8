"""AMD's Key Distribution Service (KDS).

    GET BASE/vcek/v1/PRODUCT/CHIP?blSPL=..&teeSPL=..&snpSPL=..&ucodeSPL=..   a VCEK, DER
    GET BASE/KIND/v1/PRODUCT/cert_chain     PEM: ASK or ASVK, then ARK; KIND is vcek or vlek
    GET BASE/KIND/v1/PRODUCT/crl            revocations by the ARK, DER

For Turin the chip's identity has 8 bytes instead of 64, and fmcSPL comes first. The service gives
one VCEK in ten seconds to an address, and answers 429 in between: what was fetched is kept for
good, since the key of a chip at a TCB version does not change.

Source: AMD, "Versioned Chip Endorsement Key (VCEK) Certificate and KDS Interface Specification",
57230, chapter 4.
"""

from typing import Final

from broch.attest.endorsements.subject import Kind, Subject
from broch.attest.fetch.http import Http, Response
from broch.errors import DecodeError, UsageError

AMD_KDS: Final = "https://kdsintf.amd.com"
MAX_BODY: Final = 64 * 1024  # bytes
_SPL: Final = {
    "fmc": "fmcSPL",
    "boot_loader": "blSPL",
    "tee": "teeSPL",
    "snp": "snpSPL",
    "microcode": "ucodeSPL",
}


class AmdKds:
    """AMD's service, or a mirror of it.

    Args:
        http: the client.
        base: URL without the path of the API.
    """

    kinds: tuple[Kind, ...] = (Kind.SNP_CHAIN, Kind.SNP_VEK)

    def __init__(self, http: Http, base: str = AMD_KDS) -> None:
        self._http = http
        self._base = base.rstrip("/")
        self._chains: dict[tuple[str, str], dict[str, bytes]] = {}  # one for all chips of a line

    def get(self, subject: Subject) -> tuple[str, dict[str, bytes]]:
        """Where a subject's items came from, and the items. They have not been checked.

        Raises:
            DecodeError: not what the API promises.
            UndecidedError: no answer, or the service does not have it.
        """
        kind, arguments = subject.match()
        if kind not in self.kinds:
            raise UsageError(f"AMD does not publish {subject}")
        product = arguments[0].capitalize()
        if kind is Kind.SNP_CHAIN:
            items = self._chains[product, arguments[1]] = self._chain(product, arguments[1])
            url = f"{self._base}/{arguments[1]}/v1/{product}/crl"
            # The list may be longer than certificates are; the store bounds it anyway.
            return url, {**items, "crl": self._http.get(url, max_body=16 * MAX_BODY).body}
        url = self.vcek_url(product, arguments[1], arguments[2])
        vek = self._http.get(url, max_body=MAX_BODY).body
        if (product, "vcek") not in self._chains:
            self._chains[product, "vcek"] = self._chain(product, "vcek")
        return url, {**self._chains[product, "vcek"], "vek": vek}

    def vcek_url(self, product: str, chip: str, tcb: str) -> str:
        """Where the VCEK of a chip at a TCB version (both hex) is.

        Raises:
            DecodeError: reserved bytes of the version are not zero.
        """
        from broch.tee.snp.product import Product, Tcb

        line = Product(product)
        version = Tcb.from_bytes(bytes.fromhex(tcb), line, "TCB version")
        query = "&".join(
            f"{parameter}={getattr(version, name):02}"
            for name, parameter in _SPL.items()
            if name != "fmc" or line is Product.TURIN
        )
        return f"{self._base}/vcek/v1/{product}/{chip}?{query}"

    def _chain(self, product: str, kind: str) -> dict[str, bytes]:
        url = f"{self._base}/{kind}/v1/{product}/cert_chain"
        ask, ark = _pem(self._http.get(url, max_body=MAX_BODY))
        return {"ask": ask, "ark": ark}


def _pem(response: Response) -> tuple[bytes, bytes]:
    """Two certificates as DER.

    Raises:
        DecodeError: not exactly two.
    """
    from broch.wire.x509 import to_der

    end = b"-----END CERTIFICATE-----"
    blocks = [block.strip() + end for block in response.body.split(end)[:-1]]
    if len(blocks) != 2:
        raise DecodeError(0, f"{len(blocks)} certificates, expected 2", what=response.url)
    return to_der(blocks[0], response.url), to_der(blocks[1], response.url)
