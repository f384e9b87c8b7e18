"""Which route a request takes: by weight, and always the same one for the same request id (D7, D8).

Every request id has a fixed place in [0, 1). The canary owns the places from 0 up, the challenger those from 1 down, the champion what
is between. So raising the canary moves only as many ids as the raise is worth, from the champion to the canary, and no other.
"""

import hashlib
from collections.abc import Sequence

from pipeline_project.contracts import Route


def unit_interval(request_id: str, purpose: str) -> float:
    """The fixed place of a request id in [0, 1). Places for different purposes are independent."""
    digest = hashlib.sha256(f"{purpose}\0{request_id}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53  # 53 bits: exactly a float, never rounded up to 1


class Router:
    """Splits traffic between routes.

    Args:
        routes: of a desired-state document; their weights sum to 1. Routes of weight 0 get nothing.

    Raises:
        ValueError: no route has a weight above 0.
    """

    def __init__(self, routes: Sequence[Route]) -> None:
        self.routes = tuple(route for route in routes if route.weight > 0)
        if not self.routes:
            raise ValueError("no route has a weight above 0: write a document with one.")
        by_name = {route.name: route for route in self.routes}
        self._low, self._high = by_name.get("canary"), by_name.get("challenger")
        self._middle = by_name.get("champion")

    def route_request(self, request_id: str) -> Route:
        """The route of a request; the first route where rounding leaves a place to nobody (R160)."""
        place = unit_interval(request_id, "route")
        if self._low is not None and place < self._low.weight:
            return self._low
        if self._high is not None and place >= 1 - self._high.weight:
            return self._high
        return self._middle or self.routes[0]
