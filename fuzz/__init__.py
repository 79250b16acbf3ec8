"""Fuzzers: whatever bytes come, a parser returns a value or raises one of our errors."""

from typing import Final

_VERIFIED: Final = (
    *("sgx", "tdx", "snp", "nitro", "psa", "cca", "tpm"),
    *("keystone", "trustzone", "sancus"),
)
NAMES: Final = (  # of fuzz.targets.TARGETS
    *("sgxs", "elf", "sdk_image", "sigstruct", "pem"),
    *(f"evidence_{tee}" for tee in _VERIFIED),
    *(f"collateral_{tee}" for tee in _VERIFIED if tee != "nitro"),
    "event_log_tpm",
    "endorsement_readers",
    *("bundle", "cmw", "published", "attested_tls"),
    *("any_evidence", "policy", "request", "result", "next_tcb_info"),
)
