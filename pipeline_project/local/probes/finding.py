"""What a probe found wrong."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong. A warning does no harm yet. `mend` puts it right, where that is safe, and says what it did."""

    what: str
    where: str
    why: str
    next_step: str
    severity: Literal["error", "warning"] = "error"
    mend: Callable[[], str] | None = None

    def __str__(self) -> str:
        mendable = "  (or: pipeline doctor --fix)" if self.mend else ""
        return f"{self.severity}: {self.what}\n  where: {self.where}\n  why:   {self.why}\n  next:  {self.next_step}{mendable}"
