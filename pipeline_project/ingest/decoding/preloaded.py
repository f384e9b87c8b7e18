"""Loaded once by the fork server, so that a worker starts in milliseconds. Imported by nothing else."""

import multiprocessing.spawn

import cv2
import numpy as np  # noqa: F401
import simplejpeg  # type: ignore[import-untyped,unused-ignore]  # noqa: F401

import pipeline_project.ingest.decoding.worker
import pipeline_project.ingest.sources  # noqa: F401


def _leave_out(_main: str) -> None:
    """Workers need nothing of the program that started them, and running it anew would cost seconds and may have effects."""


multiprocessing.spawn._fixup_main_from_name = _leave_out  # type: ignore[attr-defined]
multiprocessing.spawn._fixup_main_from_path = _leave_out  # type: ignore[attr-defined]
cv2.setNumThreads(1)  # processes are the parallelism; a thread pool would not survive the fork either
