"""What every benchmark reports alike: progress lines, intervals, the machine."""

import os
import platform
import random
import statistics
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path


def say(line: str) -> None:
    """One progress line."""
    print(f"[{datetime.now(UTC):%H:%M:%S}] {line}", flush=True)


def interval(values: Sequence[float], draws: int = 2000) -> list[float]:
    """95% bootstrap interval of the median; of three rounds it is no more than their range."""
    drawn = random.Random(0)
    medians = sorted(statistics.median(drawn.choices(values, k=len(values))) for _ in range(draws))
    return [round(medians[int(draws * 0.025)], 4), round(medians[int(draws * 0.975)], 4)]


def machine() -> dict[str, object]:
    """Where the figures were taken, and how busy it was."""
    return {
        "cpus": os.cpu_count(),
        "processor": _processor(),
        "python": platform.python_version(),
        "load_average": [round(value, 2) for value in os.getloadavg()],
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
