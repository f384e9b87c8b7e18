"""What pixels and facts depend on beside the bytes: settings, code and libraries. Rows of shards with the same recipe need no decoding."""

from typing import Any

from pipeline_project.code_version import files_of, libraries_of
from pipeline_project.digests import digest_of
from pipeline_project.imaging.decode import DECODE_SETTINGS
from pipeline_project.settings import Settings

_SHAPING = (*DECODE_SETTINGS, "image.size", "privacy.faces", "privacy.faces_model_uri")
DECODING_SETTINGS: tuple[str, ...] = (*_SHAPING, "ingest.decode_seconds", "ingest.decode_memory_mb")
"""The settings that facts and pixels depend on. The last two reject only what is tried anew each time, so no recipe holds them."""
_CODE = "ingest.decoding.examine"


def recipe_of(settings: Settings, examiner: object) -> str:
    """64 hexadecimal digits; equal recipes give equal rows for equal bytes.

    Args:
        examiner: what looks at the images: the project's own, or another one by its name.
    """
    values = {path: _value(settings.model_dump(mode="json"), path) for path in _SHAPING}
    name = f"{getattr(examiner, '__module__', '')}.{getattr(examiner, '__qualname__', examiner)}"
    return digest_of({"settings": values, "code": files_of(_CODE), "libraries": libraries_of(_CODE), "examiner": name})


def _value(tree: Any, path: str) -> Any:
    for part in path.split("."):
        tree = tree[part]
    return tree
