"""What `broch inspect` shows of evidence that nobody has verified."""

from tests.unit.attest import support

from broch.attest.formats import Evidence
from broch.attest.inspection import taken_apart
from broch.tee.snp.report import POLICY_BITS


def test_bits_of_snp_by_name() -> None:
    case = support.snp(policy=0x20000 | POLICY_BITS["DEBUG"], platform_info=1 << 5)
    report = taken_apart(Evidence(tee="snp", data=case.evidence))["report"]
    assert report["policy_bits"] == ["DEBUG"]
    assert report["platform_bits"] == ["ALIAS_CHECK_COMPLETE"]
    assert report["signing_key"] == "VCEK"
