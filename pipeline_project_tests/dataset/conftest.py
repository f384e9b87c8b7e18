"""A shelf of days."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline_project_tests.dataset.shelf import Shelf, open_shelf_in


@pytest.fixture
def open_shelf(tmp_path: Path) -> Callable[..., Shelf]:
    return lambda **overrides: open_shelf_in(tmp_path, **overrides)


@pytest.fixture
def shelf(open_shelf: Callable[..., Shelf]) -> Shelf:
    return open_shelf()
