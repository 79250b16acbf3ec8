"""Evidence of the machine under us: what is found, what is asked, and that verifiers take it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pytest
from tests.kernels import (
    GramineKernel,
    Machine,
    NoKernel,
    NsmKernel,
    SevGuestKernel,
    TdxGuestKernel,
    TsmKernel,
)
from tests.unit.attest.support import Case, module
from tests.unit.attest.support import cca as cca_case
from tests.unit.attest.support import nitro as nitro_case
from tests.unit.attest.support import sgx as sgx_case
from tests.unit.attest.support import snp as snp_case
from tests.unit.attest.support import tdx as tdx_case

from broch.attest import formats
from broch.attest.collect import KINDS, Asked, Collected, collect, detect
from broch.attest.result import Status, examine
from broch.errors import BrochError, UndecidedError, UsageError
from broch.tee.contract import Endorsements
from broch.tee.kernel import Kernel
from broch.tee.snp.product import Product

NONCE = bytes(range(20))


@dataclass(frozen=True, kw_only=True)
class Tpm(NoKernel):
    """A TPM that nobody asks anything."""

    def exists(self, path: str) -> bool:
        return path == "/dev/tpmrm0"


@cache
def attester(tee: str) -> Any:
    """One of each: certificates made anew have other signatures."""
    return module(tee, "attester").Attester()


def sgx(data: bytes) -> Any:
    attester("sgx").body_fields = {"reportdata": data}
    return attester("sgx").evidence()


def tdx(data: bytes, level: int) -> Any:
    attester("tdx").report = replace(attester("tdx").report, report_data=data)
    return attester("tdx").evidence()


def snp(data: bytes, level: int = 0) -> Any:
    chip = module("snp", "attester").Attester(product=Product.GENOA)
    return chip.bend(report_data=data).evidence()


def cca(data: bytes, level: int) -> Any:
    return module("cca", "test_cca").Attester(realm={10: data}).evidence()


def nitro(fields: dict[str, Any], pcrs: dict[int, bytes]) -> Any:
    measured = {**pcrs, 0: b"\1" * 48, 1: b"\1" * 48, 2: b"\1" * 48}
    fields = {**fields, "pcrs": measured}
    return module("nitro", "test_nitro").Attester(fields=fields).evidence()


MACHINES: dict[str, tuple[Callable[[], Kernel], Callable[[], Case]]] = {
    "sgx": (lambda: GramineKernel(make=sgx), sgx_case),
    "tdx": (lambda: TsmKernel(provider="tdx_guest", make=tdx), tdx_case),
    "snp": (lambda: TsmKernel(provider="sev_guest", make=snp, floor=0), snp_case),
    "cca": (lambda: TsmKernel(provider="arm_cca_guest", make=cca), cca_case),
    "nitro": (lambda: NsmKernel(make=nitro), nitro_case),
}


def judge(case: Case, found: Collected, nonce: bytes) -> Status:
    """What `broch verify` says of it."""
    evidence = formats.read(found.data)
    given = case.endorsements
    if case.tee in ("sgx", "tdx"):
        given = attester(case.tee).endorsements()
    if case.tee == "nitro":  # the document brings its chain, and signatures are random
        bundle = module("nitro", "test_nitro").cabundle(evidence.data)
        given = Endorsements(anchors=tuple(bundle[:1]))
    result = examine(evidence, lambda tee, data: given, case.policy(), at=case.at, nonce=nonce)
    assert result.error is None, result.error
    return result.status


@pytest.mark.parametrize("tee", MACHINES)
def test_what_a_machine_gives_answers_the_challenge(tee: str) -> None:
    machine, case = MACHINES[tee]
    kernel = machine()
    assert detect(kernel) == tee
    found = collect(tee, kernel, Asked(nonce=NONCE))
    assert (found.tee, found.wrapped) == (tee, "")
    assert formats.read(found.data).tee == tee
    assert judge(case(), found, NONCE) is Status.ACCEPTED


def test_certificates_of_the_host_come_along() -> None:
    theirs = module("snp", "test_native")
    certificates = theirs.certificates()
    for kernel in (
        TsmKernel(provider="sev_guest", make=snp, floor=0, aux=certificates),
        SevGuestKernel(make=snp, certs=certificates),
    ):
        found = collect(detect(kernel), kernel, Asked(nonce=NONCE))
        assert found.wrapped == "configfs-tsm"
        evidence = formats.read(found.data)
        assert (evidence.tee, set(evidence.items)) == ("snp", {"vek", "ask"})
        assert judge(snp_case(), found, NONCE) is Status.ACCEPTED
    bare = collect("snp", SevGuestKernel(make=snp), Asked(nonce=NONCE))
    assert (bare.wrapped, len(bare.data)) == ("", 1184)


def test_report_data_fills_the_same_field() -> None:
    kernel = MACHINES["tdx"][0]()
    data = bytes(range(64))
    found = collect("tdx", kernel, Asked(report_data=data))
    assert judge(tdx_case(), found, data) is Status.ACCEPTED
    with pytest.raises(UsageError, match="the same field in evidence of tdx") as caught:
        collect("tdx", kernel, Asked(nonce=NONCE, report_data=data))
    assert "hash" in str(caught.value.hint)


def test_nitro_has_a_field_for_each() -> None:
    documents: list[dict[str, Any]] = []

    def make(fields: dict[str, Any], pcrs: dict[int, bytes]) -> Any:
        documents.append(fields)
        return nitro(fields, pcrs)

    kernel = NsmKernel(make=make)
    for asked in (
        Asked(nonce=NONCE, report_data=b"k"),
        Asked(report_data=b"k"),
        Asked(nonce=NONCE),
    ):
        collect("nitro", kernel, asked)
        assert documents[-1] == {
            "nonce": asked.nonce,
            "user_data": asked.report_data,
            "public_key": None,
        }


@pytest.mark.parametrize(
    ("kernel", "tee"),
    [
        (SevGuestKernel(), "snp"),
        (TdxGuestKernel(), "tdx"),
        (Tpm(), "tpm"),
        (Machine((Tpm(), SevGuestKernel())), "snp"),
        (Machine((Tpm(), NsmKernel())), "nitro"),
        (Machine((GramineKernel(), TsmKernel(provider="tdx_guest", make=tdx))), "sgx"),
        # A kernel with configfs-tsm and nobody behind it.
        (Machine((TsmKernel(provider="", make=tdx), Tpm())), "tpm"),
    ],
)
def test_of_several_the_innermost_is_taken(kernel: Kernel, tee: str) -> None:
    assert detect(kernel) == tee


@pytest.mark.parametrize(
    ("kernel", "text"),
    [
        (NoKernel(), "no hardware that gives evidence"),
        (TsmKernel(provider="", make=tdx), "no configfs-tsm device"),
        (TsmKernel(provider="else_guest", make=tdx), "are of 'else_guest', expected sev_guest"),
    ],
)
def test_where_there_is_none(kernel: Kernel, text: str) -> None:
    with pytest.raises(UndecidedError, match=text):
        detect(kernel)


@pytest.mark.parametrize("tee", KINDS)
def test_hardware_that_is_not_here(tee: str) -> None:
    with pytest.raises(UndecidedError, match="is missing") as caught:
        collect(tee, NoKernel(), Asked(nonce=NONCE))
    assert "broch doctor" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("tee", "asked", "text"),
    [
        ("tdx", Asked(), "neither a nonce nor report data"),
        ("nitro", Asked(), "neither a nonce nor report data"),
        ("sgx", Asked(nonce=bytes(7)), "nonce of 7 bytes; .* room for 8 to 64"),
        ("sgx", Asked(nonce=bytes(65)), "nonce of 65 bytes; .* room for 8 to 64"),
        ("snp", Asked(report_data=b""), "report data of 0 bytes; .* room for 1 to 64"),
        ("nitro", Asked(nonce=NONCE, report_data=bytes(1025)), "room for 1 to 1024"),
        ("tpm", Asked(nonce=bytes(33)), "nonce of 33 bytes; .* room for 8 to 32"),
        ("snp", Asked(nonce=NONCE, key=0x81000003), "AMD SEV-SNP has no handles"),
        ("keystone", Asked(nonce=NONCE), "'keystone' cannot be asked for here"),
    ],
)
def test_wrong_calls(tee: str, asked: Asked, text: str) -> None:
    with pytest.raises(UsageError, match=text) as caught:
        collect(tee, NoKernel(), asked)
    assert isinstance(caught.value, BrochError)
