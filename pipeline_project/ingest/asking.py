"""Which changed days to ask for now: not those in flight, failed ones again after a while, hopeless ones not until their data changes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

from pipeline_project.settings.tree import AutomationSettings


@dataclass(frozen=True)
class PastRun:
    """A run that was to take in a day.

    Attributes:
        fingerprint: of the state of the day that it was asked for; None where a person started it.
        attempt: counts the runs that were asked for one fingerprint, from 1.
        ended: None while it is queued or running.
        fault: why the same data would fail again, where that is known; None where another try may help.
        good: whether it took the day in.
    """

    run_id: str
    fingerprint: str | None
    attempt: int
    ended: datetime | None
    fault: str | None = None
    good: bool = False


@dataclass(frozen=True)
class StuckDay:
    """A day that waits for a person: the state it is in, why, and since when."""

    fingerprint: str
    why: str
    since: datetime
    run_id: str


@dataclass(frozen=True)
class AskedDay:
    """A day to take in, in the state that its fingerprint stands for."""

    day: date
    fingerprint: str
    attempt: int

    @property
    def key(self) -> str:
        """The same for the same attempt only: what was asked for under a key is never asked for under it again."""
        return f"{self.day}-{self.fingerprint}-{self.attempt}"


@dataclass(frozen=True)
class DayPlan:
    """What to do about each changed day; every one of them is in exactly one place."""

    asked: list[AskedDay] = field(default_factory=list)
    in_flight: list[date] = field(default_factory=list)
    later: dict[date, datetime] = field(default_factory=dict)
    """When a failed day is asked for again."""
    stuck: dict[date, StuckDay] = field(default_factory=dict)
    """Days that wait for a person."""
    left_over: list[date] = field(default_factory=list)
    """Days for the next tick: this one asks for enough."""

    def in_words(self) -> str:
        """Why the days that are not asked for are not; empty where there are none."""
        parts = [f"in flight: {_listed(self.in_flight)}"] if self.in_flight else []
        parts += [f"{day} is tried again after {due:%Y-%m-%d %H:%M} UTC" for day, due in self.later.items()]
        parts += [f"{day} waits for a person: {stuck.why}" for day, stuck in self.stuck.items()]
        parts += [f"left for the next tick: {_listed(self.left_over)}"] if self.left_over else []
        return "; ".join(parts)


def plan_days(
    changes: Mapping[date, str], past: Mapping[date, Sequence[PastRun]], now: datetime, automation: AutomationSettings
) -> DayPlan:
    """Decide about changed days, oldest first.

    A day is tried `automation.max_attempts` times in one state, with `automation.retry_minutes` before the second try and twice as long
    before each further one. A changed fingerprint starts over, and so does a state that came back after another one was taken in. At most
    `automation.max_days_a_tick` days are asked for; days in flight, waiting or stuck do not count.

    Args:
        changes: {day: fingerprint} of the days that differ from what was last taken in.
        past: what is known of earlier runs of these days.
    """
    plan = DayPlan()
    for day, fingerprint in sorted(changes.items()):
        runs = past.get(day, ())
        if any(run.ended is None for run in runs):
            plan.in_flight.append(day)
            continue
        last_attempt = max((run.attempt for run in runs if run.fingerprint == fingerprint), default=0)
        tries, before = _tries(runs, fingerprint)
        if tries:
            ended, last = tries[-1]
            attempts = last_attempt - before
            due = ended + timedelta(minutes=automation.retry_minutes * 2 ** (attempts - 1))
            if last.fault is not None:
                plan.stuck[day] = StuckDay(fingerprint, f"{last.fault} (run {last.run_id})", ended, last.run_id)
            elif attempts >= automation.max_attempts:
                why = f"tried {attempts} times, last by run {last.run_id}: look there, mend it, materialize the day"
                plan.stuck[day] = StuckDay(fingerprint, why, ended, last.run_id)
            elif now < due:
                plan.later[day] = due
            if last.fault is not None or attempts >= automation.max_attempts or now < due:
                continue
        if len(plan.asked) < automation.max_days_a_tick:
            plan.asked.append(AskedDay(day, fingerprint, last_attempt + 1))
        else:
            plan.left_over.append(day)
    return plan


def _tries(runs: Sequence[PastRun], fingerprint: str) -> tuple[list[tuple[datetime, PastRun]], int]:
    """The runs for this state of the day since another state was taken in, oldest first; and the last attempt before that."""
    ended = sorted(((run.ended, run) for run in runs if run.ended is not None), key=lambda item: (item[0], item[1].attempt))
    other = max((moment for moment, run in ended if run.good and run.fingerprint != fingerprint), default=None)
    mine = [(moment, run) for moment, run in ended if run.fingerprint == fingerprint]
    before = max((run.attempt for moment, run in mine if other and moment <= other), default=0)
    return [(moment, run) for moment, run in mine if not other or moment > other], before


def _listed(days: Sequence[date], shown: int = 10) -> str:
    more = len(days) - shown
    return ", ".join(map(str, days[:shown])) + (f" and {more} more" if more > 0 else "")
