"""Batches: the same outcomes in the same order, however many processes work."""

import gc
import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import pytest
from tests.unit.tee.sgx.attester import Attester
from tests.unit.tee.sgx.support import NOW
from tests.unit.tee.tdx.attester import NOW as TDX_NOW
from tests.unit.tee.tdx.attester import Attester as TdxAttester

from broch.attest.batch import SMALLEST, BatchVerifier, Outcome, Refused
from broch.errors import DecodeError, InternalError, UsageError
from broch.tee.contract import Claims, Endorsements
from broch.tee.sgx import TEE
from broch.tee.tdx import VERIFIER

COUNT = 12 * SMALLEST + 7
ATTESTER = Attester()
ENDORSEMENTS = ATTESTER.endorsements()


def quotes() -> list[bytes]:
    made = []
    for number in range(COUNT):
        ATTESTER.body_fields = {"reportdata": number.to_bytes(64, "big")}
        made.append(ATTESTER.evidence())
    return made


QUOTES = quotes()


@pytest.fixture(scope="module", params=[1, 2, 3])
def batch(request: pytest.FixtureRequest) -> Iterator[BatchVerifier]:
    with BatchVerifier(TEE, ENDORSEMENTS, processes=request.param) as made:
        yield made


def numbers(outcomes: Sequence[Outcome]) -> list[int]:
    assert all(isinstance(outcome, Claims) for outcome in outcomes)
    return [
        int.from_bytes(outcome.report_data, "big")
        for outcome in outcomes
        if isinstance(outcome, Claims)
    ]


def test_outcomes_are_in_the_order_of_the_evidence(batch: BatchVerifier) -> None:
    for _ in range(2):  # processes serve one batch after the other
        assert numbers(batch.verify(QUOTES, at=NOW)) == list(range(COUNT))
    assert numbers(batch.verify(QUOTES[5:6], at=NOW)) == [5]
    assert list(batch.verify([], at=NOW)) == []


def test_outcomes_are_those_of_the_verifier(batch: BatchVerifier) -> None:
    expected = [TEE.verify(quote, ENDORSEMENTS, at=NOW) for quote in QUOTES]
    outcomes = batch.verify(QUOTES, at=NOW)
    assert list(outcomes) == expected
    assert list(outcomes) == expected  # and again, when all are unpacked


def test_outcomes_can_be_looked_at_in_any_order(batch: BatchVerifier) -> None:
    outcomes = batch.verify(QUOTES, at=NOW)
    assert len(outcomes) == COUNT
    assert numbers([outcomes[place] for place in reversed(range(COUNT))]) == [*range(COUNT)][::-1]
    assert numbers([outcomes[-1]]) == [COUNT - 1]
    assert numbers(outcomes[COUNT - 9 :: -3]) == [*range(COUNT)][COUNT - 9 :: -3]
    assert outcomes[COUNT:] == []
    for place in (COUNT, -COUNT - 1):
        with pytest.raises(IndexError):
            outcomes[place]


def test_refusals_are_found_in_their_places(batch: BatchVerifier) -> None:
    mixed = list(QUOTES)
    bad = {
        0: b"",
        70: QUOTES[70][:-1] + b"\1",
        130: QUOTES[130][:100] + b"bent" + QUOTES[130][104:],
    }
    for place, evidence in bad.items():
        mixed[place] = evidence
    outcomes = batch.verify(mixed, at=NOW)
    refused = [
        (place, item.code, item.step)
        for place, item in enumerate(outcomes)
        if isinstance(item, Refused)
    ]
    assert refused == [
        (0, "malformed", "format"),
        (70, "malformed", "chain"),  # whose last byte it is
        (130, "untrusted", "signature"),
    ]
    assert len(outcomes) == COUNT
    first = outcomes[0]
    assert isinstance(first, Refused)
    assert first.exit_code == DecodeError.exit_code
    assert "shorter than its header" in first.message


def test_every_refusal_says_why(batch: BatchVerifier) -> None:
    outcomes = batch.verify(QUOTES, at=NOW.replace(year=NOW.year + 30))
    for outcome in outcomes:
        assert isinstance(outcome, Refused)
        assert outcome.code == "untrusted"
        assert "has expired" in outcome.message


def test_claims_with_all_that_only_tdx_has_travel() -> None:
    attester = TdxAttester()
    evidence = [attester.evidence()] * COUNT
    endorsements = attester.endorsements()
    expected = VERIFIER.verify(evidence[0], endorsements, at=TDX_NOW)
    with BatchVerifier(VERIFIER, endorsements, processes=2) as batch:
        assert list(batch.verify(evidence, at=TDX_NOW)) == [expected] * COUNT


def test_the_garbage_collector_is_as_it_was() -> None:
    with BatchVerifier(TEE, ENDORSEMENTS, processes=1) as batch:
        for enabled in (False, True):
            (gc.enable if enabled else gc.disable)()
            try:
                batch.verify(QUOTES[:3], at=NOW)
                assert gc.isenabled() is enabled
            finally:
                gc.enable()


def test_wrong_calls() -> None:
    with pytest.raises(UsageError, match="0 processes"):
        BatchVerifier(TEE, ENDORSEMENTS, processes=0)
    with (
        BatchVerifier(TEE, ENDORSEMENTS, processes=1) as batch,
        pytest.raises(UsageError, match="time zone"),
    ):
        batch.verify(QUOTES, at=NOW.replace(tzinfo=None))


@dataclass
class Interrupted:
    """A verifier during whose work in one process, and at one piece, the user presses Ctrl-C."""

    process: int
    evidence: bytes
    name: str = TEE.name
    title: str = TEE.title
    report_data_size: int = TEE.report_data_size

    def verify(self, evidence: bytes, endorsements: Endorsements, *, at: datetime) -> Claims:
        if evidence == self.evidence and os.getpid() == self.process:
            raise KeyboardInterrupt
        return TEE.verify(evidence, endorsements, at=at)


def test_what_was_interrupted_is_not_taken_for_what_comes_next() -> None:
    first = [QUOTES[0]] * COUNT
    with BatchVerifier(Interrupted(os.getpid(), QUOTES[0]), ENDORSEMENTS, processes=2) as batch:
        batch.verify(QUOTES[1:], at=NOW)
        while True:  # until this process, not the other, was the first to take a chunk
            try:
                batch.verify(first, at=NOW)
            except KeyboardInterrupt:
                break
        assert numbers(batch.verify(QUOTES[1:], at=NOW)) == list(range(1, COUNT))


def test_a_process_that_dies_is_an_error_and_no_lost_evidence() -> None:
    with BatchVerifier(TEE, replace(ENDORSEMENTS), processes=2) as batch:
        batch.verify(QUOTES, at=NOW)
        process = batch._others[0][0]
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        with pytest.raises(InternalError, match="died"):
            batch.verify(QUOTES, at=NOW)
