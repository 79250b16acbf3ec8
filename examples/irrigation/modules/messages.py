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
    """A day of the season has come; the first one is 0."""

    day: int


class Moisture(Struct):
    """The ground on the evening of a day, and what there is to compare it with."""

    day: int
    date: str
    percent: float  # water, in percent of volume
    stressed_days: int  # so far: the lawn wanted more water than it could draw
    timer_water: float  # mm so far, had a timer watered the same lawn
    timer_stressed_days: int


class Rain(Struct):
    """What the weather station collected."""

    day: int
    rain: float  # mm


class Watering(Struct):
    """Water for the lawn: ordered from the valve, or reported by it."""

    day: int
    water: float  # mm; 0 keeps the valve shut


class Season(Struct):
    """The season is over."""

    days: int


class DayReport(Struct):
    """A day as the operator sees it."""

    date: str
    moisture: float  # percent of volume
    rain: float  # mm
    irrigation: float  # mm
