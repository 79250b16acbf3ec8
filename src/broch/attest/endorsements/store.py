"""A store of endorsements, by content.

    STORE/
      endorsements      "broch endorsements 1": what this folder is
      objects/DIGEST    items, each under its SHA-256
      subjects/NAME     JSON: which items belong together, where they came from, and when
      locks/NAME        held while a subject is fetched

All files have mode 0600 and are replaced whole, so whoever reads sees a subject as it was or as it
is, never half of it. Only what its publisher signed gets in (:mod:`.checks`), and never something
older than what is there: a service or bundle that is behind cannot bring back what was revoked.
Keys that you enrolled and roots that you trust are your own word: they stay in plain folders.
"""

import fcntl
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Self

import msgspec

from broch.attest.endorsements import files
from broch.attest.endorsements.checks import Dates, check
from broch.attest.endorsements.items import MAX_ITEM
from broch.attest.endorsements.subject import Subject
from broch.enclave.device_folder import write_private
from broch.errors import DecodeError, UntrustedError, UsageError

MARKER: Final = "endorsements"
_MARK: Final = b"broch endorsements 1\n"
_MAX_RECORD: Final = 16 * 1024  # bytes
_MAX_SUBJECTS: Final = 100_000


class _Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``subjects/NAME`` holds."""

    source: str
    fetched: datetime
    issued: datetime
    until: datetime
    items: dict[str, str]  # name -> SHA-256, hex


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A subject as the store has it."""

    subject: Subject
    source: str  # URL, or name of the bundle
    fetched: datetime  # when it came from its publisher
    dates: Dates
    digests: Mapping[str, str]  # item -> SHA-256, hex

    def is_current(self, at: datetime) -> bool:
        """Whether its publisher has not promised a newer one before ``at``."""
        return self.dates.issued <= at < self.dates.until


class Store:
    """A folder as above. Safe to use from several threads and processes."""

    def __init__(self, folder: Path) -> None:
        """Use a store that is there; :meth:`create` makes one."""
        self.folder = folder

    @classmethod
    def create(cls, folder: Path) -> Self:
        """The store in ``folder``, made if it is not there yet.

        Raises:
            UsageError: it cannot be made, or the folder holds something else.
        """
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not is_store(folder) and any(folder.iterdir()):
                raise UsageError(
                    "not empty, and no store of endorsements",
                    place=str(folder),
                    hint="name another folder",
                )
            for part in ("objects", "subjects", "locks"):
                (folder / part).mkdir(mode=0o700, exist_ok=True)
            if not is_store(folder):
                write_private(folder / MARKER, _MARK)
        except OSError as exc:
            raise UsageError(f"cannot be made: {exc.strerror}", place=str(folder)) from None
        return cls(folder)

    def entry(self, subject: Subject) -> Entry | None:
        """What is known of a subject, or None.

        Raises:
            DecodeError: the file is damaged.
        """
        path = self._record(subject)
        if not path.exists():
            return None
        data = files.read(path, _MAX_RECORD)
        try:
            record = msgspec.json.decode(data, type=_Record)
        except msgspec.DecodeError as exc:
            raise DecodeError(0, str(exc), what=str(path)) from None
        return Entry(
            subject=subject,
            source=record.source,
            fetched=record.fetched,
            dates=Dates(issued=record.issued, until=record.until),
            digests=record.items,
        )

    def entries(self) -> Iterator[Entry]:
        """Every subject, by name."""
        for name in files.names(self.folder / "subjects", _MAX_SUBJECTS):
            entry = self.entry(Subject.of(name))
            if entry is not None:
                yield entry

    def items(self, entry: Entry) -> dict[str, bytes]:
        """The items of a subject, each with the digest that it should have.

        Raises:
            UsageError: one is missing.
            UntrustedError: one was changed.
        """
        return {name: self._object(digest) for name, digest in entry.digests.items()}

    def put(
        self,
        subject: Subject,
        items: Mapping[str, bytes],
        *,
        source: str,
        fetched: datetime,
        anchors: Sequence[bytes] = (),
    ) -> bool:
        """Keep a subject's items; False if what is there already is newer.

        Raises:
            DecodeError, UntrustedError: they are not what they claim to be; nothing was changed.
            UsageError: they cannot be written.
        """
        dates = check(subject, items, anchors)
        with self.lock(subject, "put"):
            known = self.entry(subject)
            if known is not None and known.dates.issued > dates.issued:
                return False
            record = _Record(
                source=source,
                fetched=fetched.astimezone(UTC),
                issued=dates.issued,
                until=dates.until,
                items={name: hashlib.sha256(data).hexdigest() for name, data in items.items()},
            )
            try:
                # Items first: a record names only what is there.
                for name, data in items.items():
                    path = self.folder / "objects" / record.items[name]
                    if not path.exists():
                        write_private(path, data)
                write_private(self._record(subject), msgspec.json.encode(record))
            except OSError as exc:
                place = str(self.folder)
                raise UsageError(f"cannot be written: {exc.strerror}", place=place) from None
        return True

    @contextmanager
    def lock(self, subject: Subject, purpose: str = "fetch") -> Iterator[None]:
        """Hold a subject: others, threads and processes, wait here."""
        path = self.folder / "locks" / f"{subject}.{purpose}"
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise UsageError(f"cannot be locked: {exc.strerror}", place=str(path)) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _record(self, subject: Subject) -> Path:
        subject.match()  # nothing else may become part of a path
        return self.folder / "subjects" / subject.name

    def _object(self, digest: str) -> bytes:
        if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
            raise DecodeError(0, f"not a digest: {digest!r:.80}", what=str(self.folder))
        path = self.folder / "objects" / digest
        data = files.read(path, MAX_ITEM)
        if hashlib.sha256(data).hexdigest() != digest:
            raise UntrustedError(
                "the content is not that of its name",
                place=str(path),
                hint="delete the file, and fetch or import again",
            )
        return data


def is_store(folder: Path) -> bool:
    """Whether ``folder`` says that it is a store.

    Raises:
        DecodeError: it is one of another version.
    """
    path = folder / MARKER
    if not path.is_file():
        return False
    found = files.read(path, 256)
    if found != _MARK:
        raise DecodeError(0, f"{found[:40]!r}, expected {_MARK!r}", what=str(path))
    return True
