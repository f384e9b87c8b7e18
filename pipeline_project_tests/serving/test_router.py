"""Sticky, weighted, and moving as few requests as possible."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_project.contracts import Route
from pipeline_project.serving.router import Router, unit_interval

IDS = [f"request-{n}" for n in range(4000)]
weights = st.floats(0, 1)


def routes(**by_name: float) -> list[Route]:
    return [Route(name=name, package="0" * 64, weight=weight) for name, weight in by_name.items()]  # type: ignore[arg-type]


@given(st.text(), st.text())
def test_places_are_in_the_unit_interval_and_fixed(request_id: str, purpose: str) -> None:
    place = unit_interval(request_id, purpose)
    assert 0 <= place < 1
    assert place == unit_interval(request_id, purpose)


@given(canary=weights, share=weights)
def test_weights_are_obeyed_within_binomial_bounds(canary: float, share: float) -> None:
    challenger = (1 - canary) * share
    wanted = {"champion": 1 - canary - challenger, "canary": canary, "challenger": challenger}
    router = Router(routes(**{name: min(1.0, max(0.0, weight)) for name, weight in wanted.items()}))
    seen = [router.route_request(request_id).name for request_id in IDS]
    for name, weight in wanted.items():
        deviation = math.sqrt(len(IDS) * max(0, weight * (1 - weight))) * 5 + 2
        assert abs(seen.count(name) - weight * len(IDS)) <= deviation


@given(low=weights, high=weights, challenger=st.floats(0, 0.5))
def test_raising_the_canary_moves_requests_from_the_champion_to_the_canary_only(low: float, high: float, challenger: float) -> None:
    room = 1 - challenger
    low, high = sorted((low * room, high * room))
    before = Router(routes(champion=max(0.0, room - low), canary=low, challenger=challenger))
    after = Router(routes(champion=max(0.0, room - high), canary=high, challenger=challenger))
    for request_id in IDS[:500]:
        was, now = before.route_request(request_id).name, after.route_request(request_id).name
        assert was == now or (was, now) == ("champion", "canary")


@given(low=weights, high=weights)
def test_raising_the_challenger_moves_requests_from_the_champion_to_the_challenger_only(low: float, high: float) -> None:
    low, high = sorted((low, high))
    before, after = (Router(routes(champion=1 - weight, challenger=weight)) for weight in (low, high))
    for request_id in IDS[:500]:
        was, now = before.route_request(request_id).name, after.route_request(request_id).name
        assert was == now or (was, now) == ("champion", "challenger")


def test_a_route_of_weight_0_gets_nothing_and_the_first_is_the_fallback() -> None:
    router = Router(routes(champion=1.0, canary=0.0))
    assert {router.route_request(request_id).name for request_id in IDS} == {"champion"}
    only = Router(routes(canary=0.5, challenger=0.25))  # weights that sum to less: somebody still answers
    assert {only.route_request(request_id).name for request_id in IDS} == {"canary", "challenger"}
    with pytest.raises(ValueError, match="no route"):
        Router(routes(champion=0.0))


def test_thumbnails_are_drawn_independently_of_the_route() -> None:
    both = sum(unit_interval(i, "route") < 0.1 and unit_interval(i, "thumbnail") < 0.1 for i in IDS)
    assert 15 <= both <= 70  # 1% of 4000, not 10%
