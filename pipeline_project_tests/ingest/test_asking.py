"""Which changed days are asked for: in flight, failed, hopeless and left-over ones, and that none of them starves the others."""

from datetime import UTC, date, datetime, timedelta

import pytest

from pipeline_project.ingest.asking import AskedDay, PastRun, StuckDay, plan_days
from pipeline_project.settings.tree import AutomationSettings

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
DAY = date(2026, 11, 1)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def automation() -> AutomationSettings:
    return AutomationSettings(default="running", max_days_a_tick=3, max_attempts=3, retry_minutes=5)


def failed(attempt: int, ago: timedelta, *, fingerprint: str | None = "f", fault: str | None = None) -> PastRun:
    return PastRun(f"run-{attempt}", fingerprint, attempt, NOW - ago, fault)


def succeeded(ago: timedelta, fingerprint: str | None, attempt: int = 1) -> PastRun:
    return PastRun(f"good-{attempt}", fingerprint, attempt, NOW - ago, good=True)


def test_a_new_day_is_asked_for_with_a_key_of_its_own(automation: AutomationSettings) -> None:
    plan = plan_days({DAY: "f"}, {}, NOW, automation)
    assert plan.asked == [AskedDay(DAY, "f", 1)]
    assert plan.asked[0].key == "2026-11-01-f-1"
    assert plan.in_words() == ""


@pytest.mark.parametrize("fingerprint", ["f", "older", None], ids=["the sensor's", "of an earlier state", "a person's"])
def test_a_day_in_flight_is_not_asked_for_whoever_started_it(automation: AutomationSettings, fingerprint: str | None) -> None:
    plan = plan_days({DAY: "f"}, {DAY: [PastRun("r", fingerprint, 1, None)]}, NOW, automation)
    assert (plan.asked, plan.in_flight) == ([], [DAY])
    assert "in flight: 2026-11-01" in plan.in_words()


@pytest.mark.parametrize(("attempts", "wait"), [(1, 5), (2, 10)])
def test_a_failed_day_is_asked_for_again_after_a_wait_that_doubles(automation: AutomationSettings, attempts: int, wait: int) -> None:
    def plan(ago: timedelta) -> object:
        runs = [failed(n, ago + (attempts - n) * timedelta(hours=1)) for n in range(1, attempts + 1)]
        return plan_days({DAY: "f"}, {DAY: runs}, NOW, automation)

    early, due = plan((wait - 1) * MINUTE), plan(wait * MINUTE)
    assert early.asked == []  # type: ignore[attr-defined]
    assert early.later == {DAY: NOW + MINUTE}  # type: ignore[attr-defined]
    assert due.asked == [AskedDay(DAY, "f", attempts + 1)]  # type: ignore[attr-defined]


def test_after_the_last_attempt_a_person_must_look(automation: AutomationSettings) -> None:
    runs = [failed(n, timedelta(days=4 - n)) for n in (1, 2, 3)]
    plan = plan_days({DAY: "f"}, {DAY: runs}, NOW, automation)
    assert plan.asked == []
    assert "tried 3 times, last by run run-3" in plan.stuck[DAY].why
    assert (plan.stuck[DAY].fingerprint, plan.stuck[DAY].since, plan.stuck[DAY].run_id) == ("f", NOW - timedelta(days=1), "run-3")
    assert "2026-11-01 waits for a person" in plan.in_words()


def test_bad_data_is_not_tried_twice(automation: AutomationSettings) -> None:
    plan = plan_days({DAY: "f"}, {DAY: [failed(1, timedelta(days=1), fault="reject_rate failed")]}, NOW, automation)
    assert plan.asked == []
    assert plan.stuck == {DAY: StuckDay("f", "reject_rate failed (run run-1)", NOW - timedelta(days=1), "run-1")}


def test_a_changed_fingerprint_starts_over(automation: AutomationSettings) -> None:
    runs = [failed(n, MINUTE, fault="bad") for n in (1, 2, 3)]
    assert plan_days({DAY: "g"}, {DAY: runs}, NOW, automation).asked == [AskedDay(DAY, "g", 1)]


def test_a_state_that_came_back_is_asked_for_at_once_and_under_a_key_of_its_own(automation: AutomationSettings) -> None:
    runs = [succeeded(3 * MINUTE, "f"), succeeded(2 * MINUTE, "g")]  # an object was added, and removed again
    assert plan_days({DAY: "f"}, {DAY: runs}, NOW, automation).asked == [AskedDay(DAY, "f", 2)]


def test_a_state_that_came_back_has_all_its_attempts_again(automation: AutomationSettings) -> None:
    hour = timedelta(hours=1)
    runs = [*(failed(n, (9 - n) * hour) for n in (1, 2, 3)), succeeded(5 * hour, "g"), failed(4, 4 * hour)]
    assert plan_days({DAY: "f"}, {DAY: runs}, NOW, automation).asked == [AskedDay(DAY, "f", 5)]
    runs += [failed(5, 3 * hour), failed(6, 2 * hour)]
    assert "tried 3 times" in plan_days({DAY: "f"}, {DAY: runs}, NOW, automation).stuck[DAY].why


def test_a_day_that_its_runs_take_in_and_that_differs_all_the_same_is_not_asked_for_without_end(automation: AutomationSettings) -> None:
    runs = [succeeded(MINUTE, "f")]
    assert list(plan_days({DAY: "f"}, {DAY: runs}, NOW, automation).later) == [DAY]
    runs = [succeeded(timedelta(hours=4 - n), "f", n) for n in (1, 2, 3)]
    assert "tried 3 times" in plan_days({DAY: "f"}, {DAY: runs}, NOW, automation).stuck[DAY].why


def test_a_persons_failed_run_costs_no_attempt(automation: AutomationSettings) -> None:
    assert plan_days({DAY: "f"}, {DAY: [failed(1, MINUTE, fingerprint=None)]}, NOW, automation).asked == [AskedDay(DAY, "f", 1)]


def test_days_that_wait_do_not_starve_the_others(automation: AutomationSettings) -> None:
    days = [DAY + timedelta(days=n) for n in range(20)]
    past = {days[n]: [failed(1, timedelta(days=1), fault="bad")] for n in range(5)}
    past |= {days[n]: [PastRun("r", "f", 1, None)] for n in range(5, 10)}
    past |= {days[n]: [failed(1, MINUTE)] for n in range(10, 15)}
    plan = plan_days(dict.fromkeys(days, "f"), past, NOW, automation)
    assert [asked.day for asked in plan.asked] == days[15:18]
    assert plan.left_over == days[18:]
    placed = [*(a.day for a in plan.asked), *plan.in_flight, *plan.later, *plan.stuck, *plan.left_over]
    assert sorted(placed) == days, "every day is in exactly one place"
