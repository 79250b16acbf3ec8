"""OP-TEE's storage keys for the hardware key of zeros that simulators have (QEMU, CFG_INSECURE).

The figures were computed from core/tee/tee_fs_key_manager.c and core/kernel/huk_subkey.c
(OP-TEE/optee_os at d5001fe) by an implementation of its own, apart from this one.
"""

from uuid import UUID

from broch.tee.trustzone.keys import derive_ssk, derive_tsk

HELLO_WORLD = UUID("8aaaf200-2450-11e4-abe2-0002a5d5c51b")  # of optee_examples


def test_storage_key_of_a_simulator() -> None:
    assert derive_ssk(bytes(16)).hex() == (
        "79b082214416d9f43a9be1cb6c4abaa5435c1a1a55b8ae51c3a6857460952147"
    )


def test_storage_key_of_hello_world() -> None:
    assert derive_tsk(derive_ssk(bytes(16)), HELLO_WORLD).hex() == (
        "b0d728ba70cbd245f5cd215bea47c67e02c0506b45d1c57ee90fb7f0d8cae175"
    )
