"""OpenCV as this package uses it: one core a process, because workers and servers already run one process a core."""

import cv2

cv2.setNumThreads(1)

__all__ = ["cv2"]
