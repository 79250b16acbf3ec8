"""Modules in C: what the compiler's side promises, and how it says no."""

from pathlib import Path

import pytest

from broch.cpu.msp430 import TooLargeError, read_elf
from broch.errors import BrochError, MalformedError, UsageError
from broch.tee.contract import Compiler, CompileSettings
from broch.tee.hosting import Function
from broch.tee.sancus import TEE, memory
from broch.tee.sancus.compiling import build
from broch.tee.sancus.keys import identity
from broch.tee.sancus.module_file import read_module

from .c_module import LED, Running, compiled, needs_compiler

HEAD = '#include "broch.h"\n'


@pytest.fixture(autouse=True)
def compiler() -> None:
    needs_compiler()


def refused(source: str, folder: Path, **settings: object) -> BrochError:
    """Why a module is not built."""
    path = folder / "module.c"
    path.write_text(source)
    with pytest.raises(BrochError) as caught:
        build(path, CompileSettings(**{"name": "m", **settings}))  # type: ignore[arg-type]
    return caught.value


def test_the_tee_compiles() -> None:
    assert isinstance(TEE, Compiler)


def test_the_result_keeps_the_rules_of_modules() -> None:
    file = read_module(compiled(LED))
    place = memory.slot(0)
    assert file.module.name == "led"
    assert file.module.layout.public_start == place.public_start
    assert file.module.layout.secret_start == place.secret_start
    (driver,) = file.drivers
    assert (driver.name, driver.layout.secret) == ("leds", range(0x28, 0x30))
    offset = read_elf(compiled(LED)).symbols["__sm_leds_tag"] - place.public_start
    assert file.module.text[offset : offset + 16] == identity(driver.text, driver.layout)
    ports = {port.name: port.kind.value for port in file.ports.interface.ports}
    assert ports == {
        "changed": "output",
        "unused": "output",
        "set": "input",
        "count": "entry",
        "check": "entry",
        "tick": "every",
    }
    assert file.ports.interrupts == {3}


def test_the_same_bytes_wherever_it_is_built(tmp_path: Path) -> None:
    built = []
    for name in ("a", "some/where/else"):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "other.c").write_text(f"{HEAD}u16 twice(u16 n) {{ return 2 * n; }}\n")
        path = folder / "led.c"
        path.write_text(LED + "u16 twice(u16 n);\nBROCH_EVERY(more, 5) { presses = twice(1); }\n")
        settings = CompileSettings(name="led", files=(folder / "other.c",))
        built.append(build(path, settings).files[".elf"])
    assert built[0] == built[1]
    assert str(tmp_path).encode() not in built[0]


def test_a_slot_is_part_of_who_a_module_is() -> None:
    first, second = (read_module(compiled(LED, "led", slot)) for slot in (0, 3))
    assert first.measure() != second.measure()
    assert second.module.layout.public_start == memory.slot(3).public_start


def test_variables_begin_with_their_values_at_each_start() -> None:
    source = (
        HEAD
        + """
static u16 limit = 30;
static const char *const names[] = {"one", "two"};
static const char *name = "first";
static u8 odd[3] = {1, 2, 3};
BROCH_STRUCT(State, (u16, limit), (u8, letter), (u8, odd));
BROCH_ENTRY(state, none, ask, State, reply)
{
    (void)ask;
    *reply = (State){limit, name[0], odd[2]};
}
BROCH_EVERY(change, 1) { limit++; odd[2] = 9; name = names[1]; }
"""
    )
    module = Running(source, "values")
    first = {"limit": 30, "letter": ord("f"), "odd": 3}
    assert module.call("state") == (0, first)
    assert module.enter(Function.TICK, b"\1\0").status == 0
    assert module.call("state") == (0, {"limit": 31, "letter": ord("t"), "odd": 9})
    module.enter(Function.START)
    assert module.call("state") == (0, first)


def test_all_types_that_cross() -> None:
    source = (
        HEAD
        + """
BROCH_STRUCT(All, (bool, a), (u8, b), (i8, c), (u16, d), (i16, e), (u32, f), (i32, g));
BROCH_ENTRY(echo, All, ask, All, reply) { *reply = *ask; }
BROCH_STRUCT(Many, (u8, a), (u8, b), (u8, c), (u8, d), (u8, e), (u8, f), (u8, g), (u8, h), (u8, i),
             (u8, j), (u8, k), (u8, l), (u8, m), (u8, n), (u8, o), (u8, p));
BROCH_ENTRY(many, Many, ask, u32, reply) { *reply = 70000u * ask->p; }
"""
    )
    module = Running(source, "all")
    value = {"a": True, "b": 255, "c": -128, "d": 65535, "e": -1, "f": 2**32 - 1, "g": -(2**31)}
    assert module.call("echo", value) == (0, value)
    value = dict.fromkeys("abcdefghijklmnop", 3)
    assert module.call("many", value) == (0, 210000)


# Errors


@pytest.mark.parametrize(
    ("source", "line", "text"),
    [
        ("u16 f(void) { return x; }", 2, "undeclared"),
        ("\nu16 f(void) { return 1 }", 3, "expected ';'"),
        ("BROCH_INPUT(set, Lamp, lamp) { }", 2, "unknown type name 'Lamp'"),
        ("BROCH_STRUCT(S, (float, x));", 2, "BROCH_SCALAR_float"),
        ("BROCH_STRUCT(S, (bool, a), (bool, a));", 2, "duplicate member"),
        ("u16 f(void) { return g(); }", 2, "undeclared function 'g'"),
        ("u16 f(void) { u8 a[600]; a[5] = 1; return a[f()]; }", 2, "stack frame size"),
        ("u16 f(u16 n) { u8 a[n]; a[0] = 1; return a[f(n)]; }", 2, "variable length array"),
        ("u8 *g(void); u16 f(u16 n) { return *(u8 *)__builtin_alloca(n); }", 2, "alloca"),
        ('#include "nowhere.h"', 2, "file not found"),
    ],
)
def test_an_error_in_c_names_file_and_line(
    source: str, line: int, text: str, tmp_path: Path
) -> None:
    error = refused(HEAD + source, tmp_path)
    assert error.exit_code == 3
    assert error.place == f"{tmp_path}/module.c:{line}"
    assert text in error.message


def test_seventeen_fields_are_too_many(tmp_path: Path) -> None:
    fields = ", ".join(f"(u8, f{n})" for n in range(17))
    assert "at most 16" in refused(f"{HEAD}BROCH_STRUCT(S, {fields});", tmp_path).message


@pytest.mark.parametrize(
    ("source", "text", "hint"),
    [
        (
            "extern u16 f(void); BROCH_EVERY(t, 1) { f(); }",
            "undefined symbol: f",
            "there is no libc",
        ),
        (
            "volatile float x; BROCH_EVERY(t, 1) { x = x * 3; }",
            "undefined symbol: __mspabi_mpyf",
            "no floating point",
        ),
        (
            "volatile u32 x; BROCH_EVERY(t, 1) { x = x * 2.5; }",
            "undefined symbol: __mspabi_",
            "no floating point",
        ),
        ("BROCH_DRIVER(m, 0x28, 0x30);", "has the module's name", "differently"),
        ("BROCH_DRIVER(d, 0x29, 0x30);", "no place for one", "even"),
        ("BROCH_DRIVER(d, 0x30, 0x28);", "no place for one", "even"),
        ("BROCH_DRIVER(d, 0x1f0, 0x210);", "no place for one", "below 0x0200"),
        (
            "enum { A = 2 }; BROCH_DRIVER(d, A, 0x30);",
            "not a driver: BROCH_DRIVER(d, A, 0x30)",
            "as numbers",
        ),
        (
            "".join(f"BROCH_DRIVER(d{n}, 0x{n}0, 0x{n}8);" for n in range(4)),
            "4 drivers; a module has at most 3",
            None,
        ),
        (
            "BROCH_DRIVER(a, 0x20, 0x28); BROCH_DRIVER(b, 0x26, 0x30);",
            "overlap",
            None,
        ),
        ("BROCH_EVERY(UPPER, 1) { }", "not a line of a port table", None),
        ("BROCH_EVERY(never, 0) { }", "not a line of a port table", None),
        ("BROCH_INTERRUPT(odd, 5) { }", "not a line of a port table", None),
        ("BROCH_ENTRY(e, u16, a, none, r) { (void)a; (void)r; }", "takes none or a struct", None),
        (
            "static u8 big[3100]; BROCH_EVERY(t, 1) { big[broch_random() & 7]++; }",
            "no room for the stack",
            "const",
        ),
        (
            "static u8 big[9000]; BROCH_EVERY(t, 1) { big[broch_random() & 7]++; }",
            "no room for the stack",
            "const",
        ),
        (
            "const u8 big[9000] = {1}; volatile u8 x; BROCH_EVERY(t, 1) { x = big[x * x]; }",
            "the text does not fit its place",
            "two modules",
        ),
        (
            "BROCH_STRUCT(S, "
            + ", ".join(f"(u8, {chr(97 + n) * 12})" for n in range(16))
            + "); BROCH_OUTPUT(o, S);",
            "more than 256",
            "shorter",
        ),
    ],
)
def test_what_a_module_cannot_have(
    source: str, text: str, hint: str | None, tmp_path: Path
) -> None:
    error = refused(HEAD + source, tmp_path)
    assert error.exit_code == 3
    assert error.place == str(tmp_path / "module.c")
    assert text in str(error)
    assert hint is None or hint in (error.hint or "")


def test_a_module_too_large_is_that(tmp_path: Path) -> None:
    source = HEAD + "static u8 big[9000]; BROCH_EVERY(t, 1) { big[broch_random() & 7]++; }"
    assert type(refused(source, tmp_path)) is TooLargeError


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"library": True}, "no --library"),
        ({"heap_size": 4096}, "no --heap-size"),
        ({"stack_size": 4096}, "no --stack-size"),
        ({"threads": 2}, "no --threads"),
        ({"slot": 4}, "no place for module 5"),
        ({"files": (Path("nowhere.c"),)}, "no such file"),
    ],
)
def test_settings_that_sancus_does_not_have(
    settings: dict[str, object], text: str, tmp_path: Path
) -> None:
    error = refused(LED, tmp_path, **settings)
    assert isinstance(error, UsageError)
    assert text in error.message


def test_a_missing_source(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        build(tmp_path / "nowhere.c", CompileSettings(name="m"))


def test_the_date_is_no_part_of_a_module(tmp_path: Path) -> None:
    error = refused(HEAD + "const char *when = __DATE__;", tmp_path)
    assert isinstance(error, MalformedError)
    assert "reproducible" in error.message
