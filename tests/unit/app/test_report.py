"""The report: everything is in it, nothing in it can act, and it is the same twice."""

import re
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broch.app.chart import nice_ticks, points_of, svg_chart, thin, x_ticks
from broch.app.report import html_report, value_text
from broch.app.topology import order, svg_topology

HOSTILE = "<script>alert('x')</script>\"&amp;"


def module(name: str, node: str, **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "node": node,
        "tee": "sgx",
        "emulated": True,
        "measurement": "ab" * 32,
        "signer": None,
        "verdict": "accepted",
        "seals_to": "code",
        "state": "running",
        "restarts": 0,
        "pid": 1,
        "fault": None,
        **changes,
    }


def connection(source: str, target: str, events: int = 3) -> dict[str, Any]:
    more = {"id": 1, "cipher": "aes-128-gcm", "epoch": 1, "gaps": 0, "refused": 0}
    return {"from": source, "to": target, "events": events, **more}


def node(name: str, *, emulated: bool = True) -> dict[str, Any]:
    device = "emulated" if emulated else "native"
    more = {"tee": "sgx", "address": "127.0.0.1:1", "state": "running", "lacks": []}
    return {"name": name, "device": device, "emulated": emulated, **more}


def status(**changes: Any) -> dict[str, Any]:
    return {
        "app": "demo",
        "state": "ended",
        "since": "2026-01-02T03:04:05Z",
        "nodes": [node("left"), node("right")],
        "modules": [module("a", "left"), module("b", "right"), module("c", "right")],
        "connections": [
            connection("a.out", "b.in", 1234),
            connection("b.out", "c.in"),
            connection("a.more", "b.more"),
            connection("c.seen", "operator"),
        ],
        **changes,
    }


CHART = {
    "title": "Water",
    "unit": "mm",
    "x": ["2012-01-01", "2012-01-02", "2012-01-03"],
    "series": {"rain": [0, 2.5, 1], "irrigation": [None, 0, 7]},
}


class Page(HTMLParser):
    """What a browser would see."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_everything_is_in_it() -> None:
    fault = {"time": "12:00", "kind": "fault", "module": "a", "text": "raised ValueError"}
    page = html_report(
        title="A demo",
        status=status(),
        summary={"water_mm": 1788.0},
        charts=[CHART],
        description="what it is",
        faults=[fault],
    )
    text = " ".join(Page(page).text)
    for expected in ("A demo", "what it is", "1,788", "water mm", "Water", "irrigation", "1,234"):
        assert expected in text
    assert "raised ValueError" in text
    assert text.count("accepted") == 2 * 3, "a verdict in the table and one in the picture"
    assert text.count("accepted · emulated") == 3
    assert "emulated hardware on every node" in text


def test_it_loads_nothing() -> None:
    page = html_report(title="", status=status(), charts=[CHART])
    for tag, attributes in Page(page).tags:
        assert tag not in {"script", "link", "img", "iframe", "object", "base", "form", "a"}
        assert not {"src", "href", "onload", "onclick"} & attributes.keys()
    assert "@import" not in page
    assert set(re.findall(r"url\(([^)]*)\)", page)) == {"#head"}
    assert "default-src 'none'" in page


def test_hostile_text_stays_text() -> None:
    hostile_status = status(
        app=HOSTILE,
        since=HOSTILE,
        nodes=[node(HOSTILE), node("right")],
        modules=[
            module(HOSTILE, HOSTILE, verdict=HOSTILE, fault=HOSTILE, state=HOSTILE, restarts=1),
            module("b", "right", measurement=HOSTILE, seals_to=HOSTILE, tee=HOSTILE),
        ],
        connections=[connection("b.out", HOSTILE + ".in")],
    )
    chart = {"title": HOSTILE, "unit": HOSTILE, "x": [HOSTILE, "b"], "series": {HOSTILE: [1, 2]}}
    event = dict.fromkeys(("time", "kind", "module", "text"), HOSTILE)
    page = html_report(
        title=HOSTILE,
        status=hostile_status,
        summary={HOSTILE: HOSTILE},
        charts=[chart],
        description=HOSTILE,
        faults=[event],
    )
    assert "<script" not in page
    assert not any(tag == "script" for tag, _ in Page(page).tags)
    assert "".join(Page(page).text).count("<script>alert('x')</script>\"&amp;") > 10


def test_it_is_the_same_twice() -> None:
    first, second = (html_report(title="", status=status(), charts=[CHART]) for _ in range(2))
    assert first == second


def test_pictures_are_well_formed() -> None:
    for picture in (svg_topology(status()), svg_chart(CHART)):
        assert ElementTree.fromstring(picture).tag == "svg"


def test_one_arrow_for_all_connections_between_two() -> None:
    picture = svg_topology(status())
    assert picture.count('class="arrow"') == 3
    assert ">1,237<" in picture


def test_real_hardware_is_called_so() -> None:
    real = status(nodes=[node("left", emulated=False)], modules=[], connections=[])
    assert "real hardware on every node" in html_report(title="", status=real)
    mixed = status(nodes=[node("left", emulated=False), node("right")])
    assert "emulated hardware on right" in html_report(title="", status=mixed)


def test_those_who_talk_stand_side_by_side() -> None:
    links = [("field", "farm"), ("farm", "cloud"), ("cloud", "")]
    assert order(["cloud", "farm", "field", ""], links) == ["field", "farm", "cloud", ""]
    assert order(["b", "a"], []) == ["b", "a"]
    many = [str(n) for n in range(20)]
    assert order(many, [("0", "19")]) == many


def test_an_application_without_anything_is_drawn() -> None:
    assert "<svg" in svg_topology(status(nodes=[], modules=[], connections=[]))


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 10, [0, 2, 4, 6, 8, 10]),
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (21.3, 27, [20, 22, 24, 26, 28]),
        (-3, 3, [-4, -2, 0, 2, 4]),
    ],
)
def test_ticks_are_round(low: float, high: float, ticks: list[float]) -> None:
    assert nice_ticks(low, high, 5) == ticks


@pytest.mark.parametrize(
    ("days", "labels"),
    [
        (["2012-01-01", "2015-12-31"], "2012 Jul 2013 Jul 2014 Jul 2015 Jul"),
        (["2012-01-01", "2012-12-31"], "2012 Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec"),
        (["2012-01-08", "2012-01-01"], "01_Jan 02_Jan 03_Jan 04_Jan 05_Jan 06_Jan 07_Jan 08_Jan"),
    ],
)  # fmt: skip
def test_dates_under_the_axis(days: list[str], labels: str) -> None:
    names, positions, _ = points_of({"x": days, "series": {}})
    assert positions == sorted(positions)
    found = [label.replace(" ", "_") for _, label in x_ticks(names, positions)]
    assert found == labels.split()


def test_points_are_in_order_and_once() -> None:
    chart = {"x": [3, 1, 2, 1], "series": {"a": [30, 0, 20, 10]}}
    assert points_of(chart) == (["1", "2", "3"], [1, 2, 3], {"a": [10, 20, 30]})


def test_thinning_keeps_extremes() -> None:
    points = [(float(n), float(n % 7)) for n in range(100_000)]
    points[54_321] = (54_321.0, 99.0)
    kept = thin(points)
    assert len(kept) < 5000
    assert (54_321.0, 99.0) in kept
    assert kept == sorted(kept)


@given(
    st.lists(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()), max_size=9
    ),
    st.lists(st.one_of(st.none(), st.integers(), st.floats(), st.text()), max_size=9),
)
def test_any_points_give_a_picture(x: list[Any], y: list[Any]) -> None:
    picture = svg_chart({"title": "t", "unit": "", "x": x, "series": {"a": y}})
    assert picture.startswith(("<svg", '<p class="none">'))
    for place in re.findall(r' (?:points|[xy][12]?|c[xy])="([^"]*)"', picture):
        assert not re.search("[a-z]", place.replace("e+", "").replace("e-", "")), place


@pytest.mark.parametrize(
    ("value", "text"),
    [(1461, "1,461"), (18.74, "18.7"), (2.0, "2"), (True, "yes"), (None, "-"), ("x", "x")],
)
def test_values_for_people(value: object, text: str) -> None:
    assert value_text(value) == text
