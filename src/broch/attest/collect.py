"""Evidence of the machine under us, written as :mod:`.formats` reads it.

    sgx     Gramine's /dev/attestation                 a quote
    nitro   /dev/nsm                                   an attestation document
    tdx     configfs-tsm                               a quote
    snp     configfs-tsm, else /dev/sev-guest          a report; with the host's certificates, where
                                                       it has any, as a bundle of configfs-tsm
    cca     configfs-tsm                               a token
    tpm     /dev/tpmrm0                                a quote of registers 0 to 7

The getters are those of ``tee/*/native.py``. Nothing of what they give is verified here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from broch.attest.appraise import MIN_NONCE
from broch.errors import UndecidedError, UsageError
from broch.tee import registry, tsm
from broch.tee.guest import NativeSettings
from broch.tee.kernel import Kernel, problem
from broch.wire import cbor

INSTANCE: Final = "broch.evidence"  # of configfs-tsm; it stays, as those of nodes
_GRAMINE: Final = "/dev/attestation"
_NSM: Final = "/dev/nsm"
_SEV_GUEST: Final = "/dev/sev-guest"
_TDX_GUEST: Final = "/dev/tdx_guest"
_TPM: Final = "/dev/tpmrm0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the evidence is to be over. Only Nitro has a field for each of the two."""

    nonce: bytes | None = None  # the challenge, 8 to 1024 bytes
    report_data: bytes | None = None
    key: int | None = None  # TPM: handle of a persistent attestation key, instead of our own
    event_log: bool = False  # TPM: with the firmware's log


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What the machine gave. Nothing in it has been verified."""

    tee: str
    data: bytes = field(repr=False)
    wrapped: str = ""  # "configfs-tsm" where it is a bundle


def detect(kernel: Kernel) -> str:
    """The hardware whose evidence this machine gives; of several the innermost, a TPM last.

    Raises:
        UndecidedError: none, or its provider is not known.
        InternalError: the kernel failed.
    """
    if kernel.exists(_GRAMINE):
        return "sgx"
    if kernel.exists(_NSM):
        return "nitro"
    if tsm.is_here(kernel):
        return _provided(kernel)
    for path, tee in ((_SEV_GUEST, "snp"), (_TDX_GUEST, "tdx"), (_TPM, "tpm")):
        if kernel.exists(path):
            return tee
    raise UndecidedError(
        "no hardware that gives evidence is here",
        hint="broch doctor shows what is here, and what each device is for",
    )


def _provided(kernel: Kernel) -> str:
    try:
        found = tsm.provider(kernel, INSTANCE, keep=True)
    except OSError as exc:
        # A kernel with configfs-tsm and nobody behind it, on a machine that has a TPM.
        if kernel.exists(_TPM):
            return "tpm"
        raise problem(exc, tsm.FOLDER, "configfs-tsm") from None
    if found not in tsm.PROVIDERS:
        known = ", ".join(tsm.PROVIDERS)
        raise UndecidedError(f"the reports of this machine are of {found!r:.40}, expected {known}")
    return tsm.PROVIDERS[found]


def collect(tee: str, kernel: Kernel, asked: Asked) -> Collected:
    """Ask the hardware called ``tee``.

    Raises:
        UsageError: hardware that cannot be asked here, or what is asked does not fit its field.
        UndecidedError: it is not here, may not be used, or is busy.
        InternalError: it failed otherwise.
        DecodeError: what came is not what it gives.
    """
    if tee not in _GETTERS:
        raise UsageError(
            f"evidence of {tee!r:.40} cannot be asked for here",
            hint=f"one of {', '.join(_GETTERS)}",
        )
    if asked.nonce is None and asked.report_data is None:
        raise UsageError(
            "neither a nonce nor report data is given",
            hint="give the nonce that the verifier sent: without one evidence may be a recording",
        )
    if asked.key is not None and tee != "tpm":
        raise UsageError(f"{_title(tee)} has no handles of attestation keys: those are a TPM's")
    if asked.event_log and tee != "tpm":
        raise UsageError(f"{_title(tee)} has no event log here: that is a TPM's")
    return _GETTERS[tee](kernel, asked)


def _title(tee: str) -> str:
    return registry.find_verifier(tee).title


def _field(tee: str, asked: Asked) -> bytes:
    """The one field that most evidence has, as long as it was asked for."""
    if asked.nonce is not None and asked.report_data is not None:
        raise UsageError(
            f"nonce and report data are the same field in evidence of {tee}",
            hint="give one of them; to bind both, give their hash",
        )
    return _nonce(tee, asked) or _report_data(tee, asked) or b""


def _nonce(tee: str, asked: Asked) -> bytes | None:
    return None if asked.nonce is None else _fitting(tee, "nonce", asked.nonce, MIN_NONCE)


def _report_data(tee: str, asked: Asked) -> bytes | None:
    given = asked.report_data
    return None if given is None else _fitting(tee, "report data", given, 1)


def _fitting(tee: str, what: str, given: bytes, least: int) -> bytes:
    size = registry.find_verifier(tee).report_data_size
    if not least <= len(given) <= size:
        raise UsageError(
            f"{what} of {len(given)} bytes; evidence of {tee} has room for {least} to {size}",
            hint="give the hash of what is longer" if len(given) > size else "give more bytes",
        )
    return given


def _filled(tee: str, asked: Asked) -> bytes:
    """The field where it has a fixed size: filled up with zeros, as verifiers compare it."""
    return _field(tee, asked).ljust(registry.find_verifier(tee).report_data_size, b"\0")


def _sgx(kernel: Kernel, asked: Asked) -> Collected:
    from broch.tee.sgx.native import Gramine

    given = _filled("sgx", asked)
    gramine = Gramine(NativeSettings(name=INSTANCE, kernel=kernel))
    return Collected(tee="sgx", data=gramine.evidence(given))


def _tdx(kernel: Kernel, asked: Asked) -> Collected:
    from broch.tee.tdx.native import quote

    return Collected(tee="tdx", data=quote(kernel, INSTANCE, _filled("tdx", asked)))


def _snp(kernel: Kernel, asked: Asked) -> Collected:
    from broch.tee.snp.native import PROVIDER, report

    data, certificates = report(kernel, INSTANCE, _filled("snp", asked))
    if not any(certificates):
        return Collected(tee="snp", data=data)
    bundle = {"outblob": data, "auxblob": certificates, "provider": PROVIDER}
    return Collected(tee="snp", data=cbor.encode(bundle), wrapped="configfs-tsm")


def _cca(kernel: Kernel, asked: Asked) -> Collected:
    given, title = _filled("cca", asked), _title("cca")
    made = tsm.get(kernel, INSTANCE, provider="arm_cca_guest", what=title, inblob=given)
    return Collected(tee="cca", data=made.outblob)


def _nitro(kernel: Kernel, asked: Asked) -> Collected:
    from broch.tee.nitro.native import attestation

    nonce, user_data = _nonce("nitro", asked), _report_data("nitro", asked)
    return Collected(tee="nitro", data=attestation(kernel, user_data, nonce=nonce))


def _tpm(kernel: Kernel, asked: Asked) -> Collected:
    from broch.tee.tpm.native import quote, with_event_log

    data = quote(kernel, _field("tpm", asked), handle=asked.key)
    return Collected(tee="tpm", data=with_event_log(kernel, data) if asked.event_log else data)


def ak_public(kernel: Kernel, key: int | None) -> bytes:
    """TPMT_PUBLIC of the key that signs quotes here, for a verifier to enrol (``ak_public``).

    Raises:
        UndecidedError: no TPM, or it may not be used.
    """
    from broch.tee.tpm import native

    return native.ak_public(kernel, key)


_GETTERS: Final[Mapping[str, Callable[[Kernel, Asked], Collected]]] = MappingProxyType(
    {"sgx": _sgx, "nitro": _nitro, "tdx": _tdx, "snp": _snp, "cca": _cca, "tpm": _tpm}
)
#: What can be asked for.
KINDS: Final = tuple(_GETTERS)
