"""What code and which environment made something (R126, R93)."""

import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = ("numpy", "pillow", "torch", "torchvision", "onnxruntime", "scikit-learn", "dagster", "mlflow")


@cache
def git_commit() -> str:
    """The commit of this checkout, with `-dirty` when tracked files differ from it; without git, the image's COMMIT file or "unknown"."""
    root = Path(__file__).parent.parent
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"],
            cwd=root, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
        return described.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        file = root / "COMMIT"
        return file.read_text().strip() if file.is_file() else "unknown"


def environment() -> dict[str, str]:
    """Versions of Python and of the libraries that decide results; those not installed are left out."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
