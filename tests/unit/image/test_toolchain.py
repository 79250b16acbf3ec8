"""The toolchain: found in order, runs in any folder with equal bytes, names the first error."""

import shutil
import sys
from pathlib import Path

import pytest

from broch.errors import MalformedError, UsageError
from broch.image import toolchain
from broch.image.toolchain import Target, Toolchain, find

SOURCE = """
#include <stdint.h>
static const char where[] = __FILE__;
int value = 7;
const char *name(void) { return where; }
int _start(void) { return value; }
"""
SCRIPT = """
SECTIONS { . = 0x5000;  /* within reach of 16 bits */
  .text : { *(.text*) } .rodata : { *(.rodata*) } .data : { *(.data*) } }
"""
MACHINES = {"x86_64": 62, "msp430": 105}  # e_machine


def build(tools: Toolchain, folder: Path) -> tuple[bytes, bytes]:
    folder.mkdir(parents=True)
    (folder / "a.c").write_text(SOURCE)
    tools.compile(["-O2", "-ffreestanding", "-c", "a.c", "-o", "a.o"], cwd=folder)
    (folder / "a.ld").write_text(SCRIPT)
    tools.link(["-T", "a.ld", "-e", "_start", "a.o", "-o", "a.elf"], cwd=folder)
    return (folder / "a.o").read_bytes(), (folder / "a.elf").read_bytes()


def installed(name: str, target: Target) -> Toolchain:
    made = {"zig": toolchain._zig, "clang": toolchain._clang, "gcc": toolchain._gcc}[name](target)
    if made is None:
        pytest.skip(f"{name} is not installed")
    return made


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("zig", "x86_64"),
        ("zig", "msp430"),
        ("clang", "x86_64"),
        ("clang", "msp430"),
        ("gcc", "x86_64"),
    ],
)
def test_equal_sources_give_equal_bytes_in_any_folder(
    name: str, target: Target, tmp_path: Path
) -> None:
    tools = installed(name, target)
    first = build(tools, tmp_path / "a")
    assert first == build(tools, tmp_path / "quite" / "another")
    for data in first:
        assert data[:4] == b"\x7fELF"
        assert int.from_bytes(data[18:20], "little") == MACHINES[target]
        assert str(tmp_path).encode() not in data
        assert b".debug" not in data
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["a.c", "a.elf", "a.ld", "a.o"]


@pytest.mark.parametrize("name", ["zig", "clang", "gcc"])
def test_the_first_error_is_named_with_file_and_line(name: str, tmp_path: Path) -> None:
    tools = installed(name, "x86_64")
    (tmp_path / "bad.c").write_text("int f(void) {\n  return missing;\n}\n")
    with pytest.raises(MalformedError) as caught:
        tools.compile(["-c", "bad.c", "-o", "bad.o"], cwd=tmp_path)
    assert caught.value.place == "bad.c:2"
    assert "missing" in caught.value.message


@pytest.mark.parametrize("name", ["zig", "gcc"])
def test_a_missing_symbol_is_named(name: str, tmp_path: Path) -> None:
    tools = installed(name, "x86_64")
    (tmp_path / "a.c").write_text("int other(void);\nint _start(void) { return other(); }\n")
    tools.compile(["-c", "a.c", "-o", "a.o"], cwd=tmp_path)
    with pytest.raises(MalformedError, match="other"):
        tools.link(["-e", "_start", "a.o", "-o", "a.elf"], cwd=tmp_path)


def test_a_source_that_asks_for_the_time_is_refused(tmp_path: Path) -> None:
    tools = find("x86_64")
    (tmp_path / "a.c").write_text("const char *t = __TIME__;\n")
    with pytest.raises(MalformedError, match=r"__TIME__|reproducible"):
        tools.compile(["-c", "a.c", "-o", "a.o"], cwd=tmp_path)


def test_the_current_folder_cannot_bring_a_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ziglang.py").write_text("raise SystemExit('run')")
    monkeypatch.chdir(tmp_path)
    tools = installed("zig", "x86_64")
    assert Path(tools.compiler[0]).is_absolute()
    build(tools, tmp_path / "b")


def test_zig_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    order = []
    for name in ("_zig", "_clang", "_gcc"):

        def look(target: Target, name: str = name) -> None:
            order.append(name)

        monkeypatch.setattr(toolchain, name, look)
    with pytest.raises(UsageError, match="no C compiler") as caught:
        find("x86_64")
    assert order == ["_zig", "_clang", "_gcc"]
    assert caught.value.hint == "pip install 'broch[native]'"


def test_gcc_is_no_compiler_for_msp430(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: sys.executable)
    assert toolchain._gcc("msp430") is None


def test_a_compiler_that_does_not_run(tmp_path: Path) -> None:
    gone = ("/nonexistent/cc",)
    tools = Toolchain(name="gone", target="x86_64", compiler=gone, linker=gone)
    with pytest.raises(UsageError, match="does not run"):
        tools.compile(["-c", "a.c"], cwd=tmp_path)
