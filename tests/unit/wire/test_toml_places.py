"""Every form that TOML has for a key, and the line that it is given."""

import tomllib
from enum import StrEnum

import pytest

from broch.errors import MalformedError, UsageError
from broch.wire.toml_places import Keys, Problems, Table, find_places, near, nearest, parse


class Colour(StrEnum):
    RED = "red"
    GREEN = "green"


@pytest.mark.parametrize(
    ("text", "keys", "line"),
    [
        pytest.param("a = 1", ("a",), 1, id="first line"),
        pytest.param("\n# c\n\na = 1\n", ("a",), 4, id="after blanks and a comment"),
        pytest.param("\r\n\r\na = 1\r\n", ("a",), 3, id="CRLF"),
        pytest.param("  \t a = 1 # b = 2\nb=2", ("b",), 2, id="comment after a value"),
        pytest.param("[a]\nb = 1", ("a",), 1, id="table"),
        pytest.param("[a]\nb = 1", ("a", "b"), 2, id="key in a table"),
        pytest.param("\n[a.b]\nc = 1", ("a", "b", "c"), 3, id="key in a nested table"),
        pytest.param("\n[a.b]\nc = 1", ("a",), 2, id="table that is only mentioned"),
        pytest.param("[a.b]\nc = 1\n[a]\nd = 2", ("a",), 3, id="table after its inner table"),
        pytest.param("[ a . b ] # c\nc = 1", ("a", "b", "c"), 2, id="blanks in a header"),
        pytest.param('["a.b"."#]"]\nc = 1', ("a.b", "#]", "c"), 2, id="quoted header"),
        pytest.param("\n[[a]]\nb = 1\n[[a]]\nb = 2", ("a",), 2, id="array of tables"),
        pytest.param("\n[[a]]\nb = 1\n[[a]]\nb = 2", ("a", 0), 2, id="its first"),
        pytest.param("\n[[a]]\nb = 1\n[[a]]\nb = 2", ("a", 1), 4, id="its second"),
        pytest.param("\n[[a]]\nb = 1\n[[a]]\nb = 2", ("a", 1, "b"), 5, id="key in its second"),
        pytest.param("[[a]]\n[a.b]\nc = 1\n[[a]]", ("a", 0, "b", "c"), 3, id="table in a first"),
        pytest.param("[[a]]\n[[a]]\n[a.b]\nc = 1", ("a", 1, "b", "c"), 4, id="table in a second"),
        pytest.param("[[a]]\n[[a.b]]\n[[a.b]]\nc = 1", ("a", 0, "b", 1, "c"), 4, id="array in it"),
        pytest.param("[[a.b]]\n[[a.b]]\nc = 1", ("a", "b", 1, "c"), 3, id="array in a table"),
        pytest.param("a.b.c = 1", ("a", "b", "c"), 1, id="dotted key"),
        pytest.param("[t]\na . b = 1\na.c = 2", ("t", "a", "c"), 3, id="dotted key, second"),
        pytest.param("[t]\na . b = 1\na.c = 2", ("t", "a"), 2, id="what dotted keys mention"),
        pytest.param("3.14 = 1", ("3", "14"), 1, id="key that looks like a number"),
        pytest.param("'a.b' = 1\n'c' = 2", ("c",), 2, id="literal key"),
        pytest.param('"a\\"\\u00e9=" = 1', ('a"é=',), 1, id="escapes in a key"),
        pytest.param('"" = 1', ("",), 1, id="empty key"),
        pytest.param("a = [1,\n 2, # 3,\n\n 4]\nb = 1", ("a", 2), 4, id="element on a later line"),
        pytest.param("a = [1,\n 2, # 3,\n\n 4]\nb = 1", ("b",), 5, id="after a long array"),
        pytest.param("a = [[1],\n[2,\n3,],]\n", ("a", 1, 1), 3, id="array in an array"),
        pytest.param("a = [ # ]\n]\nb = 1", ("b",), 3, id="bracket in a comment"),
        pytest.param("a = {b = 1, c.d = 2}", ("a", "c", "d"), 1, id="inline table"),
        pytest.param("a = [\n{b = 1},\n{b = '}'}]", ("a", 1, "b"), 3, id="inline table in array"),
        pytest.param("a = {}\nb = []\nc = 1", ("c",), 3, id="empty ones"),
        pytest.param('a = """\n[x]\ny = 1\n"""\nb = 1', ("b",), 5, id="multi-line string"),
        pytest.param("a = '''\n\\'''\nb = 1", ("b",), 3, id="multi-line literal"),
        pytest.param('a = """a\\"""\n"""\nb = 1', ("b",), 3, id="escaped quote in it"),
        pytest.param('a = """"b"""""\nb = 1', ("b",), 2, id="quotes next to its quotes"),
        pytest.param("a = ''''b'''''\nb = 1", ("b",), 2, id="the same, literal"),
        pytest.param('a = """"""\nb = 1', ("b",), 2, id="empty multi-line string"),
        pytest.param('a = """\\\n  x"""\nb = 1', ("b",), 3, id="escaped line end"),
        pytest.param('a = ["""\n,]""",\n1]', ("a", 1), 3, id="multi-line string in an array"),
        pytest.param('a = "#\\""\nb = 1', ("b",), 2, id="hash in a string"),
        pytest.param("a = '\\'\nb = 1", ("b",), 2, id="backslash in a literal"),
        pytest.param("a = 1979-05-27 07:32:00\nb = 1", ("b",), 2, id="date with a blank"),
        pytest.param("a = -1.5e3#x\nb = 1", ("b",), 2, id="comment at once after a number"),
        pytest.param("a = 1", ("a", "b", "c"), 1, id="deeper than what is written"),
        pytest.param("\na = 1", ("b",), 1, id="not written"),
    ],
)
def test_line_of_a_key(text: str, keys: Keys, line: int) -> None:
    tomllib.loads(text)  # the case itself is TOML
    assert find_places(text).find(*keys).line == line


def test_the_end_of_a_table_is_where_its_last_key_begins() -> None:
    places = find_places("[a]\nb = 1\n[a.c]\nd = [\n1,\n2]\n[e]\n")
    assert places.find("a").end() == 6
    assert places.find("e").end() == 7
    assert places.end() == 7


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        pytest.param("a = 1\nb 2\n", 2, "not TOML: Expected '=' after a key", id="no equals"),
        pytest.param("\n\n[a\n", 3, "not TOML: Expected ']' at the end of a table", id="header"),
        pytest.param(
            "a = 1\na = 2\n", 2, "not TOML: Cannot overwrite a value (column 6)", id="twice"
        ),
        pytest.param("[a]\n[a]\n", 2, "not TOML: Cannot declare ('a',) twice", id="table twice"),
        pytest.param("\na = [1,\n2\n\n", 3, "not TOML: Unclosed array (end of file)", id="end"),
        pytest.param('a = "\\q"', 1, "not TOML: Unescaped '\\' in a string", id="escape"),
        pytest.param(
            "a = 1\nb = " + "9" * 5000, 2, "not TOML: a number that is too long", id="long"
        ),
        pytest.param("a = " + "[" * 5000, 1, "values nest too deeply", id="deep"),
    ],
)
def test_what_is_not_toml_names_the_line(text: str, line: int, message: str) -> None:
    with pytest.raises(MalformedError) as caught:
        parse(text, "x.toml")
    assert caught.value.place == f"x.toml:{line}"
    assert caught.value.message.startswith(message)


def _table(text: str) -> tuple[Table, Problems]:
    table, _ = parse(text, "x.toml")
    return table, table.problems


def _first(problems: Problems) -> tuple[str | None, str, str | None]:
    with pytest.raises(MalformedError) as caught:
        problems.raise_first()
    return caught.value.place, caught.value.message, caught.value.hint


def test_taking_values_of_every_type() -> None:
    table, problems = _table(
        's = "x"\nb = true\ni = 3\nf = 2\nc = "green"\nl = ["p", "q"]\n'
        "[t]\nk = 1\n[[a]]\nk = 1\n[[a]]\nk = 2\n"
    )
    assert table.text("s") == "x"
    assert table.flag("b")
    assert table.integer("i", 0, 0, 3) == 3
    assert table.seconds("f", 1.0, 2) == 2.0
    assert table.choice("c", Colour) is Colour.GREEN
    assert table.texts("l") == ("p", "q")
    assert table.table("t").integer("k", 0, 0, 9) == 1
    assert [inner.integer("k", 0, 0, 9) for inner in table.array("a")] == [1, 2]
    table.close()
    problems.raise_first()


def test_defaults_of_what_is_absent() -> None:
    table, problems = _table("")
    assert table.text("s", "d") == "d"
    assert not table.flag("b")
    assert table.integer("i", 7, 0, 9) == 7
    assert table.seconds("f", 1.5, 2) == 1.5
    assert table.choice("c", Colour, Colour.GREEN) is Colour.GREEN
    assert table.texts("l") == ()
    assert table.array("a") == []
    assert table.table("t").names() == ()
    problems.raise_first()


@pytest.mark.parametrize(
    ("value", "spelled"),
    [
        pytest.param("true", "true", id="boolean"),
        pytest.param("1.5", "1.5", id="float"),
        pytest.param("7", "7", id="integer"),
        pytest.param("0x1" + "0" * 5000, "a huge integer", id="integer too long to print"),
        pytest.param("[1]", "an array", id="array"),
        pytest.param("{a = 1}", "a table", id="table"),
        pytest.param("1979-05-27", "a date or time", id="date"),
    ],
)
def test_a_wrong_type_is_described(value: str, spelled: str) -> None:
    table, problems = _table(f"\ns = {value}")
    assert table.text("s") == ""
    assert _first(problems) == ("x.toml:2", f"s is {spelled}, expected text", None)


def test_a_control_character_does_not_reach_the_terminal() -> None:
    table, problems = _table('"\\u001b[31m" = 1')
    table.close()
    assert _first(problems)[1] == "unknown key '\\x1b[31m' in the file"


def test_a_boolean_is_no_integer() -> None:
    table, problems = _table("i = true")
    table.integer("i", 0, 0, 9)
    assert _first(problems)[1] == "i is true, expected an integer from 0 to 9"


@pytest.mark.parametrize("value", ["0", "-1", "2.1", "nan", "inf", "0.0"])
def test_seconds_out_of_range(value: str) -> None:
    table, problems = _table(f"f = {value}")
    assert table.seconds("f", 1.0, 2) == 1.0
    assert _first(problems)[1] == f"f is {value}, expected a number above 0, up to 2"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("[1]", "l holds 1, expected an array of text", id="no text"),
        pytest.param("['']", "l holds '', expected an array of text", id="empty text"),
        pytest.param("['a', 'a']", "l holds 'a' twice", id="twice"),
        pytest.param("[]", "l is empty", id="empty"),
    ],
)
def test_an_array_of_text(text: str, message: str) -> None:
    table, problems = _table(f"\nl = {text}")
    table.texts("l", is_required=True)
    assert _first(problems)[:2] == ("x.toml:2", message)


def test_an_array_of_tables_that_holds_something_else() -> None:
    table, problems = _table("[t]\na = [\n{},\n3]")
    table.table("t").array("a")
    expected = "a holds 3, expected tables that begin with [[t.a]]"
    assert _first(problems)[:2] == ("x.toml:4", expected)


def test_a_slip_comes_before_the_missing_key_that_it_causes() -> None:
    table, problems = _table("[t]\n\ntextt = 'x'")
    inner = table.table("t")
    inner.text("text")
    inner.close()
    expected = ("x.toml:3", "unknown key 'textt' in [t]", "did you mean 'text'?")
    assert _first(problems) == expected


def test_a_missing_key_is_placed_at_its_table() -> None:
    table, problems = _table("\n[t]\na = 1")
    table.table("t").text("text")
    expected = ("x.toml:2", "missing key 'text' in [t]", 'add text = "..."')
    assert _first(problems) == expected


def test_problems_come_in_the_order_of_the_file_and_of_any_kind() -> None:
    table, problems = _table("a = 1\nb = 2\nc = 3")
    table.wrong("c", "third")
    table.wrong("b", "second", kind=UsageError)
    table.wrong("b", "second, found later")
    with pytest.raises(UsageError, match=r"^x\.toml:2: second$"):
        problems.raise_first()
    assert len(problems) == 3


def test_the_nearest_word() -> None:
    assert nearest("tees", ["tee", "device"]) == "tee"
    assert nearest("TEE", ["tee", "device"]) == "tee"
    assert nearest("x", ["tee", "device"]) is None
    assert near("devise", ["tee", "device"]) == "did you mean 'device'?"
    assert near("x", ["tee", "device"]) == "known: tee, device"
    assert near("x", []) is None
    assert near("x", [f"n{i}" for i in range(40)]) == (
        "known: n0, n1, n2, n3, n4, n5, n6, n7, n8, n9, n10, n11, ..."
    )
