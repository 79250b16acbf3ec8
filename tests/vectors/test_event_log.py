"""The event log of a real machine: a trust domain's, in the same form as a TPM's."""

import gzip
from pathlib import Path

from broch.tee.tpm.event_log import EventLog
from broch.tee.tpm.reader import SHA384

LOG = "evidence/tdx/go-tdx-guest/ccel_data.dat.gz"
# Computed apart from the reader, with struct and hashlib; registers here are MR indices.
REPLAYED = {
    1: "3fa2f61f395b7f5feefb4ec2df61297f109ad8abcd6410c1b7df60f21f37b192"
    "97fc35e544039c7e1edece752afd17f6",
    2: "f62dbc072bd5d3f3438b7b35c39a727f5aea2ffc2473f43723953f530daf6250"
    "4f0a7944aa62c41a86e8a878c2b122c1",
    3: "4969684dc87381fc3b3134176c8d8806eaf0a901859f5f70cfae8d17714b46c1"
    "0a8de219048c9fc09f11f381a6fbe7c1",
}


def test_a_real_log(vectors: Path) -> None:
    area = gzip.decompress((vectors / LOG).read_bytes())
    # The ACPI area is longer than what is in it; and the first event is of MR 1, a TPM's of PCR0.
    log = EventLog.from_bytes(b"\0" + area.rstrip(b"\xff")[1:])
    assert log.banks == (SHA384,)
    assert len(log.events) == 43
    assert {index: value.hex() for index, value in log.replay(SHA384).items()} == REPLAYED
