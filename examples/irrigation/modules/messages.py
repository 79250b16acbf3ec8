"""What the modules say to each other: one file, measured with every module that uses it."""

from broch import Struct


class Sample(Struct):
    """What the soil sensor's device side knows of a day: the weather at the field."""

    date: str  # YYYY-MM-DD
    day_of_year: int  # 1 to 366
    rain: float  # mm
    temp_min: float  # Celsius
    temp_max: float  # Celsius


class Day(Struct):
    """A day of a season has come; the first one is 0. Seasons have numbers by chance."""

    season: int
    day: int


class Moisture(Struct):
    """The ground on the evening of a day, and the season so far."""

    season: int
    day: int
    date: str
    percent: float  # water, in percent of volume
    irrigations: int
    water: float  # mm that the valve gave
    stressed_days: int  # on which the lawn wanted more water than it could draw
    timer_water: float  # mm, had a timer watered the same lawn
    timer_stressed_days: int


class Rain(Struct):
    """What the weather station collected."""

    season: int
    day: int
    rain: float  # mm


class Watering(Struct):
    """Water for the lawn: ordered from the valve, or reported by it."""

    season: int
    day: int
    water: float  # mm; 0 keeps the valve shut


class Season(Struct):
    """A season is over."""

    season: int
    days: int


class DayReport(Struct):
    """A day as the operator sees it."""

    date: str
    moisture: float  # percent of volume
    rain: float  # mm
    irrigation: float  # mm


class Finished(Struct):
    """The last thing that the operator sees."""

    days: int
