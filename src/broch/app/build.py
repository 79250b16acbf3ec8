"""From a descriptor's modules to packed images with their measurements.

Paths inside an image are relative to the source: a package's files by their place in its folder,
a single file by its name. Further files are named relative to the source's folder if they are in
it, else to the descriptor's. So an image does not depend on where the application lies.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Final, Protocol

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from broch.app.descriptor import Descriptor, ModuleSpec
from broch.app.descriptor_nodes import DeviceKind, Node
from broch.errors import BrochError, DecodeError, MalformedError, UsageError
from broch.image import Image, Interface
from broch.tee import registry
from broch.tee.contract import (
    Compiler,
    CompileSettings,
    Measurement,
    Packed,
    PackSettings,
    SealBinding,
    Tee,
)
from broch.tee.hosting import SharedKeyTee

NATIVE_SOURCES: Final = (".c", ".elf")
_THREADS: Final = 4
_MAX_FILE: Final = 16 * 1024 * 1024  # bytes


class Declarer(Protocol):
    """What finds out a module's interface (:class:`broch.enclave.launcher.Launcher`)."""

    runtime: bytes

    def declare(self, files: Mapping[str, bytes], main: str) -> Interface: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """A module's files as they go into its image."""

    files: Mapping[str, bytes] = field(repr=False)
    main: str
    real: Mapping[str, str]  # path in the image -> path from the descriptor's folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A module, ready to load, and what is expected of its evidence."""

    spec: ModuleSpec
    tee: Tee
    interface: Interface = field(repr=False)
    packed: Packed = field(repr=False)
    measurement: Measurement
    sources: Sources = field(repr=False)

    @property
    def seals_to(self) -> SealBinding | None:
        """What a store of this module is bound to; None where the hardware cannot seal."""
        return next(iter(self.tee.seal_bindings), None)

    @property
    def store_name(self) -> str:
        """The file that holds its sealed store: one for all that can open it."""
        if self.seals_to is SealBinding.CODE:
            return f"{self.spec.name}.{self.measurement.value.hex()[:16]}.store"
        return f"{self.spec.name}.store"

    def real_place(self, place: str) -> str:
        """``modules/controller.py:12`` for ``controller.py:12``."""
        return _real_place(self.sources, place)


def build(
    descriptor: Descriptor,
    *,
    declarer: Declarer,
    deployer: bytes,
    signing_key: Callable[[Tee], RSAPrivateKey | None],
    on_built: Callable[[str], None] = lambda name: None,
    natives: Mapping[str, Built] = MappingProxyType({}),
) -> dict[str, Built]:
    """Build every module of ``descriptor``.

    Args:
        descriptor: the application.
        declarer: finds out interfaces, and knows the runtime closure.
        deployer: Ed25519 public key (32 bytes) that the modules will obey.
        signing_key: gives the key that signs images for a TEE.
        on_built: called with the name of each module that is done, from any thread.
        natives: modules that are built already, by :func:`build_natives`.

    Raises:
        DeclarationError: a module's code is wrong; its place is relative to the descriptor.
        UsageError: a file that cannot be read, a version that the TEE has no room for.
        MalformedError: an image that breaks a rule of images.
    """
    used = sorted({spec.node for spec in descriptor.modules.values()})
    tees = {name: tee_of(descriptor.nodes[name]) for name in used}
    keys = {name: signing_key(tee) for name, tee in tees.items()}

    def build_one(spec: ModuleSpec) -> Built:
        node = spec.node
        built = natives.get(spec.name)
        if built is None:
            built = _build(descriptor, spec, tees[node], declarer, deployer, keys[node])
        on_built(spec.name)
        return built

    with ThreadPoolExecutor(_THREADS, thread_name_prefix="build") as pool:
        futures = {spec.name: pool.submit(build_one, spec) for spec in descriptor.modules.values()}
        return {name: future.result() for name, future in futures.items()}


def build_natives(descriptor: Descriptor) -> dict[str, Built]:
    """Build the modules in C, which need no declarer, and so can be built while that starts.

    Raises:
        BrochError: as :func:`build`.
    """
    specs = [s for s in descriptor.modules.values() if s.source.suffix in NATIVE_SOURCES]

    def build_one(spec: ModuleSpec) -> Built:
        return _build_native(descriptor, spec, tee_of(descriptor.nodes[spec.node]))

    with ThreadPoolExecutor(_THREADS, thread_name_prefix="compile") as pool:
        futures = {spec.name: pool.submit(build_one, spec) for spec in specs}
        return {name: future.result() for name, future in futures.items()}


def tee_of(node: Node) -> Tee:
    """The TEE of a node's device: the emulated kind, or the real hardware.

    Raises:
        UsageError: none is installed under that name.
    """
    native = node.device is DeviceKind.NATIVE
    return registry.find_native(node.tee) if native else registry.find(node.tee)


def _build(
    descriptor: Descriptor,
    spec: ModuleSpec,
    tee: Tee,
    declarer: Declarer,
    deployer: bytes,
    signing_key: RSAPrivateKey | None,
) -> Built:
    if spec.source.suffix in NATIVE_SOURCES:
        return _build_native(descriptor, spec, tee)
    sources = read_sources(spec, descriptor.folder)
    debug = descriptor.policy.debug
    with _placed(sources, descriptor.place("modules", spec.name)):
        interface = declarer.declare(sources.files, sources.main)
        image = Image(
            app=descriptor.app.name,
            module=spec.name,
            files=sources.files,
            main=sources.main,
            interface=interface,
            runtime=declarer.runtime,
            deployer=deployer,
            version=spec.version,
            debug=debug,
        )
        settings = PackSettings(version=spec.version, debug=debug)
        packed = tee.pack(image, settings, signing_key)
        return _built(spec, tee, interface, packed, sources)


def _build_native(descriptor: Descriptor, spec: ModuleSpec, tee: Tee) -> Built:
    """A module in C, or a program that was linked before; for TEEs that run such modules."""
    place = descriptor.place("modules", spec.name, "source")
    if not isinstance(tee, SharedKeyTee):
        problem = f"TEE {tee.name} runs no modules in C inside an application"
        raise UsageError(
            problem, place=place, hint="write it in Python, or put it on a Sancus node"
        )
    sources = read_sources(spec, descriptor.folder)
    with _placed(sources, place):
        packed = _native(descriptor, spec, tee, sources)
        return _built(spec, tee, tee.interface(packed), packed, sources)


def _built(
    spec: ModuleSpec, tee: Tee, interface: Interface, packed: Packed, sources: Sources
) -> Built:
    return Built(
        spec=spec,
        tee=tee,
        interface=interface,
        packed=packed,
        measurement=tee.measure(packed),
        sources=sources,
    )


@contextmanager
def _placed(sources: Sources, place: str) -> Iterator[None]:
    """Say of what is wrong where it stands; ``place`` is that of the module in the descriptor."""
    try:
        yield
    except DecodeError as exc:
        raise MalformedError(exc.problem, place=place, hint=exc.hint) from None
    except BrochError as exc:
        found = _real_place(sources, exc.place) if exc.place else place
        raise type(exc)(exc.message, place=found, hint=exc.hint) from None


def _native(descriptor: Descriptor, spec: ModuleSpec, tee: Tee, sources: Sources) -> Packed:
    if spec.source.suffix == ".elf":
        return Packed(tee=tee.name, data=sources.files[sources.main])
    if not isinstance(tee, Compiler):
        raise UsageError(f"TEE {tee.name} has no compiler: give it an .elf file")
    settings = CompileSettings(
        name=spec.name,
        files=tuple(descriptor.folder / name for name in spec.files),
        version=spec.version,
        debug=descriptor.policy.debug,
        slot=_slot(descriptor, spec),
    )
    return tee.compile(spec.source, settings, None).packed


def _slot(descriptor: Descriptor, spec: ModuleSpec) -> int:
    """Which place in its node's memory a module gets: its position among those of the node."""
    beside = [name for name, other in descriptor.modules.items() if other.node == spec.node]
    return beside.index(spec.name)


def read_sources(spec: ModuleSpec, folder: Path) -> Sources:
    """Read a module's files; raises :class:`UsageError` for one that cannot be read."""
    is_package = spec.source.is_dir()
    base = spec.source if is_package else spec.source.parent
    main = "__init__.py" if is_package else spec.source.name
    found = dict(_package_files(base)) if is_package else {main: spec.source}
    for name in spec.files:
        path = folder / name
        inside = path.is_relative_to(base)
        found[(path.relative_to(base) if inside else PurePosixPath(name)).as_posix()] = path
    return Sources(
        files={inner: _read(path, folder) for inner, path in sorted(found.items())},
        main=main,
        real={inner: _relative(path, folder) for inner, path in found.items()},
    )


def _package_files(base: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(base.rglob("*")):
        parts = path.relative_to(base).parts
        hidden = any(part.startswith(".") or part == "__pycache__" for part in parts)
        if not hidden and path.is_file() and path.suffix != ".pyc":
            yield path.relative_to(base).as_posix(), path


def _read(path: Path, folder: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE + 1)
    except OSError as exc:
        raise UsageError(f"cannot read: {exc.strerror}", place=_relative(path, folder)) from None
    if len(data) > _MAX_FILE:
        raise UsageError(
            f"longer than {_MAX_FILE} bytes, the limit for an image", place=_relative(path, folder)
        )
    return data


def _relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


def _real_place(sources: Sources, place: str) -> str:
    inner, colon, line = place.rpartition(":")
    if not colon:
        return sources.real.get(place, place)
    return f"{sources.real.get(inner, inner)}:{line}"


def interfaces(built: Mapping[str, Built]) -> dict[str, Interface]:
    """The interface of each module, for :func:`broch.app.wiring.wire`."""
    return {name: module.interface for name, module in built.items()}


def ciphers(built: Mapping[str, Built]) -> dict[str, Collection[str]]:
    """The ciphers of those modules that do not speak all of them, for the same."""
    return {
        name: module.tee.ciphers
        for name, module in built.items()
        if isinstance(module.tee, SharedKeyTee)
    }
