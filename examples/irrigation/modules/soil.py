"""The soil sensor: it keeps the water balance of the root zone and tells how moist the ground is.

A day goes round a circle. This module takes the day's weather from its device side, reports the
moisture, and goes on to the next day when the valve says how much water it gave. So the season
advances as fast as the events travel, and its outcome does not depend on their timing.

An event that is lost (a module was restarted) stops the circle; `kick` then reports the same day
again, and every module answers a day that it has seen as it did before. The balance is stored once
in thirty days: a soil sensor that is restarted goes back to the last of these, and comes to the
same balance again. When a season is over it is forgotten, and the next start begins a new one.
"""

import secrets
from dataclasses import asdict, dataclass, replace
from datetime import date

from broch import Module

from .balance import (
    LAWN_ON_LOAM,
    extraterrestrial_radiation,
    reference_evapotranspiration,
)
from .messages import Day, Moisture, Sample, Season, Watering

LATITUDE = 47.6  # Seattle, degrees north
STORE_EVERY = 30  # days

module = Module("soil")
day = module.output("day", Day)
moisture = module.output("moisture", Moisture)
over = module.output("over", Season)
sample = module.ocall("sample", int, Sample | None)  # None: the season is over


@dataclass(frozen=True)
class Balance:
    """The lawn, and the same lawn had a timer watered it."""

    season: int
    day: int = 0
    depletion: float = 0.0  # mm missing to field capacity
    irrigations: int = 0
    water: float = 0.0  # mm
    stressed_days: int = 0
    timer_depletion: float = 0.0
    timer_stressed_days: int = 0
    timer_water: float = 0.0


class State:
    """What changes while the module runs: the day that is open until the valve has answered."""

    date: str = ""  # empty when the season is over
    evening: Balance | None = None  # before the lawn is watered
    kicked: int = -1  # the day that was open when `kick` last looked


@module.every(1.0)
def kick() -> None:
    if State.evening is None:
        if "balance" not in module.store:
            module.store["balance"] = asdict(Balance(season=secrets.randbits(48)))
        begin(Balance(**module.store["balance"]))
    elif State.evening.day == State.kicked:
        report(State.evening)
    if State.evening is not None:
        State.kicked = State.evening.day


@module.input
def watered(watering: Watering) -> None:
    evening = State.evening
    if evening is None or not State.date:
        return
    if (watering.season, watering.day) != (evening.season, evening.day):
        return  # an answer to a day that is closed
    morning = replace(
        evening,
        day=evening.day + 1,
        depletion=max(0.0, evening.depletion - watering.water),
        irrigations=evening.irrigations + (watering.water > 0),
        water=evening.water + watering.water,
    )
    if morning.day % STORE_EVERY == 0:
        module.store["balance"] = asdict(morning)
    begin(morning)


def begin(morning: Balance) -> None:
    """Open the next day."""
    weather = sample(morning.day)
    State.date = weather.date if weather else ""
    State.evening = through_the_day(morning, weather) if weather else morning
    if not weather:
        module.store.clear()
    report(State.evening)


def through_the_day(morning: Balance, weather: Sample) -> Balance:
    """What rain, sun and the timer make of a day."""
    radiation = extraterrestrial_radiation(LATITUDE, weather.day_of_year)
    wanted = reference_evapotranspiration(weather.temp_min, weather.temp_max, radiation)
    ground = LAWN_ON_LOAM
    depletion = ground.next_day(morning.depletion, weather.rain, wanted)
    timed = ground.next_day(morning.timer_depletion, weather.rain, wanted)
    timer = timer_water(date.fromisoformat(weather.date))
    return replace(
        morning,
        depletion=depletion,
        stressed_days=morning.stressed_days + (ground.stress(depletion) < 1),
        timer_depletion=max(0.0, timed - timer),
        timer_stressed_days=morning.timer_stressed_days + (ground.stress(timed) < 1),
        timer_water=morning.timer_water + timer,
    )


def timer_water(today: date) -> float:
    """The gardener's rule, in mm: an inch a week (25 mm on Mondays), from May to September."""
    return 25.0 if 5 <= today.month <= 9 and today.weekday() == 0 else 0.0


def report(evening: Balance) -> None:
    """Say how the open day is, so that the others decide what it gets."""
    if not State.date:
        over.emit(Season(season=evening.season, days=evening.day))
        return
    day.emit(Day(season=evening.season, day=evening.day))
    moisture.emit(
        Moisture(
            season=evening.season,
            day=evening.day,
            date=State.date,
            percent=LAWN_ON_LOAM.percent(evening.depletion),
            irrigations=evening.irrigations,
            water=evening.water,
            stressed_days=evening.stressed_days,
            timer_water=evening.timer_water,
            timer_stressed_days=evening.timer_stressed_days,
        )
    )
