"""Verifying evidence, against dcap-qvl (Rust) in the same run, on the same quotes and collateral.

Quotes are made here, each with other report data, by an attester with a certificate chain of
Intel's shape: 16 TCB levels and 57 revoked certificates, as genuine collateral has.

- *cached*: the collateral and the platform's chain were verified before and are in the caller's
  cache; what is left is to parse, to check times, and one signature a quote. dcap-qvl keeps
  nothing: it verifies all collateral for each quote. So the ratio compares what the two can do,
  and not the same work. A quoting enclave keeps the report that certifies its attestation key, so
  that is verified once as well, not once a quote.
- *cold*: nothing is cached, as for the first quote of a platform. This is the same work on both
  sides, and standard error says where the time of ours goes.
- *batch*: 10,000 quotes in one call on two cores over one, by the clock on the wall: it needs two
  cores that have nothing else to do. What another process found is unpacked when somebody looks;
  ``batch_2_cores_all_read`` includes a look at every claim. ``two_processes_speedup`` is what the
  machine itself gives: two processes that verify half each and have nothing to do with each other.

ECDSA on P-384 is most of an SNP report's time. ``snp_cached_per_s`` is what an installation with
the extra ``fast`` gets (AWS-LC), ``snp_cached_openssl_per_s`` one without.
"""

import cProfile
import gc
import json
import pstats
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import dcap_qvl
from common import Figure, run

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.pki import NOW as SNP_NOW
from tests.unit.tee.sgx import attester as sgx_attester
from tests.unit.tee.sgx import support as sgx_support
from tests.unit.tee.sgx.attester import Attester as SgxAttester
from tests.unit.tee.snp.attester import Attester as SnpAttester
from tests.unit.tee.tdx import attester as tdx_attester
from tests.unit.tee.tdx.attester import Attester as TdxAttester

from broch.attest.batch import BatchVerifier
from broch.crypto import ecdsa
from broch.tee import snp, tdx
from broch.tee.contract import Endorsements
from broch.tee.dcap import emulated
from broch.tee.dcap.collateral import NAMES
from broch.tee.sgx import TEE as SGX
from broch.tee.verifier import Verifier

TURNS: Final = 7  # of each side, alternating; the best counts, since other work only slows down
QUOTES: Final = 500
BATCH: Final = 10_000
BATCH_TURNS: Final = 5
LEVELS: Final = 16
REVOKED: Final = 57
HEX: Final = ("root_ca_crl", "pck_crl", "tcb_info_signature", "qe_identity_signature")


def seconds(work: Callable[[], object], clock: Callable[[], float]) -> float:
    """How long ``work`` took by a clock; to drop what it made is not its work."""
    begin = clock()
    made = work()
    took = clock() - begin
    del made
    return took


def higher_levels(document: dict[str, Any]) -> None:
    """Put levels in front that the platform does not reach, as genuine documents have them."""
    own = document["tcbLevels"][0]
    components = [
        [{"svn": item["svn"] + above} for item in own["tcb"]["sgxtcbcomponents"]]
        for above in range(LEVELS, 0, -1)
    ]
    document["tcbLevels"] = [
        {**own, "tcb": {**own["tcb"], "sgxtcbcomponents": item}} for item in components
    ] + [own]


def sgx_evidence(count: int) -> tuple[list[bytes], Endorsements]:
    """Quotes of one platform with different report data."""
    attester = SgxAttester(edit_tcb_info=higher_levels)
    quotes = []
    for number in range(count):
        attester.body_fields = {"reportdata": number.to_bytes(64, "big")}
        quotes.append(attester.evidence())
    made = attester.endorsements()
    begin, end = sgx_attester.BEGIN, sgx_attester.BEGIN + timedelta(days=30)
    issuer = attester.certificates["ca"].subject
    serials = tuple(range(1000, 1000 + REVOKED))
    crl = emulated.crl(issuer, sgx_attester.KEYS["ca"], begin, serials, end)
    return quotes, replace(made, items={**made.items, "pck_crl": crl})


def tdx_evidence(count: int) -> tuple[list[bytes], Endorsements]:
    """The same of one trust domain."""
    attester = TdxAttester(edit=higher_levels)
    quotes = []
    for number in range(count):
        attester.report = replace(tdx_attester.REPORT, report_data=number.to_bytes(64, "big"))
        quotes.append(attester.evidence())
    return quotes, attester.endorsements()


def snp_evidence(count: int) -> tuple[list[bytes], Endorsements]:
    """Reports of one guest."""
    attester = SnpAttester()
    reports = []
    for number in range(count):
        reports.append(attester.bend(report_data=number.to_bytes(64, "big")).evidence())
    return reports, attester.endorsements()


def fresh(endorsements: Endorsements) -> Endorsements:
    """The same without anything cached."""
    return Endorsements(anchors=endorsements.anchors, items=endorsements.items)


def each(
    verifier: Verifier, quotes: Sequence[bytes], endorsements: Endorsements, at: datetime
) -> Callable[[], None]:
    """Verify all with the cache of these endorsements."""

    def work() -> None:
        for quote in quotes:
            verifier.verify(quote, endorsements, at=at)

    return work


def by_dcap_qvl(
    quotes: Sequence[bytes], endorsements: Endorsements, at: datetime
) -> Callable[[], None]:
    """Verify all with the peer."""
    items = endorsements.items
    document = {
        name: items[name].hex() if name in HEX else items[name].decode() for name in NAMES
    } | {"pck_crl_issuer_chain": items["tcb_info_issuer_chain"].decode()}
    collateral = dcap_qvl.QuoteCollateralV3.from_json(json.dumps(document))
    root, now = endorsements.anchors[0], int(at.timestamp())

    def work() -> None:
        for quote in quotes:
            dcap_qvl.verify_with_root_ca(quote, collateral, root, now)

    return work


def rates(*works: Callable[[], None], count: int) -> list[float]:
    """Pieces of evidence a second, of each; in turns."""
    for work in works:
        work()  # warm
    # Seconds of the processor: what a core does, whatever else the machine has to do.
    turns = [[seconds(work, time.process_time) for work in works] for _ in range(TURNS)]
    return [count / min(times) for times in zip(*turns, strict=True)]


def dcap_figures(
    name: str, verifier: Verifier, quotes: list[bytes], endorsements: Endorsements, at: datetime
) -> list[Figure]:
    """Cached against the peer."""
    cached = each(verifier, quotes, endorsements, at)
    ours, theirs = rates(cached, by_dcap_qvl(quotes, endorsements, at), count=len(quotes))
    return [
        Figure(name=f"{name}_cached_per_s", value=ours, unit="quotes/s"),
        Figure(name=f"dcap_qvl_{name}_per_s", value=theirs, unit="quotes/s"),
        Figure(name=f"{name}_cached_vs_dcap_qvl", value=ours / theirs, unit="x", bar=">= 2"),
    ]


def cold_figures(quotes: list[bytes], endorsements: Endorsements, at: datetime) -> list[Figure]:
    """With nothing cached against the peer, and where the time goes."""

    def cold() -> None:
        for quote in quotes:
            SGX.verify(quote, fresh(endorsements), at=at)

    ours, theirs = rates(cold, by_dcap_qvl(quotes, endorsements, at), count=len(quotes))
    profile(cold, len(quotes))
    return [
        Figure(name="sgx_cold_per_s", value=ours, unit="quotes/s"),
        Figure(name="sgx_cold_vs_dcap_qvl", value=ours / theirs, unit="x", bar=">= 0.15"),
    ]


# What a function belongs to, by the file and name that cProfile gives it; the first that fits.
PARTS: Final = (
    ("ECDSA", ("ECPublicKey", "ec_verify", "crypto/ecdsa", "from_public_bytes", "encode_dss")),
    ("X.509 certificates and lists", ("x509", "cryptography", "base64", "binascii")),
    ("JSON of TCB info and QE identity", ("json", "dcap/tcb", "fullmatch", "fromisoformat")),
    ("SGX extension of the PCK certificate", ("pckext",)),
    ("the quote", ("dcap/quote", "dcap/report", "sgx/verify")),
)


def profile(work: Callable[[], None], count: int) -> None:
    """Print to standard error where the time of ``work`` goes."""
    profiler = cProfile.Profile()
    profiler.runcall(work)
    spent: dict[str, float] = {}
    for (file, _, function), row in pstats.Stats(profiler).stats.items():  # type: ignore[attr-defined]
        place = f"{file} {function}"
        part = next((name for name, keys in PARTS if any(key in place for key in keys)), "the rest")
        spent[part] = spent.get(part, 0.0) + row[2]
    total = sum(spent.values())
    print(f"cold: {total / count * 1000:.1f} ms a quote under the profiler", file=sys.stderr)
    for part, seconds in sorted(spent.items(), key=lambda item: -item[1]):
        print(f"  {seconds / total:4.0%}  {part}", file=sys.stderr)


@contextmanager
def only_openssl() -> Iterator[None]:
    """As if the extra ``fast`` were not installed."""
    loaded, ecdsa._aws_lc = ecdsa._aws_lc, lambda: None  # type: ignore[assignment]
    try:
        yield
    finally:
        ecdsa._aws_lc = loaded


def snp_figures() -> list[Figure]:
    """Reports a second with the chain cached."""
    reports, endorsements = snp_evidence(QUOTES)
    slow = fresh(endorsements)
    with only_openssl():
        openssl = rates(each(snp.VERIFIER, reports, slow, SNP_NOW), count=QUOTES)[0]
    fast = rates(each(snp.VERIFIER, reports, endorsements, SNP_NOW), count=QUOTES)[0]
    if not ecdsa.is_fast_installed():
        print("the extra 'fast' is not installed: OpenSSL throughout", file=sys.stderr)
    return [
        Figure(name="snp_cached_per_s", value=fast, unit="reports/s", bar=">= 2,000"),
        Figure(name="snp_cached_openssl_per_s", value=openssl, unit="reports/s"),
    ]


def half(
    connection: Connection, quotes: list[bytes], endorsements: Endorsements, at: datetime
) -> None:
    """Another process: verify all, once for each word of the caller's."""
    gc.disable()
    work = each(SGX, quotes, endorsements, at)
    while True:
        try:
            connection.recv()
        except EOFError:
            return
        work()
        connection.send(None)


@contextmanager
def two_processes(
    quotes: list[bytes], endorsements: Endorsements, at: datetime
) -> Iterator[Callable[[], None]]:
    """Verify all in two processes that share nothing: this one, and another with half of them."""
    middle = len(quotes) // 2
    own = each(SGX, quotes[:middle], fresh(endorsements), at)
    context = get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=half, args=(there, quotes[middle:], endorsements, at))
    process.start()
    there.close()

    def work() -> None:
        here.send(None)
        gc.disable()
        own()
        gc.enable()
        here.recv()

    with here:
        yield work
    process.join()


def batch_figures(quotes: list[bytes], endorsements: Endorsements, at: datetime) -> list[Figure]:
    """One batch on two cores over one; the processes are there already."""
    with (
        BatchVerifier(SGX, fresh(endorsements), processes=1) as one,
        BatchVerifier(SGX, fresh(endorsements), processes=2) as two,
        two_processes(quotes, endorsements, at) as apart,
    ):
        assert list(one.verify(quotes, at=at)) == list(two.verify(quotes, at=at))
        works: list[Callable[[], object]] = [
            partial(one.verify, quotes, at=at),
            partial(two.verify, quotes, at=at),
            lambda: deque(two.verify(quotes, at=at), maxlen=0),
            apart,
        ]
        turns = [[seconds(work, time.perf_counter) for work in works] for _ in range(BATCH_TURNS)]
    alone, together, read, raw = (min(times) for times in zip(*turns, strict=True))
    return [
        Figure(name="batch_per_s", value=len(quotes) / together, unit="quotes/s"),
        Figure(name="batch_2_cores_speedup", value=alone / together, unit="x", bar=">= 1.7"),
        Figure(name="batch_2_cores_all_read", value=alone / read, unit="x"),
        Figure(name="two_processes_speedup", value=alone / raw, unit="x"),
    ]


def figures() -> list[Figure]:
    """Measure."""
    quotes, endorsements = sgx_evidence(BATCH)
    some, at = quotes[:QUOTES], sgx_support.NOW
    found = dcap_figures("sgx", SGX, some, endorsements, at)
    found += cold_figures(quotes[:100], endorsements, at)
    found += dcap_figures("tdx", tdx.VERIFIER, *tdx_evidence(QUOTES), tdx_attester.NOW)
    found += snp_figures()
    return found + batch_figures(quotes, endorsements, at)


if __name__ == "__main__":
    run(figures)
