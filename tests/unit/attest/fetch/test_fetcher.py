"""Fetching through to verification, from services that behave and services that do not."""

import json
import multiprocessing
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final
from urllib.parse import quote

import pytest
from tests import pki
from tests.publishers import Answer, Publisher, amd, intel, pem, serve
from tests.unit.tee.sgx.attester import KEYS
from tests.unit.tee.sgx.attester import Attester as SgxAttester
from tests.unit.tee.sgx.support import NOW as SGX_NOW
from tests.unit.tee.snp import attester as snp
from tests.unit.tee.tdx.attester import Attester as TdxAttester

from broch.attest.endorsements import Store, Subject, load, subject, wanted
from broch.attest.fetch import AmdKds, Fetcher, Http, IntelPcs, State
from broch.attest.fetch.http import Limits, Response
from broch.attest.fetch.pcs import INTEL_PCS, crl, signed_member
from broch.errors import BrochError, DecodeError, UndecidedError, UntrustedError, UsageError
from broch.tee.dcap import ecdsa, platform
from broch.tee.dcap.collateral import NAMES
from broch.tee.sgx import TEE as SGX
from broch.tee.sgx.verify import parse as parse_sgx
from broch.tee.snp import VERIFIER as SNP
from broch.tee.snp.product import Product
from broch.tee.snp.vek import ARC
from broch.tee.tdx import VERIFIER as TDX
from broch.tee.tdx.verify import parse as parse_tdx

NOW: Final = pki.NOW
GUEST: Final = snp.Attester()
ARK: Final = GUEST.tree.der("ark")
CHIP: Final = snp.CHIP.hex()
VEK_PATH: Final = f"{CHIP}?blSPL=04&teeSPL=01&snpSPL=24&ucodeSPL=219"
MILAN: Final = subject.snp_chain("Milan", "vcek")
VEK: Final = subject.snp_vek("Milan", snp.CHIP, snp.TCB[Product.MILAN])


@dataclass
class World:
    """A store, a clock that is ours, and one service."""

    store: Store
    at: datetime = NOW
    slept: list[float] = field(default_factory=list)
    uptime: float = 0.0
    clients: list[Http] = field(default_factory=list)

    def http(self) -> Http:
        client = Http(
            Limits(silence=5),
            sleep=self.sleep,
            monotonic=lambda: self.uptime,
            now=lambda: self.at,
        )
        self.clients.append(client)
        return client

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.uptime += seconds

    def kds(self, service: Publisher) -> Fetcher:
        kds = AmdKds(self.http(), service.base + "/")
        return Fetcher(self.store, [kds], anchors=[ARK], now=lambda: self.at)

    def pcs(self, service: Publisher, *anchors: bytes) -> Fetcher:
        pcs = IntelPcs(self.http(), service.base)
        return Fetcher(self.store, [pcs], anchors=anchors, now=lambda: self.at)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(Store.create(tmp_path / "store"))
    yield world
    for client in world.clients:
        client.close()


def kds_of(guest: snp.Attester, path: str, **crl_options: datetime) -> Iterator[Publisher]:
    tree = guest.tree
    answers = amd(
        guest.product.value,
        ark=ARK,
        ask=tree.der("ask"),
        crl=tree.crl("ark", **crl_options),
        veks={path: tree.der("vek")},
        kind="vlek" if guest.vlek else "vcek",
    )
    with serve(answers) as publisher:
        yield publisher


@pytest.fixture
def kds() -> Iterator[Publisher]:
    yield from kds_of(GUEST, VEK_PATH)


# AMD


@pytest.mark.parametrize(
    ("product", "path"),
    [
        (Product.MILAN, VEK_PATH),
        (Product.GENOA, f"{CHIP}?blSPL=10&teeSPL=01&snpSPL=27&ucodeSPL=27"),
        (Product.TURIN, f"{CHIP[:16]}?fmcSPL=01&blSPL=02&teeSPL=03&snpSPL=04&ucodeSPL=75"),
    ],
)
def test_snp_from_service_to_claims(world: World, product: Product, path: str) -> None:
    guest = snp.Attester(product=product)
    evidence = guest.evidence()
    for service in kds_of(guest, path):
        outcomes = world.kds(service).fetch_all(wanted("snp", evidence))
    assert [outcome.state for outcome in outcomes] == [State.FETCHED, State.FETCHED]
    found = load(world.store.folder, "snp", evidence, anchors=[ARK])
    assert SNP.verify(evidence, found, at=NOW).product is product


def test_the_issuer_of_a_vlek_can_be_fetched_and_the_vlek_cannot(world: World) -> None:
    guest = snp.Attester(vlek=True)
    for service in kds_of(guest, ""):
        world.kds(service).fetch_all(wanted("snp", guest.evidence()))
    assert load(world.store.folder, "snp", guest.evidence()).items.keys() == {"ask", "crl"}


def test_a_key_is_fetched_once_and_for_good(world: World, kds: Publisher) -> None:
    fetcher = world.kds(kds)
    fetcher.fetch(VEK)
    asked = len(kds.requests)
    world.at += timedelta(days=300)
    assert fetcher.fetch(VEK).state is State.CURRENT
    assert len(kds.requests) == asked


def test_lists_are_fetched_again_after_a_day(world: World, kds: Publisher) -> None:
    fetcher = world.kds(kds)
    assert fetcher.fetch(MILAN).state is State.FETCHED
    world.at += timedelta(hours=23)
    assert fetcher.fetch(MILAN).state is State.CURRENT
    assert fetcher.fetch(MILAN, refresh=True).state is State.UNCHANGED
    world.at += timedelta(days=1)
    assert fetcher.fetch(MILAN).state is State.UNCHANGED


def test_many_threads_cost_one_request(world: World, kds: Publisher) -> None:
    # Each has a client and a fetcher of its own: they share nothing but the store.
    entered, go = threading.Barrier(9), threading.Event()
    kds.faults.append(Answer(status=503, headers={"Retry-After": "0"}, then=go.wait))

    def fetch() -> None:
        fetcher = world.kds(kds)
        entered.wait()
        states.append(fetcher.fetch(VEK).state)

    states: list[State] = []
    threads = [threading.Thread(target=fetch) for _ in range(8)]
    for thread in threads:
        thread.start()
    entered.wait()
    go.set()
    for thread in threads:
        thread.join()
    assert sorted(states) == [State.CURRENT] * 7 + [State.FETCHED]
    assert len([path for path in kds.requests if "blSPL" in path]) == 2, "the refused one, and one"


def _in_a_process(folder: str, base: str, ark: bytes, states: "multiprocessing.Queue[str]") -> None:
    with Http() as http:
        fetcher = Fetcher(Store(Path(folder)), [AmdKds(http, base)], anchors=[ark], now=lambda: NOW)
        states.put(fetcher.fetch(VEK).state.value)


def test_many_processes_cost_one_request(world: World, kds: Publisher) -> None:
    context = multiprocessing.get_context("spawn")
    states: multiprocessing.Queue[str] = context.Queue()
    folder = str(world.store.folder)
    processes = [
        context.Process(target=_in_a_process, args=(folder, kds.base, ARK, states))
        for _ in range(2)
    ]
    for process in processes:
        process.start()
    found = sorted(states.get(timeout=60) for _ in processes)
    for process in processes:
        process.join()
    assert found == ["current", "fetched"]
    assert len([path for path in kds.requests if "blSPL" in path]) == 1


def test_a_rate_limit_is_waited_out(world: World, kds: Publisher) -> None:
    kds.faults.append(Answer(status=429, headers={"Retry-After": "10"}))
    assert world.kds(kds).fetch(VEK).state is State.FETCHED
    assert world.slept == [10.0]


def test_in_an_outage_what_is_there_serves_until_it_expires(world: World, kds: Publisher) -> None:
    fetcher = world.kds(kds)
    fetcher.fetch(MILAN)
    kds.down = Answer(status=503)
    world.at += timedelta(days=2)
    outcome = fetcher.fetch(MILAN)
    assert outcome.state is State.KEPT
    assert outcome.problem is not None
    assert "503" in outcome.problem
    world.at = pki.END + timedelta(days=1)
    with pytest.raises(UndecidedError, match="503"):
        fetcher.fetch(MILAN)
    kds.down = None


def test_in_an_outage_what_is_not_there_cannot_be_decided(world: World, kds: Publisher) -> None:
    kds.down = Answer(status=503)
    with pytest.raises(UndecidedError, match="503"):
        world.kds(kds).fetch(VEK)
    assert world.store.entry(VEK) is None


def test_a_service_that_is_behind_changes_nothing(world: World, kds: Publisher) -> None:
    for newer in kds_of(GUEST, VEK_PATH, begin=pki.BEGIN + timedelta(days=1)):
        world.kds(newer).fetch(MILAN)
    before = world.store.entry(MILAN)
    world.at += timedelta(days=2)
    outcome = world.kds(kds).fetch(MILAN)
    assert outcome.state is State.OLDER
    assert outcome.problem is not None
    assert world.store.entry(MILAN) == before


BAD_VEKS: Final = {
    "another chip's key": GUEST.tree.change(
        "vek", extensions={**snp.extensions(Product.MILAN), ARC + ".4": bytes(64)}
    ).der("vek"),
    "a stranger's key": GUEST.tree.change("vek", signer="stranger").der("vek"),
    "half of the key": GUEST.tree.der("vek")[:500],
    "nothing": b"",
    "a page": b"<html>",
}


@pytest.mark.parametrize("body", BAD_VEKS.values(), ids=BAD_VEKS.keys())
def test_what_is_not_the_key_is_not_kept(world: World, kds: Publisher, body: bytes) -> None:
    kds.faults.append(Answer(body=body))
    with pytest.raises((DecodeError, UntrustedError)):
        world.kds(kds).fetch(VEK)
    assert world.store.entry(VEK) is None
    assert world.kds(kds).fetch(VEK).state is State.FETCHED


@pytest.mark.parametrize("body", [b"", pem(ARK), pem(ARK, ARK, ARK), pem(ARK)[:-9] + pem(ARK), ARK])
def test_a_chain_is_two_certificates(world: World, kds: Publisher, body: bytes) -> None:
    kds.faults.append(Answer(body=body))
    with pytest.raises(DecodeError):
        world.kds(kds).fetch(MILAN)


def test_nobody_publishes_it(world: World, kds: Publisher) -> None:
    with pytest.raises(UsageError, match="no service"):
        world.kds(kds).fetch(subject.dcap_root())
    with Http() as http:
        with pytest.raises(UsageError, match="AMD"):
            AmdKds(http).get(subject.dcap_root())
        with pytest.raises(UsageError, match="Intel"):
            IntelPcs(http).get(VEK)


# Intel


def pcs_of(
    attester: SgxAttester | TdxAttester, tee: str, *, hexadecimal: bool = False
) -> Iterator[Publisher]:
    items = attester.endorsements().items
    parsed = parse_sgx(attester.evidence()) if tee == "sgx" else parse_tdx(attester.evidence())[0]
    chain = platform.pck_chain(parsed.certification)
    fmspc = b"FMSPC!".hex().upper()
    with serve(intel(items, chain, fmspc, tee=tee, hexadecimal=hexadecimal)) as publisher:
        yield publisher


@pytest.fixture
def pcs() -> Iterator[Publisher]:
    yield from pcs_of(PLATFORM, "sgx")


TCB: Final = subject.dcap_tcb("sgx", b"FMSPC!")
PLATFORM: Final = SgxAttester()
ROOT: Final = PLATFORM.endorsements().anchors


@pytest.mark.parametrize("hexadecimal", [False, True], ids=["PCS", "PCCS"])
@pytest.mark.parametrize("tee", ["sgx", "tdx"])
def test_dcap_from_service_to_claims(world: World, tee: str, hexadecimal: bool) -> None:
    attester = SgxAttester() if tee == "sgx" else TdxAttester()
    evidence, anchors = attester.evidence(), attester.endorsements().anchors
    needed = wanted(tee, evidence)
    for service in pcs_of(attester, tee, hexadecimal=hexadecimal):
        outcomes = world.pcs(service, *anchors).fetch_all(needed)
        assert len(service.requests) == len(needed) == 4
    assert {outcome.state for outcome in outcomes} == {State.FETCHED}
    found = load(world.store.folder, tee, evidence, anchors=anchors)
    assert set(found.items) == set(NAMES)
    at = SGX_NOW if tee == "sgx" else NOW
    assert (SGX if tee == "sgx" else TDX).verify(evidence, found, at=at).emulated


def test_signed_documents_are_kept_as_they_came(world: World) -> None:
    """Bytes that no JSON writer would write again, signed as they are."""
    items = PLATFORM.endorsements().items
    odd = items["tcb_info"].replace(b'": ', b'"\n :  ', 3).replace(b"SGX", b"\\u0053GX")
    assert json.loads(odd) == json.loads(items["tcb_info"])
    signature = ecdsa.sign(KEYS["signing"], odd)
    chain = {"TCB-Info-Issuer-Chain": quote(items["tcb_info_issuer_chain"].decode())}
    body = b'{"tcbInfo":' + odd + b',"signature":"' + signature.hex().encode() + b'"}'
    with serve(lambda path, parameters: Answer(body=body, headers=chain)) as service:
        entry = world.pcs(service, *ROOT).fetch(TCB).entry
    assert world.store.items(entry)["tcb_info"] == odd


def test_the_roots_list_alone_finds_its_root(world: World, pcs: Publisher) -> None:
    assert world.pcs(pcs, *ROOT).fetch(subject.dcap_root()).state is State.FETCHED


def test_intels_own_root_list_is_a_file_elsewhere() -> None:
    asked: list[str] = []

    class Spy(Http):
        def get(self, url: str, *, max_body: int) -> Response:
            asked.append(url)
            raise UndecidedError("not asked in tests")

    for base in (INTEL_PCS, "https://pccs.example:8081"):
        with pytest.raises(UndecidedError):
            IntelPcs(Spy(), base).get(subject.dcap_root())
    assert asked == [
        "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der",
        "https://pccs.example:8081/sgx/certification/v4/rootcacrl",
    ]


def test_a_platform_that_intel_does_not_know(world: World, pcs: Publisher) -> None:
    with pytest.raises(UndecidedError, match="404") as caught:
        world.pcs(pcs).fetch(subject.dcap_tcb("sgx", b"other!"))
    assert caught.value.hint == "the service knows no such platform or version"


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({}, "no header TCB-Info-Issuer-Chain"),
        ({"TCB-Info-Issuer-Chain": "%2D%2D"}, "PEM"),
        ({"TCB-Info-Issuer-Chain": ""}, "no certificate|0 certificates|PEM"),
        ({"TCB-Info-Issuer-Chain": "a" * 40_000}, "too long"),
    ],
)
def test_a_document_without_its_chain(
    world: World, pcs: Publisher, headers: dict[str, str], message: str
) -> None:
    items = PLATFORM.endorsements().items
    signature = items["tcb_info_signature"].hex().encode()
    body = b'{"tcbInfo":' + items["tcb_info"] + b',"signature":"' + signature + b'"}'
    pcs.faults.append(Answer(body=body, headers=headers))
    with pytest.raises((DecodeError, UntrustedError), match=message):
        world.pcs(pcs, *ROOT).fetch(TCB)
    assert world.store.entry(TCB) is None


def test_a_pccs_with_another_root_is_not_believed(world: World, pcs: Publisher) -> None:
    with pytest.raises(UntrustedError, match="not among the anchors"):
        world.pcs(pcs).fetch(TCB)


SIGNATURE: Final = "ab" * 64


def test_the_signed_member_is_cut_out_as_it_is() -> None:
    inner = b'{"b" : 1.0,\n"a":"\xc3\xa4\\u00e4"}'
    for body in (
        b'{"x":%s,"signature":"%s"}' % (inner, SIGNATURE.encode()),
        b' { "signature" : "%s" , "x" : %s } \n' % (SIGNATURE.encode(), inner),
    ):
        assert signed_member(body, "x", "test") == (inner, bytes.fromhex(SIGNATURE))


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{}",
        "[]",
        '{"x":{}}',
        '{"x":{},"signature":"ab"}',
        '{"x":{},"signature":1}',
        f'{{"x":{{}},"signature":"{"zz" * 64}"}}',
        f'{{"x":[],"signature":"{SIGNATURE}"}}',
        f'{{"x":{{}},"signature":"{SIGNATURE}"',
        f'{{"x":{{}},"signature":"{SIGNATURE}"}}x',
        f'{{"x":{{}},"signature":"{SIGNATURE}","more":1}}',
        f'{{"x":{{}},"x":{{}},"signature":"{SIGNATURE}"}}',
        f'{{"x":{{}} "signature":"{SIGNATURE}"}}',
        f'{{"x":{{}},,"signature":"{SIGNATURE}"}}',
        f'{{1:{{}},"signature":"{SIGNATURE}"}}',
        '{"x":' + "[" * 100_000,
        "\ud800",
    ],
)
def test_nothing_else_has_a_signed_member(body: str) -> None:
    with pytest.raises(DecodeError):
        signed_member(body.encode("utf-8", "surrogatepass"), "x", "test")


@pytest.mark.parametrize("body", [b"", b"3", b"<html>", b"-----BEGIN X509 CRL-----"])
def test_nothing_else_is_a_list(body: bytes) -> None:
    with pytest.raises(DecodeError):
        crl(Response(url="test", body=body, headers={}))


def test_fetching_what_is_there_asks_nobody(world: World) -> None:
    with serve(lambda path, parameters: Answer(status=500)) as service:
        for original in pcs_of(PLATFORM, "sgx"):
            world.pcs(original, *ROOT).fetch(TCB)
        assert world.pcs(service, *ROOT).fetch(TCB).state is State.CURRENT
        assert service.requests == []


def test_every_error_is_ours(world: World, pcs: Publisher) -> None:
    """Bodies and headers out of the mouth of a service that has gone mad."""
    bodies = [b"", b"\xff" * 100, b"{" * 5000, b"30" * 3, b"0", b'{"tcbInfo":{},"signature":""}']
    fetchers = [world.pcs(pcs), world.kds(pcs)]
    names = ["dcap.root", "dcap.pck.platform", TCB.name, "dcap.qe.sgx", MILAN.name, VEK.name]
    for name in names:
        for body in bodies:
            for header in ("", "%", "%ff%fe", pem(ARK).decode().replace("\n", "%0A")):
                pcs.down = Answer(
                    body=body,
                    headers={
                        "TCB-Info-Issuer-Chain": header,
                        "SGX-PCK-CRL-Issuer-Chain": header,
                        "SGX-Enclave-Identity-Issuer-Chain": header,
                    },
                )
                for fetcher in fetchers:
                    with pytest.raises(BrochError):
                        fetcher.fetch(Subject.of(name))
    assert list(world.store.entries()) == []
