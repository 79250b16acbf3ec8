"""Endorsements at hand, for a verifier that runs for long.

Reading a store for each quote would cost more than verifying the quote. A :class:`Shelf` keeps
what it has loaded until the files behind it change, and gives all of it one
:class:`~broch.tee.cache.VerificationCache`: chains and collateral are verified once, by content,
and each further quote of a platform costs its own signatures only.
"""

import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from broch.attest.endorsements.folder import ANCHORS
from broch.attest.endorsements.loading import load
from broch.attest.endorsements.needs import SERVED
from broch.attest.endorsements.store import is_store
from broch.errors import UsageError
from broch.tee.cache import VerificationCache
from broch.tee.contract import Endorsements

MAX_LOADED: Final = 256  # platforms
# A file system's clock ticks in milliseconds: a file that is younger could change unnoticed.
_SETTLED: Final = 100_000_000  # nanoseconds
_Stamp = tuple[tuple[str, int, int, int], ...]  # path, inode, size, time of change


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loaded:
    stamp: _Stamp
    endorsements: Endorsements


class Shelf:
    """What :func:`broch.attest.endorsements.load` gives, kept. Threads may share it.

    Args:
        folder: a plain folder, a store, or None: only the roots in this package.
        anchors: roots (DER) that you trust besides those that are pinned.

    Raises:
        DecodeError: the folder is a store of another version.
    """

    def __init__(self, folder: Path | None, *, anchors: Sequence[bytes] = ()) -> None:
        self._folder = folder
        self._is_store = folder is not None and is_store(folder)
        self._anchors = tuple(anchors)
        self._cache = VerificationCache()
        self._loaded: dict[tuple[str, bytes], _Loaded] = {}
        self._lock = threading.Lock()

    def get(self, tee: str, evidence: bytes) -> Endorsements:
        """The endorsements for ``evidence``; see :func:`broch.attest.endorsements.load`."""
        # A plain folder holds one device's; what a store gives depends on the platform.
        key = (tee, platform_of(tee, evidence) if self._is_store and tee in SERVED else b"")
        stamp = tuple(self._stamps(tee))
        with self._lock:
            known = self._loaded.get(key)
        if known is not None and known.stamp == stamp:
            return known.endorsements
        found = load(self._folder, tee, evidence, anchors=self._anchors)
        made = Endorsements(anchors=found.anchors, items=found.items, cache=self._cache)
        newest = max((changed for *_, changed in stamp), default=0)
        if time.time_ns() - newest > _SETTLED:
            self._keep(key, _Loaded(stamp=stamp, endorsements=made))
        return made

    def _keep(self, key: tuple[str, bytes], loaded: _Loaded) -> None:
        with self._lock:
            self._loaded.pop(key, None)
            while len(self._loaded) >= MAX_LOADED:
                del self._loaded[next(iter(self._loaded))]
            self._loaded[key] = loaded

    def _stamps(self, tee: str) -> Iterator[tuple[str, int, int, int]]:
        """Different after any file that could be read was replaced, added or taken away."""
        if self._folder is None:
            return
        try:
            if self._is_store:
                # A store replaces files by renaming, which changes the folder.
                yield _stamp("", (self._folder / "subjects").stat())
                return
            for part in ("", ANCHORS, tee, f"{tee}/{ANCHORS}"):
                folder = self._folder / part
                if folder.is_dir():
                    with os.scandir(folder) as entries:
                        yield from sorted(_stamp(entry.path, entry.stat()) for entry in entries)
        except OSError as exc:
            raise UsageError(f"cannot be read: {exc.strerror}", place=str(self._folder)) from None


def _stamp(path: str, status: os.stat_result) -> tuple[str, int, int, int]:
    return path, status.st_ino, status.st_size, status.st_mtime_ns


def platform_of(tee: str, evidence: bytes) -> bytes:
    """What decides which endorsements of a store evidence needs; not believed.

    Raises:
        DecodeError: not evidence of ``tee``.
    """
    if tee == "sgx":
        from broch.tee.sgx.verify import parse as parse_sgx

        return parse_sgx(evidence).certification.cert_data
    if tee == "tdx":
        from broch.tee.tdx.verify import parse as parse_tdx

        return parse_tdx(evidence)[0].certification.cert_data
    from broch.tee.snp.report import Report

    report = Report.from_bytes(evidence)
    cpu = bytes((report.version, report.cpuid_family, report.cpuid_model, report.signing_key))
    return cpu + report.reported_tcb + report.chip_id
