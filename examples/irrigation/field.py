"""The field, outside all enclaves: what the sensors measure, and what the valve drives.

These functions are the devices' own side: they serve the modules' ocalls and are not trusted. The
weather is real: what the NOAA station at Seattle-Tacoma measured from 2012 to 2015, as the package
vega-datasets ships it. The file is read from the installed package, whose code is not run.
"""

import csv
import importlib.util
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

HOW_TO_INSTALL = "pip install --no-deps vega-datasets"


def weather_file() -> Path:
    """Where the package keeps the weather; found without importing it."""
    spec = importlib.util.find_spec("vega_datasets")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder, "_data", "seattle-weather.csv")
        if path.is_file():
            return path
    raise FileNotFoundError(f"the weather of Seattle is not installed: {HOW_TO_INSTALL}")


def read_day(row: Mapping[str, str]) -> dict[str, Any]:
    """A row of the file as the soil sensor wants it."""
    today = date.fromisoformat(row["date"].replace("/", "-"))
    return {
        "date": today.isoformat(),
        "day_of_year": today.timetuple().tm_yday,
        "rain": float(row["precipitation"]),
        "temp_min": float(row["temp_min"]),
        "temp_max": float(row["temp_max"]),
    }


def read_season() -> tuple[dict[str, Any], ...]:
    """The days, in order."""
    with weather_file().open(newline="", encoding="ascii") as file:
        return tuple(map(read_day, csv.DictReader(file)))


#: Read when the application starts, so that a file that is missing is missed then.
SEASON = read_season()


def sample(day: int) -> dict[str, Any] | None:
    """The soil sensor's: the weather at the field on a day, None after the last one."""
    return SEASON[day] if day < len(SEASON) else None


def collected(day: int) -> float:
    """The weather station's: the rain of a day, in mm."""
    return float(SEASON[day]["rain"])


def drive(order: Mapping[str, Any]) -> None:
    """The valve's motor. In the emulated field there is nothing to turn."""
