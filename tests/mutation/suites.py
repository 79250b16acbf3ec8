"""Every kind of evidence: its mutations, and it without one."""

from collections.abc import Callable, Iterator
from typing import Final

from . import amd, arm, aws, intel, ours, tcg
from .case import Mutation

SUITES: Final[dict[str, Callable[[], Iterator[Mutation]]]] = {
    "sgx": intel.sgx,
    "tdx": intel.tdx,
    "snp": amd.snp,
    "nitro": aws.nitro,
    "psa": arm.psa,
    "cca": arm.cca,
    "tpm": tcg.tpm,
    "keystone": ours.keystone,
    "trustzone": ours.trustzone,
    "sancus": ours.sancus,
}
SOUND: Final[dict[str, Callable[[], Mutation]]] = {
    "sgx": intel.sound_sgx,
    "tdx": intel.sound_tdx,
    "snp": amd.sound,
    "nitro": aws.sound,
    "psa": arm.sound_psa,
    "cca": arm.sound_cca,
    "tpm": tcg.sound,
    "keystone": ours.sound_keystone,
    "trustzone": ours.sound_trustzone,
    "sancus": ours.sound_sancus,
}
