"""Modules in C for Sancus: compiled with Broch's runtime, linked at the place of a slot.

    author's files, runtime -> objects
    drivers' names in them  -> an object for each driver, a script for the linker
    link                    -> and again, if variables begin with values: these go into the text
    drivers' text           -> their identities, into the module's text (docs/sancus-abi.md)

The runtime is in ``native/sancus`` of the package. All that is linked is in the module's text, and
measured. Nothing in the result depends on where or when it was built.
"""

import io
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final

from elftools.elf.elffile import ELFFile

from broch.cpu.msp430 import TooLargeError, read_elf
from broch.errors import BrochError, DecodeError, MalformedError, UsageError
from broch.image import Shape
from broch.image.toolchain import INCLUDE, NATIVE, Toolchain, find
from broch.tee.contract import Compiled, CompileSettings, Packed
from broch.tee.sancus import memory
from broch.tee.sancus.layout import Layout
from broch.tee.sancus.linking import (
    NO_STACK,
    TEXT_FULL,
    Driver,
    first_values,
    linker_script,
    put_identities,
)
from broch.tee.sancus.module_file import MAX_DRIVERS, read_module

MAX_VALUE: Final = 256  # bytes of a value that crosses, as msgpack
KIT: Final = NATIVE / "sancus"
_RUNTIME: Final = (
    *("arith.S", "codec.c", "connections.c", "dispatch.c", "drivers.c", "entry.S", "records.c"),
)
FLAGS: Final = (
    *("-std=gnu17", "-Os", "-ffreestanding", "-fno-common", "-fno-jump-tables"),
    *("-fno-unwind-tables", "-fno-asynchronous-unwind-tables", "-ffunction-sections"),
    *("-fdata-sections", "-Wno-deprecated-non-prototype", "-Wno-unused-command-line-argument"),
    *("-Werror=implicit-function-declaration", "-Werror=implicit-int", "-Werror=return-type"),
    *("-Werror=incompatible-pointer-types", "-Werror=int-conversion"),
    *("-I", str(INCLUDE)),
)
# Each function looks whether the stack has room; runtime and drivers do without.
_AUTHORS: Final = (
    *FLAGS,
    *("-finstrument-function-entry-bare", "-Wframe-larger-than=512", "-Werror=frame-larger-than"),
    *("-Werror=vla", "-Werror=alloca"),  # which it does not look at
)
_LINK: Final = (
    *("--gc-sections", "--orphan-handling=error", "--fatal-warnings", "--nmagic"),
    *("-z", "noexecstack"),
)
_NAMES: Final = ".broch.driver_names"
_NUMBER: Final = r"(0[xX][0-9a-fA-F]{1,4}|[0-9]{1,5})"
_DRIVER: Final = re.compile(rf"([A-Za-z_][A-Za-z0-9_]*) {_NUMBER} {_NUMBER}")
_FLOATS: Final = re.compile(r"__mspabi_\w*(?:[fd]$|[fd][a-z]*$)")
_PORTS: Final = "broch/sancus.h says which names, types, periods and vectors there are"
_NO_LIBC: Final = (
    "there is no libc on a microcontroller: broch/sancus.h says which functions there are; "
    "further C files are named with --file"
)


def build(source: Path, settings: CompileSettings) -> Compiled:
    """Build a module: an ELF file as docs/sancus-abi.md has it.

    Raises:
        MalformedError: a source does not compile (the place is ``file:line``), or declares what a
            module cannot have.
        TooLargeError: text or variables do not fit the slot.
        UsageError: no compiler, no such file, no such slot, a setting that Sancus does not have.
    """
    _check(settings)
    sources = [source, *settings.files]
    for file in sources:
        if not file.is_file():
            raise UsageError("there is no such file", place=str(file))
    tools = find("msp430")
    with tempfile.TemporaryDirectory(prefix="broch-sancus-") as name:
        folder = Path(name)
        objects = _compile_all(tools, sources, folder)
        drivers = _drivers(objects[: len(sources)], source, settings)
        for driver in drivers:
            objects.append(_compile_driver(tools, driver, folder))
        place = memory.slot(settings.slot)
        try:
            linked = _link(tools, folder, objects, _part_name(settings), place, drivers)
        except MalformedError as exc:
            raise _unlinked(exc, source, place) from None
    data = put_identities(linked, drivers)
    _check_ports(data, source)
    return Compiled(packed=Packed(tee="sancus", data=data), files={".elf": data})


def _check(settings: CompileSettings) -> None:
    """Refuse what only other hardware has."""
    for name in ("library", "heap_size", "stack_size", "threads", "product_id"):
        if getattr(settings, name):
            option = f"--{name.replace('_', '-')}"
            raise UsageError(f"a module for Sancus has no {option}", place=option)


def _part_name(settings: CompileSettings) -> str:
    return settings.name.replace("-", "_")


def _compile_all(tools: Toolchain, sources: Sequence[Path], folder: Path) -> list[Path]:
    """Objects of the author's files, in order, then of the runtime."""
    objects = []
    for index, source in enumerate(sources):
        objects.append(folder / f"module{index}.o")
        tools.compile_module(_AUTHORS, source, objects[-1])
    return objects + [_put(folder / name, data) for name, data in _runtime(tools).items()]


@lru_cache(maxsize=2)
def _runtime(tools: Toolchain) -> Mapping[str, bytes]:
    """Objects of the runtime, by file name: the same for all modules that this process builds."""
    with tempfile.TemporaryDirectory(prefix="broch-sancus-") as name:
        kit = Path(name, "kit")  # a copy, for objects lie beside their sources
        shutil.copytree(KIT, kit)
        tools.compile([*FLAGS, "-c", *_RUNTIME], cwd=kit)
        return {path.name: path.read_bytes() for path in sorted(kit.glob("*.o"))}


def _put(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def _compile_driver(tools: Toolchain, driver: Driver, folder: Path) -> Path:
    target = folder / f"driver-{driver.name}.o"
    values = (f"-DNAME={driver.name}", f"-DSTART={driver.start}", f"-DEND={driver.end}")
    tools.compile([*values, "-c", "driver.S", "-o", str(target)], cwd=KIT)
    return target


def _drivers(objects: Sequence[Path], source: Path, settings: CompileSettings) -> list[Driver]:
    """What BROCH_DRIVER left in the objects."""
    found = []
    for path in objects:
        section = ELFFile(io.BytesIO(path.read_bytes())).get_section_by_name(_NAMES)
        lines = section.data().split(b"\0")[:-1] if section is not None else []
        found += [_driver(line.decode("ascii", "replace"), source) for line in lines]
    if len(found) > MAX_DRIVERS:
        problem = f"{len(found)} drivers; a module has at most {MAX_DRIVERS}"
        raise MalformedError(problem, place=str(source))
    for driver in found:
        if driver.name == _part_name(settings):
            problem = f"the driver {driver.name} has the module's name"
            raise MalformedError(problem, place=str(source), hint="call one of them differently")
    return found


def _driver(line: str, source: Path) -> Driver:
    match = _DRIVER.fullmatch(line)
    if match is None:
        raise MalformedError(
            f"not a driver: BROCH_DRIVER({', '.join(line.split(' '))})"[:200],
            place=str(source),
            hint="write its addresses as numbers: BROCH_DRIVER(leds, 0x28, 0x30)",
        )
    start, end = int(match[2], 0), int(match[3], 0)
    if not start < end <= memory.PERIPHERALS_END or start % 2 or end % 2:
        raise MalformedError(
            f"driver {match[1]} owns 0x{start:04x} up to 0x{end:04x}, which is no place for one",
            place=str(source),
            hint="peripherals are below 0x0200; start and end are even, and end comes later",
        )
    return Driver(name=match[1], start=start, end=end)


def _link(
    tools: Toolchain,
    folder: Path,
    objects: Sequence[Path],
    name: str,
    place: Layout,
    drivers: Sequence[Driver],
) -> bytes:
    def link(*more: Path, with_values: bool = False) -> bytes:
        script, target = folder / "module.ld", folder / "module.elf"
        script.write_text(linker_script(name, place, drivers, with_values=with_values))
        files = [str(path.relative_to(folder)) for path in (*objects, *more)]
        tools.link([*_LINK, "-T", script.name, *files, "-o", target.name], cwd=folder)
        return target.read_bytes()

    linked = link()
    symbols = read_elf(linked).symbols
    size = symbols["broch_data_end"] - symbols["broch_data_start"]
    if not size:
        return linked
    # With room for the values all addresses are final, and so are values that are addresses.
    values = first_values(link(_values_object(tools, folder, bytes(size)), with_values=True))
    return link(_values_object(tools, folder, values))


def _values_object(tools: Toolchain, folder: Path, values: bytes) -> Path:
    words = "\n".join(f".byte {byte}" for byte in values)
    (folder / "values.S").write_text(f'.section .broch.init,"a",@progbits\n{words}\n')
    tools.compile(["-c", "values.S", "-o", "values.o"], cwd=folder)
    return folder / "values.o"


def _unlinked(error: BrochError, source: Path, place: Layout) -> MalformedError:
    if TEXT_FULL in error.message:
        room = len(place.text)
        return TooLargeError(
            f"{TEXT_FULL}, which has {room} bytes for code, constants and drivers",
            place=str(source),
            hint="divide it into two modules",
        )
    if NO_STACK in error.message:
        return TooLargeError(
            f"{NO_STACK}: all that is secret has {len(place.secret)} bytes",
            place=str(source),
            hint="make them smaller, or constants: const goes into the text",
        )
    hint = _NO_LIBC
    if any(_FLOATS.search(word) for word in error.message.split()):
        hint = "modules for Sancus have no floating point: use integers, such as tenths"
    return MalformedError(error.message, place=str(source), hint=hint)


def _check_ports(data: bytes, source: Path) -> None:
    """Hold the module to what its loader will, and values to what fits."""
    try:
        ports = read_module(data).ports.interface.ports
    except DecodeError as exc:
        raise MalformedError(exc.problem, place=str(source), hint=_PORTS) from None
    except MalformedError as exc:
        raise type(exc)(exc.message, place=str(source), hint=exc.hint) from None
    for port in ports:
        for shape in (port.argument, port.result):
            if shape is not None and (size := _longest(shape)) > MAX_VALUE:
                problem = f"a value of {port.name} can have {size} bytes, more than {MAX_VALUE}"
                raise MalformedError(problem, place=str(source), hint="give fields shorter names")


def _longest(shape: Shape) -> int:
    """Bytes of the longest value of a shape: names, and five for each number."""
    if shape["type"] != "struct":
        return 5
    return 3 + sum(2 + len(name) + 5 for name in shape["fields"])
