"""The controller: it decides how much water the lawn gets, and sums the season up.

It decides on a day when both reports of that day are in. The decision depends on these two and
nothing else, so a day that is asked again gets the same answer, and there is nothing to store: the
totals come with the reports.
"""

from broch import Module, Struct

from .messages import DayReport, Finished, Moisture, Rain, Season, Watering

DRY = 22.0  # percent of volume: below it the lawn is watered, a little before it suffers (21)
MOIST = 24.0  # percent: up to which it is watered, so that rain still finds room (27 is full)
MM_PER_PERCENT = 5.0  # water that lifts the moisture of a root zone of 0.5 m by one percent
MOST = 15.0  # mm a day
RAINY = 3.0  # mm: after that much rain, watering can wait a day

module = Module("controller")
watering = module.output("watering", Watering)
day = module.output("day", DayReport)
finished = module.output("finished", Finished)


class Summary(Struct):
    days: int = 0
    irrigations: int = 0
    water_mm: float = 0.0
    timer_water_mm: float = 0.0
    water_saved_percent: float = 0.0
    stressed_days: int = 0
    timer_stressed_days: int = 0


class State:
    """What changes while the module runs."""

    moisture: Moisture | None = None  # the latest
    rain: Rain | None = None
    order: Watering | None = None  # of the last day
    over: Season | None = None


@module.input
def moisture(reading: Moisture) -> None:
    State.moisture = reading
    decide()


@module.input
def rain(reading: Rain) -> None:
    State.rain = reading
    decide()


@module.input
def over(season: Season) -> None:
    if season != State.over:
        State.over = season
        finished.emit(Finished(days=season.days))


@module.entry
def summary() -> Summary:
    """The season so far, against a timer that waters 25 mm a week from May to September."""
    reading, order = State.moisture, State.order
    if reading is None:
        return Summary()
    today = order.water if order and order.day == reading.day else 0.0
    water, timer = reading.water + today, reading.timer_water
    return Summary(
        days=reading.day + 1,
        irrigations=reading.irrigations + (today > 0),
        water_mm=round(water, 1),
        timer_water_mm=round(timer, 1),
        water_saved_percent=round(100 * (1 - water / timer), 1) if timer else 0.0,
        stressed_days=reading.stressed_days,
        timer_stressed_days=reading.timer_stressed_days,
    )


def decide() -> None:
    """Order water for the day whose reports are both in; tell the operator of it once."""
    reading, station = State.moisture, State.rain
    if reading is None or station is None:
        return
    if (reading.season, reading.day) != (station.season, station.day):
        return
    water = water_for(reading.percent, station.rain)
    order = Watering(season=reading.season, day=reading.day, water=water)
    if is_later(order, State.order):
        State.order = order
        day.emit(
            DayReport(
                date=reading.date,
                moisture=round(reading.percent, 2),
                rain=station.rain,
                irrigation=water,
            )
        )
    watering.emit(order)


def is_later(order: Watering, other: Watering | None) -> bool:
    return other is None or order.season != other.season or order.day > other.day


def water_for(percent: float, rained: float) -> float:
    """mm for a lawn of this moisture, on a day with so much rain."""
    if percent >= DRY or rained >= RAINY:
        return 0.0
    return round(min(MOST, (MOIST - percent) * MM_PER_PERCENT), 1)
