"""Faces in photographs: found by scikit-image's bundled cascade or by a YuNet network, and filled with one colour.

The cascade (local binary patterns; Liao et al. 2007) finds upright faces seen from the front. Each picture is first scaled to at most
`CASCADE_SIDE` pixels, so its cost is bounded (about 40 ms of one core) and faces below about a tenth of the longer side are not found.
What it finds is looked at a second time, larger and in finer steps (4 ms each): of 150 photographs of clothes that cut the hits from
16 to 6, while recall on composites went from 0.91 to 0.89. What is found of what is there is measured by `privacy.recall`.
"""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline_project.digests import sha256_bytes, sha256_file
from pipeline_project.settings.tree import PrivacySettings

CASCADE_SIDE = 256
YUNET_SIDE = 640
MARGIN = 0.3
_WINDOW = 24  # the cascade's own window, pixels
_SCALE_STEP = 1.2
_STRIDE = 1.25
_NEIGHBOURS = 2  # so many windows must agree, and more
_AGAIN_FACE = 48  # pixels of a face that is looked at again
_AGAIN_MARGIN = 0.35
_AGAIN_STEP = 1.1
_AGAIN_NEIGHBOURS = 4
_YUNET_SCORE = 0.6
_YUNET_OVERLAP = 0.3
_YUNET_LARGEST = 100
_MAX_MODEL_BYTES = 100_000_000


class Box(NamedTuple):
    """A rectangle in pixels of the picture that was searched; x to the right, y downwards."""

    x: int
    y: int
    width: int
    height: int


class FaceFinder(Protocol):
    """Finds faces. One finder may be used by several threads."""

    name: str
    """Detector and version, for reports."""
    digest: str
    """SHA-256 of the detector's file."""
    side: int
    """Pixels of the longer side that it looks at: a larger picture tells it no more, a smaller one less."""

    def find(self, rgb: NDArray[np.uint8]) -> list[Box]:
        """The faces of a picture (H, W, 3) uint8 RGB, from left to right. Equal pictures give equal boxes."""
        ...


def open_face_finder(privacy: PrivacySettings, *, endpoint_url: str | None = None) -> FaceFinder | None:
    """The detector that the settings name; None where faces are not looked for. Opening costs about 0.3 s: once a process.

    Args:
        privacy: `faces` and `faces_model_uri`.
        endpoint_url: the S3-compatible server of an s3:// model; None is AWS.

    Raises:
        ValueError: privacy.faces_model_uri names no file, or one that is no YuNet network in ONNX.
        OSError: the file cannot be read, or its bucket not be reached.
    """
    if privacy.faces == "off":
        return None
    if not privacy.faces_model_uri:
        return CascadeFinder()
    return YuNetFinder(read_face_model(privacy.faces_model_uri, endpoint_url=endpoint_url), privacy.faces_model_uri)


def mask_faces(rgb: NDArray[np.uint8], boxes: Sequence[Box], *, margin: float = MARGIN) -> NDArray[np.uint8]:
    """A copy in which each box, widened by `margin` of its size on each side, has its own mean colour: nothing of a face is left.

    Args:
        rgb: (H, W, 3) uint8.
        boxes: may reach over the edges.
        margin: share of the box; the detectors' boxes end inside hair, ears and chin.
    """
    masked = rgb.copy()
    height, width = rgb.shape[:2]
    for box in boxes:
        dx, dy = round(box.width * margin), round(box.height * margin)
        left, right = max(0, box.x - dx), min(width, box.x + box.width + dx)
        top, bottom = max(0, box.y - dy), min(height, box.y + box.height + dy)
        if left < right and top < bottom:
            masked[top:bottom, left:right] = rgb[top:bottom, left:right].reshape(-1, 3).mean(axis=0).round().astype(np.uint8)
    return masked


class CascadeFinder:
    """scikit-image's cascade with its bundled frontal-face file."""

    side = CASCADE_SIDE

    def __init__(self) -> None:
        from importlib.metadata import version

        from skimage.data import lbp_frontal_face_cascade_filename
        from skimage.feature import Cascade

        file = lbp_frontal_face_cascade_filename()  # type: ignore[no-untyped-call,unused-ignore]
        self._cascade = Cascade(file)
        self.digest = sha256_file(Path(file))
        self.name = f"scikit-image {version('scikit-image')} LBP cascade, frontal faces"

    def find(self, rgb: NDArray[np.uint8]) -> list[Box]:
        """The faces, from left to right; see `FaceFinder`."""
        small, scale = _shrunk(rgb, self.side)
        shorter = min(small.shape[:2])
        if shorter < _WINDOW:
            return []
        found = self._detect(small, _SCALE_STEP, _STRIDE, (_WINDOW, shorter), _NEIGHBOURS)
        return [box for box in _in_original(found, scale, rgb.shape) if self._stands(rgb, box)]

    def _stands(self, rgb: NDArray[np.uint8], box: Box) -> bool:
        """Whether a second look finds a face of about the same size."""
        import cv2

        dx, dy, scale = round(box.width * _AGAIN_MARGIN), round(box.height * _AGAIN_MARGIN), _AGAIN_FACE / box.width
        around = rgb[max(0, box.y - dy) : box.y + box.height + dy, max(0, box.x - dx) : box.x + box.width + dx]
        size = (max(1, round(around.shape[1] * scale)), max(1, round(around.shape[0] * scale)))
        again = np.asarray(cv2.resize(around, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR), np.uint8)
        smallest, largest = round(_AGAIN_FACE * 0.7), min(*size, round(_AGAIN_FACE * 1.4))
        return largest >= smallest and bool(self._detect(again, _AGAIN_STEP, 1.0, (smallest, largest), _AGAIN_NEIGHBOURS))

    def _detect(
        self, rgb: NDArray[np.uint8], scale_step: float, stride: float, sizes: tuple[int, int], neighbours: int
    ) -> list[tuple[float, ...]]:
        """Left, top, width and height of windows that more than `neighbours` others confirm."""
        found = self._cascade.detect_multi_scale(
            np.ascontiguousarray(rgb), scale_step, stride, (sizes[0], sizes[0]), (sizes[1], sizes[1]), min_neighbor_number=neighbours
        )
        return [(f["c"], f["r"], f["width"], f["height"]) for f in found]


class YuNetFinder:
    """A YuNet network (Wu et al. 2023) run by OpenCV.

    Args:
        model: an ONNX file's bytes.
        where: what to call it in messages.

    Raises:
        ValueError: the bytes are no network, or one with other outputs.
    """

    side = YUNET_SIDE

    def __init__(self, model: bytes, where: str) -> None:
        import cv2

        self.name = f"YuNet {where.rsplit('/', 1)[-1]} (OpenCV {cv2.__version__})"
        self.digest = sha256_bytes(model)
        self._lock = threading.Lock()  # the detector keeps the size of the picture it works on
        try:
            self._detector: Any = cv2.FaceDetectorYN.create(
                "onnx", np.frombuffer(model, np.uint8), np.zeros(0, np.uint8), (64, 64), _YUNET_SCORE, _YUNET_OVERLAP, _YUNET_LARGEST
            )
            self._detector.detect(np.zeros((64, 64, 3), np.uint8))  # a network with other outputs loads, and fails here
        except cv2.error as error:
            why = str(error).split("error: ", 1)[-1].splitlines()[0]
            raise ValueError(
                f"privacy.faces_model_uri={where}: OpenCV cannot use it as a face detector ({why}). "
                "Give a YuNet network in ONNX (face_detection_yunet of OpenCV's model zoo), or leave it empty for the bundled cascade."
            ) from None

    def find(self, rgb: NDArray[np.uint8]) -> list[Box]:
        """The faces, from left to right; see `FaceFinder`."""
        small, scale = _shrunk(rgb, self.side)
        with self._lock:
            self._detector.setInputSize((small.shape[1], small.shape[0]))
            _, found = self._detector.detect(np.ascontiguousarray(small[:, :, ::-1]))  # it takes BGR
        return _in_original([] if found is None else [tuple(row[:4]) for row in found.tolist()], scale, rgb.shape)


def read_face_model(uri: str, *, endpoint_url: str | None = None) -> bytes:
    """The bytes of a detector's file: a path or s3:// address. Its digest belongs to whatever depends on found faces.

    Raises:
        ValueError: there is no such file, or it is larger than 100 MB.
        OSError: it cannot be read or reached.
    """
    if uri.startswith("s3://"):
        return _read_s3(uri, endpoint_url)
    path = Path(uri).expanduser()
    if not path.is_file():
        raise ValueError(
            f"privacy.faces_model_uri={uri}: no such file. Give a path or s3:// address of a YuNet network in ONNX, "
            "or leave it empty for the bundled cascade."
        )
    if path.stat().st_size > _MAX_MODEL_BYTES:
        raise ValueError(f"privacy.faces_model_uri={uri}: larger than {_MAX_MODEL_BYTES // 1_000_000} MB; a YuNet network has under 1 MB.")
    return path.read_bytes()


def _read_s3(uri: str, endpoint_url: str | None) -> bytes:
    from botocore.exceptions import BotoCoreError, ClientError

    from pipeline_project.storage.errors import explain_s3_error
    from pipeline_project.storage.s3_client import CutBodyError, Patience, open_client, read_object

    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not bucket or not key:
        raise ValueError(f"privacy.faces_model_uri={uri}: an s3:// address is s3://bucket/path/to/model.onnx.")
    patience = Patience()
    try:
        return read_object(open_client(endpoint_url, patience), bucket, key, patience)
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") in ("NoSuchKey", "404"):
            raise ValueError(f"privacy.faces_model_uri={uri}: no such object. Put the network there, or leave it empty.") from None
        why, step = explain_s3_error(error, bucket, endpoint_url, setting="privacy.faces_model_uri")
    except BotoCoreError as error:
        why, step = explain_s3_error(error, bucket, endpoint_url, setting="privacy.faces_model_uri")
    except CutBodyError as error:
        why, step = str(error), "Run it again when the network is better."
    raise OSError(f"privacy.faces_model_uri={uri}: cannot read it: {why}. {step}")


def _shrunk(rgb: NDArray[np.uint8], side: int) -> tuple[NDArray[np.uint8], float]:
    """The picture with at most `side` pixels on its longer side, and its scale (at most 1)."""
    import cv2

    height, width = rgb.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return rgb, 1.0
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8), scale


def _in_original(found: Sequence[tuple[float, ...]], scale: float, shape: tuple[int, ...]) -> list[Box]:
    """Boxes of the shrunk picture as boxes of the original one, inside it and sorted."""
    height, width = shape[:2]
    boxes = set()
    for x, y, w, h in found:
        left, top = max(0, int(x / scale)), max(0, int(y / scale))
        right, bottom = min(width, int(-(-(x + w) // scale))), min(height, int(-(-(y + h) // scale)))
        if left < right and top < bottom:
            boxes.add(Box(left, top, right - left, bottom - top))
    return sorted(boxes)
