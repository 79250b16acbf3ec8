"""Nodes on real hardware: whether it is here, what is believed of it, what is accepted of it.

Evidence of a native device is about the whole system (:mod:`broch.tee.guest`). Which system, whose
firmware, and how old, is for the node's policy to say; that it is *our* image which asks, the
report data says. So a module is let in when the policy accepts the system, and the evidence binds
the image that was built.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from broch.app.deployer import Admission
from broch.app.descriptor import Descriptor
from broch.app.descriptor_nodes import DeviceKind, Node
from broch.attest import Policy
from broch.attest.reference import Reference, TdxReference, TpmReference
from broch.enclave import packets
from broch.errors import BrochError, MalformedError, PolicyError, UndecidedError
from broch.tee import registry
from broch.tee.contract import Endorsements
from broch.tee.guest import GuestMeasurement, bind
from broch.tee.kernel import Linux

#: Where the kernel offers evidence of a TEE: one of these.
DEVICES: Final = {
    "sgx": ("/dev/attestation",),
    "tdx": ("/sys/kernel/config/tsm/report", "/dev/tdx_guest"),
    "snp": ("/sys/kernel/config/tsm/report", "/dev/sev-guest"),
    "nitro": ("/dev/nsm",),
    "tpm": ("/dev/tpmrm0",),
}
_TITLES: Final = {
    "sgx": "Gramine",
    "tdx": "TDX",
    "snp": "SEV-SNP",
    "nitro": "Nitro",
    "tpm": "TPM",
    "trustzone": "TrustZone",
    "keystone": "Keystone",
}
_NO_LIST: Final = "unsafe_no_crl"
_HAVE_LISTS: Final = frozenset({"snp", "tpm"})  # whose verifiers ask for a list, and know that item
_MEASURED: Final = frozenset(range(8))  # of a TPM: later ones can be reset, or are of others
_BOOTED: Final = frozenset({1, 2})  # RTMRs with boot loader, kernel, its command line and initrd


def check_device(descriptor: Descriptor, node: Node, root: Path) -> None:
    """Whether a native node can be started here, and its policy can be used; others always can.

    Raises:
        UndecidedError: its hardware is not here, or Broch cannot use it.
        MalformedError: it has no policy, or one that cannot be read.
        PolicyError: its policy does not say which system is accepted.
    """
    if node.device is not DeviceKind.NATIVE:
        return
    place = descriptor.place("nodes", node.name, "device")
    title, files = _TITLES.get(node.tee, node.tee), DEVICES.get(node.tee, ())
    if node.tee not in registry.native_names():
        raise UndecidedError(
            f"this version of Broch cannot use {title} devices",
            place=place,
            hint=f"of real hardware it can use: {', '.join(registry.native_names())}",
        )
    kernel = Linux(root)
    if files and not any(map(kernel.exists, files)):
        verb = "is" if len(files) == 1 else "are"
        raise UndecidedError(
            f"no {title} device: {' and '.join(files)} {verb} missing",
            place=place,
            hint=f"run the node on a machine with {title}; broch doctor shows what is here",
        )
    if node.tee == "sgx" and not shares_with_processes():
        raise UndecidedError(
            "Gramine lets processes share no memory and pass no descriptors, and nodes need both",
            place=place,
            hint="use Gramine's evidence and keys without a node: see docs/native-nodes.md",
        )
    try:
        read_policy(node)
    except BrochError as exc:
        place = descriptor.place("nodes", node.name, "policy")
        raise type(exc)(str(exc), place=place, hint=exc.hint) from None


def evidence_devices(node: Node, root: Path) -> tuple[Path, ...]:
    """What only the machine of a native node may open, and its agent's host functions may not.

    Whoever can ask the hardware for evidence can have any image named in it.
    """
    if node.device is not DeviceKind.NATIVE:
        return ()
    return tuple(root / path.lstrip("/") for path in DEVICES.get(node.tee, ()))


def shares_with_processes() -> bool:
    """Whether this system can do what a node's processes need of each other; tried, not guessed.

    Gramine 1.5 has neither (its features.md, "UNIX domain sockets" and "Shared memory").
    """
    try:
        ours, theirs = packets.pair()
        with ours, theirs:
            memory = packets.memory_file("broch-probe", b"?")
            try:
                packets.send(ours, b"?", (memory,))
                packet = packets.receive(theirs)
            finally:
                packets.close_all((memory,))
        received = [] if packet is None else packet[1]
        packets.close_all(received)
    except (OSError, BrochError):
        return False
    return len(received) == 1


def read_policy(node: Node) -> Policy:
    """What a native node's policy file accepts.

    Raises:
        MalformedError: there is none, or it cannot be read.
        PolicyError: it does not say which system is accepted.
    """
    from broch.attest import policy_file

    if node.policy is None:
        raise MalformedError(
            f"native node {node.name} has no policy",
            hint='write policy = "FILE.toml": which system and firmware is accepted',
        )
    policy = policy_file.load(node.policy)
    reference = policy.references.get(node.tee)
    if reference is None:
        raise PolicyError(
            f"the policy of node {node.name} has no reference values for {node.tee}",
            hint=f"add [{node.tee}] to {node.policy.name}",
        )
    if lacks := _lacks(reference):
        raise PolicyError(
            f"the policy of node {node.name} does not say which system is accepted: {lacks}",
            hint="measure the system image that you trust, and add its values",
        )
    return policy


def _lacks(reference: Reference) -> str:
    """What a policy must name for a system, besides what every policy names; empty: nothing.

    A measurement covers only the firmware where the rest of the boot is in registers.
    """
    if reference.allow_any_measurement:
        return "allow_any_measurement accepts any"
    if isinstance(reference, TdxReference) and not reference.rtmrs.keys() >= _BOOTED:
        return "it has no values for RTMR 1 and 2, which measure kernel and initrd"
    if isinstance(reference, TpmReference) and not _MEASURED & {*reference.pcrs.get("sha256", ())}:
        return "it names none of registers 0 to 7 (SHA-256), which measure the boot"
    return ""


class NativeAdmission(Admission):
    """One join with a module on a native device.

    Args:
        node: the module's node.
        **others: as of :class:`Admission`; ``endorsements`` is what the machine handed out.
    """

    def __init__(self, *, node: Node, **others: Any) -> None:
        super().__init__(**others)
        self._node = node

    def _endorsed(self, evidence: bytes) -> Endorsements:
        """The node's endorsements; what the machine handed out fills gaps, and is no root."""
        from broch.attest.endorsements import load

        found = load(self._node.endorsements, self._node.tee, evidence)
        items = {**self._endorsements.items, **found.items}
        # Only a policy can say that going without a list is all right, never a file or a machine.
        items.pop(_NO_LIST, None)
        if self._node.tee in _HAVE_LISTS and "crl" not in items and self._accepted_without_lists():
            items[_NO_LIST] = b""
        # The cache is by content, and so is right for a folder that was filled anew.
        cache = self._endorsements.cache
        return Endorsements(anchors=found.anchors, items=items, cache=cache)

    def _accepted_without_lists(self) -> bool:
        return read_policy(self._node).allow_no_revocation

    def _bound(self, data: bytes) -> bytes:
        assert isinstance(self._expected, GuestMeasurement)
        return bind(self._expected.image, data, self._tee.report_data_size)

    def _accepted(self) -> Policy:
        """The node's policy; it relaxes nothing that the descriptor does not."""
        policy, outer = read_policy(self._node), self._policy
        return replace(
            policy,
            emulated=policy.emulated and outer.emulated,
            allow_debug=policy.allow_debug and outer.allow_debug,
        )
