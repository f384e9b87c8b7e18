"""Assets that follow their upstream: when they must, when they must not, and never twice for the same."""

import dagster as dg
import pytest

from pipeline_project_tests.defs.automation.conftest import D, World

pytestmark = pytest.mark.slow


def days(name: str, *wanted: str) -> set[tuple[str, str]]:
    return {(name, day) for day in wanted}


def test_a_good_day_is_followed_to_the_end_in_one_run_a_day_and_one_of_all_days(world: World) -> None:
    world.run("raw", day=D[3])
    assert world.settle() == [days("manifest", D[3]) | days("pack", D[3]), {("splits", None)}]


def test_what_was_there_before_the_first_look_is_no_update(instance: dg.DagsterInstance) -> None:
    World(instance).run("raw", day=D[3])
    assert World(instance).settle() == []


def test_a_day_that_failed_its_blocking_check_is_not_followed(world: World) -> None:
    world.bad.add(("raw", D[3]))
    world.run("raw", day=D[3])
    assert world.settle() == []


def test_a_tick_between_materialization_and_check_neither_fires_too_early_nor_loses_the_trigger(world: World) -> None:
    between: list[object] = []
    world.during_check["raw"] = lambda: between.append(world.tick())
    world.run("raw", day=D[3])
    assert between == [set()]
    assert world.tick() == days("manifest", D[3]) | days("pack", D[3])


@pytest.mark.parametrize("instance", ["memory", "disk"], indirect=True)
def test_a_tick_between_materialization_and_a_check_that_fails_is_not_fooled_by_the_day_having_passed_before(world: World) -> None:
    world.run("raw", day=D[3])
    world.settle()
    world.bad.add(("raw", D[3]))
    world.during_check["raw"] = lambda: world.tick() and None
    world.run("raw", day=D[3])
    assert world.settle() == []


def test_nothing_is_asked_for_that_the_same_run_does_already(world: World) -> None:
    seen: list[object] = []
    world.during_check["manifest"] = lambda: seen.append(world.tick())
    for day in D[:5]:
        world.run("raw", "manifest", "pack", day=day)
    assert seen == [set()] * 5
    assert world.settle() == [{("splits", None)}]


def test_a_burst_of_twenty_days_in_one_tick_is_asked_for_once(world: World) -> None:
    for day in D:
        world.run("raw", "manifest", "pack", day=day)
    assert world.settle() == [{("splits", None)}]
    for day in D:
        world.run("raw", day=day)
    assert world.settle() == [days("manifest", *D) | days("pack", *D), {("splits", None)}]


def test_a_run_that_failed_half_way_is_its_own_business(world: World) -> None:
    world.broken.add(("manifest", D[3]))
    assert not world.run("raw", "manifest", "pack", day=D[3]).success
    assert world.settle() == []


def test_what_was_asked_for_and_failed_is_not_asked_for_again_before_the_upstream_changes(world: World) -> None:
    world.broken.add(("manifest", D[3]))
    world.run("raw", day=D[3])
    assert len(world.settle()) == 1
    world.broken.clear()
    assert world.settle() == []
    world.run("raw", day=D[3])
    assert len(world.settle()) == 2


def test_a_late_day_is_followed_although_newer_ones_are_there(world: World) -> None:
    world.run("raw", "manifest", "pack", day=D[9])
    world.settle()
    world.run("raw", day=D[2])
    assert world.settle() == [days("manifest", D[2]) | days("pack", D[2]), {("splits", None)}]


@pytest.mark.parametrize("instance", ["memory", "disk"], indirect=True)
def test_all_days_follow_good_days_beside_empty_and_failed_ones(world: World) -> None:
    world.bad |= {("manifest", D[2]), ("raw", D[5])}
    for day in (D[2], D[5]):
        world.run("raw", "manifest", "pack", day=day)
    assert world.settle() == [], "bad days trigger nothing"
    world.run("raw", "manifest", "pack", day=D[4])
    assert world.settle() == [{("splits", None)}], "a good day does, and the bad ones are not counted in"


def test_a_failed_day_that_is_repaired_later_is_followed(world: World) -> None:
    world.bad.add(("raw", D[2]))
    world.run("raw", day=D[2])
    world.run("raw", day=D[4])
    assert world.settle()[0] == days("manifest", D[4]) | days("pack", D[4])
    world.bad.clear()
    world.run("raw", day=D[2])
    assert world.settle() == [days("manifest", D[2]) | days("pack", D[2]), {("splits", None)}]


def test_a_day_whose_check_passes_when_it_runs_again_is_followed_although_another_day_passed_meanwhile(world: World) -> None:
    world.bad.add(("raw", D[2]))
    world.run("raw", day=D[2])
    assert world.settle() == []
    world.run("raw", day=D[4])
    world.settle()
    world.bad.clear()
    world.check_again("raw", D[2])
    assert world.settle() == [days("manifest", D[2]) | days("pack", D[2]), {("splits", None)}]


def test_an_update_that_was_bad_when_the_asset_last_ran_counts_once_it_is_good(world: World) -> None:
    world.bad.add(("log", D[2]))
    world.run("truth", "log", day=D[2])
    assert world.settle() == []
    world.run("truth", "log", day=D[4])
    assert ("ab", None) in world.settle()[0]
    world.bad.clear()
    world.check_again("log", D[2])
    assert world.settle() == [{("ab", None), ("drift", D[2]), ("performance", D[2])}]


def test_a_materialization_that_its_check_has_not_looked_at_waits(world: World) -> None:
    world.run("raw", day=D[2])
    world.settle()
    world.run_without_checks("raw", D[2])
    assert world.settle() == [], "the pass that is there is of the materialization before"
    world.check_again("raw", D[2])
    assert world.tick() == days("manifest", D[2]) | days("pack", D[2])


def test_a_dependency_in_progress_holds_the_trigger_and_does_not_lose_it(world: World) -> None:
    world.run("raw", "manifest", "pack", day=D[1])
    run = world.start("manifest", "pack", day=D[2])
    assert world.tick() == set()
    assert world.tick() == set()
    world.instance.report_run_failed(run)
    assert world.settle() == [{("splits", None)}]


def test_an_asset_in_progress_is_not_asked_for_and_not_forgotten(world: World) -> None:
    world.run("raw", day=D[1])
    run = world.start("manifest", day=D[1])
    assert world.tick() == set()
    world.instance.report_run_failed(run)
    assert ("manifest", D[1]) in world.tick()


def test_what_a_person_ran_by_hand_meanwhile_is_not_asked_for(world: World) -> None:
    world.run("raw", "manifest", "pack", day=D[1])
    world.run("splits")
    assert world.settle() == []


@pytest.mark.parametrize("instance", ["memory", "disk"], indirect=True)
def test_an_update_during_a_run_of_the_asset_is_not_lost(world: World) -> None:
    """The run had read its inputs before the day was there."""
    world.run("raw", "manifest", "pack", day=D[1])
    world.during_step["splits"] = lambda: world.run("raw", "manifest", "pack", day=D[2]) and None
    assert world.settle() == [{("splits", None)}, {("splits", None)}]


def test_a_new_dataset_does_not_ask_for_every_day_there_ever_was(world: World) -> None:
    world.run("log", "truth", day=D[1])
    world.settle()
    world.run("splits")
    assert world.settle() == []


def test_monitoring_follows_the_log_and_late_truth_once(world: World) -> None:
    ab = {("ab", None)}
    world.run("log", "truth", day=D[1])
    assert world.settle() == [days("drift", D[1]) | days("performance", D[1]) | ab]
    world.run("truth", day=D[1])
    assert world.settle() == [days("performance", D[1]) | ab]
    world.run("log", day=D[2])
    assert world.settle() == [days("drift", D[2])], "without a truth of that day there is nothing to report on yet"
    world.run("truth", day=D[2])
    assert world.settle() == [days("performance", D[2]) | ab]


def test_an_asset_of_all_days_follows_another_one(world: World) -> None:
    world.bad.add(("model", None))
    world.run("model")
    assert world.settle() == []
    world.bad.clear()
    world.run("model")
    assert world.settle() == [{("dossier", None)}]
