"""The descriptor: what it gives, and each of its rules, broken alone."""

from pathlib import Path
from typing import Final

import pytest

from broch.app.descriptor import (
    OPERATOR,
    App,
    Chart,
    ConnectionSpec,
    HostFunction,
    Limits,
    ModuleSpec,
    Policy,
    PortName,
    Report,
    Restart,
    Run,
    load,
)
from broch.app.descriptor_nodes import DeviceKind, Node
from broch.errors import MalformedError, UsageError
from broch.wire.toml_places import MAX_FILE

from .descriptors import (
    FULL,
    SMALL,
    TEES,
    Rule,
    change,
    check_rule,
    each_rule,
    line_of,
    read,
    refused,
    write_files,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_files(tmp_path)


def test_the_defaults_are_the_strict_ones(folder: Path) -> None:
    descriptor = read(folder, SMALL)
    assert descriptor.app == App(name="irrigation", description="")
    assert descriptor.nodes == {
        "cloud": Node(name="cloud", tee="sgx", device=DeviceKind.EMULATED, host="127.0.0.1", port=0)
    }
    assert descriptor.modules == {
        "controller": ModuleSpec(
            name="controller",
            node="cloud",
            source=folder / "modules/controller.py",
            files=(),
            version=0,
            restart=Restart.ON_FAILURE,
            max_restarts=5,
            limits=Limits(memory_mb=64, seconds=5.0),
            ocalls={},
        )
    }
    assert descriptor.connections == ()
    assert descriptor.run == Run(until=None)
    assert descriptor.policy == Policy(emulated=False, debug=False, unsandboxed=False)
    assert descriptor.report == Report(title="", summary=None, charts=())


def test_everything_that_can_be_said(folder: Path) -> None:
    descriptor = read(folder, FULL)
    assert descriptor.path == folder / "app.toml"
    assert descriptor.folder == folder
    assert descriptor.app == App(name="irrigation", description="waters a field")
    assert descriptor.nodes["field"] == Node(
        name="field", tee="trustzone", device=DeviceKind.NATIVE, host="::1", port=7002
    )
    assert descriptor.modules["controller"] == ModuleSpec(
        name="controller",
        node="cloud",
        source=folder / "modules/controller.py",
        files=("data/soil.csv", "data/rain.csv"),
        version=3,
        restart=Restart.ALWAYS,
        max_restarts=9,
        limits=Limits(memory_mb=128, seconds=0.5),
        ocalls={"now": HostFunction(path=folder / "host.py", function="now")},
    )
    assert descriptor.modules["valve"].source == folder / "modules/valve"
    opened = PortName("valve", "opened")
    assert descriptor.connections == (
        ConnectionSpec(source=PortName("controller", "command"), target=PortName("valve", "set")),
        ConnectionSpec(source=opened, target=OPERATOR),
        ConnectionSpec(source=OPERATOR, target=PortName("controller", "override")),
    )
    assert descriptor.connections[0].cipher == "aes-128-gcm"
    assert descriptor.run == Run(until=opened)
    assert descriptor.policy == Policy(emulated=True, debug=True, unsandboxed=True)
    chart = Chart(title="Openings", source=opened, x="day", y=("litres", "minutes"), unit="l")
    summary = PortName("controller", "summary")
    assert descriptor.report == Report(title="A season", summary=summary, charts=(chart,))


def test_places_for_later_errors(folder: Path) -> None:
    descriptor = read(folder, FULL)
    assert descriptor.place("nodes", "cloud", "port") == "app.toml:9"
    assert descriptor.place("modules", "valve") == f"app.toml:{line_of(FULL, '[modules.valve]')}"
    to_operator = line_of(FULL, 'to = "operator"')
    assert descriptor.place("connections", 1, "to") == f"app.toml:{to_operator}"
    assert descriptor.place("modules", "valve", "limits", "seconds") == descriptor.place(
        "modules", "valve"
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("memory_mb = 128", "memory_mb = 8"),
        ("memory_mb = 128", "memory_mb = 4096"),
        ("seconds = 0.5", "seconds = 3600"),
        ("seconds = 0.5", "seconds = 0.001"),
        ("port = 7001", "port = 65535"),
        ("version = 3", "version = 4294967295"),
        ("max_restarts = 9", "max_restarts = 0"),
    ],
)
def test_ends_of_ranges(folder: Path, old: str, new: str) -> None:
    read(folder, change(FULL, old, new))


MALFORMED: Final[tuple[Rule, ...]] = (
    ("app: unknown key", 'description = "w', 'descripton = "w', "descripton",
     "unknown key 'descripton' in [app]", "did you mean 'description'?"),
    ("app: no name", 'name = "irrigation"\n', "", "[app]",
     "missing key 'name' in [app]", 'add name = "..."'),
    ("app: no such name", '"irrigation"', '"Irrigation"', "Irrigation",
     "'Irrigation' is not a name",
     "a name begins with a-z and goes on with a-z, 0-9, - or _, at most 64 in all"),
    ("app: empty name", '"irrigation"', '""', 'name = ""', "name is empty", None),
    ("app: type of name", '"irrigation"', "5", "name = 5", "name is 5, expected text", None),
    ("app: type of description", '"waters a field"', "[]", "description",
     "description is an array, expected text", None),
    ("unknown table", "[policy]", "[polcy]", "[polcy]",
     "unknown key 'polcy' in the file", "did you mean 'policy'?"),
    ("unknown key far from all", "[policy]", "[zzz]", "[zzz]",
     "unknown key 'zzz' in the file",
     "known: app, nodes, modules, connections, policy, run, report"),
    ("module: unknown key", "version = 3", "verson = 3", "verson",
     "unknown key 'verson' in [modules.controller]", "did you mean 'version'?"),
    ("module: name", "[modules.valve]", "[modules.'va.lve']", "va.lve", "'va.lve' is not a name",
     "a name begins with a-z and goes on with a-z, 0-9, - or _, at most 64 in all"),
    ("module: called operator", "[modules.valve]", "[modules.operator]", "[modules.operator]",
     "a module cannot be called 'operator'",
     "'operator' names the one who runs the application"),
    ("module: no node", 'node = "cloud"\n', "", "[modules.controller]",
     "missing key 'node' in [modules.controller]", 'add node = "..."'),
    ("module: unknown node", 'node = "cloud"', 'node = "clod"', '"clod"',
     "there is no node 'clod'", "did you mean 'cloud'?"),
    ("module: no source", 'source = "modules/valve"\n', "", "[modules.valve]",
     "missing key 'source' in [modules.valve]", 'add source = "..."'),
    ("module: source is no Python", '"modules/valve"', '"data/soil.csv"',
     'source = "data/soil.csv"',
     "source is 'data/soil.csv', expected a .py, .c or .elf file or a folder with __init__.py",
     None),
    ("module: type of files", '["data/soil.csv", "data/rain.csv"]', '"data/soil.csv"', "files",
     "files is 'data/soil.csv', expected an array of text", None),
    ("module: type of a file", '"data/rain.csv"]', "\n7]", "7]",
     "files holds 7, expected an array of text", None),
    ("module: file twice", '"data/rain.csv"]', '\n"data/soil.csv"]', '"data/soil.csv"]',
     "files holds 'data/soil.csv' twice", None),
    ("module: version too high", "version = 3", "version = 4294967296", "version",
     "version is 4294967296, expected an integer from 0 to 4294967295", None),
    ("module: type of version", "version = 3", "version = 3.0", "version",
     "version is 3.0, expected an integer from 0 to 4294967295", None),
    ("module: restart", '"always"', '"onfailure"', '"onfailure"',
     "restart is 'onfailure', expected 'never' or 'on-failure' or 'always'",
     "did you mean 'on-failure'?"),
    ("module: max_restarts", "max_restarts = 9", "max_restarts = -1", "max_restarts",
     "max_restarts is -1, expected an integer from 0 to 1000", None),
    ("limits: unknown key", "memory_mb = 128", "memory = 128", "memory = 128",
     "unknown key 'memory' in [modules.controller.limits]", "did you mean 'memory_mb'?"),
    ("limits: little memory", "memory_mb = 128", "memory_mb = 7", "memory_mb",
     "memory_mb is 7, expected an integer from 8 to 4096", None),
    ("limits: much memory", "memory_mb = 128", "memory_mb = 4097", "memory_mb",
     "memory_mb is 4097, expected an integer from 8 to 4096", None),
    ("limits: no time", "seconds = 0.5", "seconds = 0", "seconds",
     "seconds is 0, expected a number above 0, up to 3600", None),
    ("limits: much time", "seconds = 0.5", "seconds = 3600.1", "seconds",
     "seconds is 3600.1, expected a number above 0, up to 3600", None),
    ("limits: not a table", "[modules.controller.limits]\nmemory_mb = 128\nseconds = 0.5",
     "limits = 5", "limits = 5", "limits is 5, expected a table", None),
    ("ocall: no function", '"host.py:now"', '"host.py"', "host.py",
     "now is 'host.py', expected a function of a file", 'write now = "path.py:function"'),
    ("ocall: no identifier", '"host.py:now"', '"host.py:n-w"', "host.py",
     "now is 'host.py:n-w', expected a function of a file", 'write now = "path.py:function"'),
    ("ocall: no Python", '"host.py:now"', '"host.sh:now"', "host.sh",
     "now is 'host.sh:now', expected a function of a file", 'write now = "path.py:function"'),
    ("ocall: type", '"host.py:now"', "1", "now = 1", "now is 1, expected text", None),
    ("connection: unknown key", 'cipher = "aes-128-gcm"', 'ciper = "aes-128-gcm"', "ciper",
     "unknown key 'ciper' in [[connections]]", "did you mean 'cipher'?"),
    ("connection: no port", '"valve.set"', '"valve"', 'to = "valve"',
     "to is 'valve', expected 'MODULE.PORT' or 'operator'", None),
    ("connection: slip in operator", 'to = "operator"', 'to = "opertor"', '"opertor"',
     "to is 'opertor', expected 'MODULE.PORT' or 'operator'", "did you mean 'operator'?"),
    ("connection: empty port", '"valve.set"', '"valve."', 'to = "valve."',
     "to is 'valve.', expected 'MODULE.PORT' or 'operator'", None),
    ("connection: unknown module", '"controller.command"', '"contoller.command"', "contoller",
     "there is no module 'contoller'", "did you mean 'controller'?"),
    ("connection: to its own module", '"valve.set"', '"controller.set"', '"controller.set"',
     "connects module controller to itself", None),
    ("connection: operator to itself", 'to = "controller.override"', 'to =  "operator"',
     'to =  "operator"', "connects the operator to itself", None),
    ("connection: type", "[[connections]]\nfrom = \"operator\"\nto = \"controller.override\"",
     "[[conections]]", "[[conections]]", "unknown key 'conections' in the file",
     "did you mean 'connections'?"),
    ("run: unknown key", "until =", "untill =", "untill",
     "unknown key 'untill' in [run]", "did you mean 'until'?"),
    ("run: form", 'until = "valve.opened"', 'until = "operator"', "until",
     "until is 'operator', expected 'MODULE.PORT'", None),
    ("run: empty", 'until = "valve.opened"', 'until = ""', "until", "until is empty", None),
    ("run: unknown module", 'until = "valve.opened"', 'until = "valv.opened"', "until",
     "there is no module 'valv'", "did you mean 'valve'?"),
    ("run: slip in the output", 'until = "valve.opened"', 'until = "valve.openned"', "until",
     "'valve.openned' is not connected to the operator", "did you mean 'valve.opened'?"),
    ("run: output that the operator does not see", 'until = "valve.opened"',
     'until = "controller.x"', "until", "'controller.x' is not connected to the operator",
     'add [[connections]] with from = "controller.x" and to = "operator"'),
    ("policy: unknown key", "debug = true", "debugg = true", "debugg",
     "unknown key 'debugg' in [policy]", "did you mean 'debug'?"),
    ("policy: type", "unsandboxed = true", 'unsandboxed = "yes"', "unsandboxed",
     "unsandboxed is 'yes', expected true or false", None),
    ("policy: a number is no boolean", "emulated = true", "emulated = 1", "emulated = 1",
     "emulated is 1, expected true or false", None),
    ("report: unknown key", 'title = "A season"', 'titel = "A season"', "titel",
     "unknown key 'titel' in [report]", "did you mean 'title'?"),
    ("report: summary's form", '"controller.summary"', '"controller"', "summary",
     "summary is 'controller', expected 'MODULE.PORT'", None),
    ("report: summary's module", '"controller.summary"', '"controler.summary"', "summary",
     "there is no module 'controler'", "did you mean 'controller'?"),
    ("chart: unknown key", 'unit = "l"', 'units = "l"', "units",
     "unknown key 'units' in [[report.charts]]", "did you mean 'unit'?"),
    ("chart: no title", 'title = "Openings"\n', "", "[[report.charts]]",
     "missing key 'title' in [[report.charts]]", 'add title = "..."'),
    ("chart: no x", 'x = "day"\n', "", "[[report.charts]]",
     "missing key 'x' in [[report.charts]]", 'add x = "..."'),
    ("chart: no y", 'y = ["litres", "minutes"]\n', "", "[[report.charts]]",
     "missing key 'y' in [[report.charts]]", 'add y = ["..."]'),
    ("chart: empty y", 'y = ["litres", "minutes"]', "y = []", "y = []", "y is empty", None),
    ("chart: output that the operator does not see", 'from = "valve.opened"\nx',
     'from = "valve.closed"\nx', "valve.closed",
     "'valve.closed' is not connected to the operator",
     "did you mean 'valve.opened'?"),
)  # fmt: skip


@each_rule(MALFORMED)
def test_each_rule(
    folder: Path, old: str, new: str, where: str, message: str, hint: str | None
) -> None:
    check_rule(folder, old, new, where, message, hint)


@pytest.mark.parametrize("text", ["", "# nothing\n"], ids=["empty", "comment"])
def test_an_empty_descriptor_lacks_its_app(folder: Path, text: str) -> None:
    error = refused(folder, text)
    assert type(error) is MalformedError
    assert (error.place, error.message) == ("app.toml:1", "missing key 'app' in the file")
    assert error.hint == "add [app]"


@pytest.mark.parametrize(
    ("paragraphs", "what"), [([0], "node"), ([0, 1], "module")], ids=["node", "module"]
)
def test_at_least_one_node_and_one_module(folder: Path, paragraphs: list[int], what: str) -> None:
    parts = SMALL.split("\n\n")
    error = refused(folder, "\n\n".join(parts[index] for index in paragraphs))
    assert type(error) is MalformedError
    assert (error.place, error.message) == ("app.toml:1", f"there is no {what}")
    assert error.hint == f"add [{what}s.NAME]"


@pytest.mark.parametrize("key", ["from", "to"])
def test_a_connection_has_both_ends(folder: Path, key: str) -> None:
    ends = {"from": "controller.log", "to": "operator"}
    del ends[key]
    lines = [f'{name} = "{value}"' for name, value in ends.items()]
    error = refused(folder, FULL + "\n".join(["", "[[connections]]", *lines]))
    assert type(error) is MalformedError
    assert error.place == f"app.toml:{len(FULL.splitlines()) + 2}"
    assert error.message == f"missing key {key!r} in [[connections]]"
    assert error.hint == f'add {key} = "..."'


def test_an_empty_table_of_modules_is_placed_there(folder: Path) -> None:
    error = refused(folder, SMALL.partition("[modules")[0] + "[modules]\n")
    assert (error.place, error.message) == ("app.toml:8", "there is no module")


def test_a_connection_that_is_there_already(folder: Path) -> None:
    again = '\n[[connections]]\n\nto = "operator"\nfrom = "valve.opened"\n'
    error = refused(folder, FULL + again)
    assert type(error) is MalformedError
    assert error.place == f"app.toml:{len(FULL.splitlines()) + 2}"
    first = line_of(FULL, 'to = "operator"') - 2
    assert error.message == (
        f"valve.opened is connected to operator twice, first at app.toml:{first}"
    )


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{from = 'valve.a', to = 'operator'}", "connections is a table, expected tables that"),
        ("[3]", "connections holds 3, expected tables that begin with [[connections]]"),
    ],
)
def test_connections_are_an_array_of_tables(folder: Path, value: str, message: str) -> None:
    error = refused(folder, f"connections = {value}\n" + SMALL)
    assert error.place == "app.toml:1"
    assert error.message.startswith(message)


def test_inline_tables_mean_the_same(folder: Path) -> None:
    inline = """
    app.name = "irrigation"
    nodes = {cloud = {tee = "sgx", device = "emulated"}}
    modules.controller = {node = "cloud", source = "modules/controller.py"}
    """
    one, other = read(folder, SMALL), read(folder, inline)
    assert one == other
    assert other.place("modules", "controller", "source") == "app.toml:4"


def test_the_first_problem_in_the_file_is_the_one_reported(folder: Path) -> None:
    text = change(FULL, 'to = "valve.set"', 'to = "vale.set"')
    text = change(text, "debug = true", "debug = 3")
    assert refused(folder, text).message == "there is no module 'vale'"
    text = change(text, 'node = "field"', 'node = "feld"')
    assert refused(folder, text).message == "there is no node 'feld'"
    policy = "[policy]\nemulated = true\ndebug = 3\nunsandboxed = true\n"
    text = policy + change(text, policy, "")  # the order of the file, not of the reader
    assert refused(folder, text).message == "debug is 3, expected true or false"


def test_a_wrong_connection_is_not_reported_as_a_missing_one(folder: Path) -> None:
    text = change(FULL, 'until = "valve.opened"\n', "")
    text = '[run]\nuntil = "valve.opened"\n' + change(text, "[run]\n", "")
    text = change(text, 'to = "operator"', "to = 5")
    assert refused(folder, text).message == "to is 5, expected text"


def test_toml_errors_name_the_line(folder: Path) -> None:
    error = refused(folder, change(SMALL, 'tee = "sgx"', "tee sgx"))
    assert type(error) is MalformedError
    assert error.place == "app.toml:5"
    assert error.message.startswith("not TOML: Expected '=' after a key")


def test_what_is_not_utf8_names_the_line(folder: Path) -> None:
    (folder / "app.toml").write_bytes(SMALL.encode() + b"# \xff\n")
    with pytest.raises(MalformedError) as caught:
        load(folder / "app.toml", tees=TEES)
    assert (caught.value.place, caught.value.message) == ("app.toml:11", "not UTF-8: byte 0xff")


def test_a_descriptor_that_is_too_long(folder: Path) -> None:
    (folder / "app.toml").write_text("#" * (MAX_FILE + 1))
    with pytest.raises(MalformedError, match="longer than 1048576 bytes"):
        load(folder / "app.toml", tees=TEES)


def test_no_such_descriptor(folder: Path) -> None:
    path = folder / "app.toml"
    with pytest.raises(UsageError) as caught:
        load(path, tees=TEES)
    assert caught.value.exit_code == 2
    assert caught.value.place == str(path)
    assert caught.value.message == "cannot read the descriptor: No such file or directory"


def test_a_folder_is_no_descriptor(folder: Path) -> None:
    (folder / "app.toml").write_text(SMALL)
    with pytest.raises(UsageError) as caught:
        load(folder, tees=TEES)
    assert caught.value.message == "is a folder, not a descriptor"
    assert caught.value.hint == f"name the file: {folder / 'app.toml'}"
    with pytest.raises(UsageError) as caught:
        load(folder / "data", tees=TEES)
    assert caught.value.hint is None


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b"], ids=["too long", "NUL"])
def test_paths_that_no_system_has(folder: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot read the descriptor"):
        load(folder / name, tees=TEES)
