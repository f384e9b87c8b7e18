"""The finders find what is made for them to find; the measure itself can tell a good finder from a bad one."""

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline_project.ingest.privacy import KINDS, Box, FaceFinder, open_face_finder
from pipeline_project.ingest.privacy.recall import FACE_SHARES, PICTURE_SIDE, face_picture, face_recall, text_recall
from pipeline_project.settings.tree import PrivacySettings


class Blind:
    """Finds nothing."""

    name, digest, side = "blind", "0", 1

    def find(self, rgb: NDArray[np.uint8]) -> list[Box]:
        return []


class Everywhere(Blind):
    """Finds a face of every size in the middle of every tile."""

    def find(self, rgb: NDArray[np.uint8]) -> list[Box]:
        sides = [round(share * PICTURE_SIDE) for share in FACE_SHARES]
        return [
            Box(x, y, side, side) for side in sides for x in range(0, PICTURE_SIDE, side // 2) for y in range(0, PICTURE_SIDE, side // 2)
        ]


@pytest.fixture(scope="module")
def cascade() -> FaceFinder:
    found = open_face_finder(PrivacySettings(faces="mask", faces_model_uri="", phone_regions=[]))
    assert found is not None
    return found


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_texts_are_found_and_product_texts_are_left_alone(seed: int) -> None:
    measured = text_recall(["US", "GB", "DE"], seed=seed)
    assert set(measured["kinds"]) == set(KINDS)
    for kind, point in measured["kinds"].items():
        assert point["recall"] >= (0.9 if kind == "phone" else 0.97), kind
        assert point["low"] <= point["recall"] <= point["high"]
    assert measured["clean"]["share"] <= 0.005, measured["clean"]["by_kind"]
    assert measured == text_recall(["US", "GB", "DE"], seed=seed)


def test_fewer_regions_find_fewer_numbers() -> None:
    none, all_ = text_recall([]), text_recall(["US", "GB", "DE"])
    assert none["kinds"]["phone"]["found"] < all_["kinds"]["phone"]["found"] - 50
    assert none["kinds"]["email"] == all_["kinds"]["email"]


@pytest.mark.slow
def test_upright_faces_are_found_and_what_is_missed_is_said(cascade: FaceFinder) -> None:
    measured = face_recall(cascade, cases=5)
    by_tilt = {point["tilt"]: point["recall"] for point in measured["points"] if point["share"] == 0.25 and point["brightness"] == 1}
    upright = [point["recall"] for point in measured["points"] if not point["tilt"]]
    assert min(upright) >= 0.6
    assert by_tilt[30] < by_tilt[0], "the cascade knows upright faces; the report must not hide it"
    assert measured["without_face"]["share"] <= 0.3


def test_the_measure_knows_good_and_bad_finders() -> None:
    blind, everywhere = face_recall(Blind(), cases=3), face_recall(Everywhere(), cases=3)
    assert {point["recall"] for point in blind["points"]} == {0}
    assert blind["without_face"]["with_false_hits"] == 0
    assert {point["recall"] for point in everywhere["points"]} == {1}
    assert everywhere["without_face"]["share"] == 1


def test_the_face_lies_where_it_is_said_to() -> None:
    with_face, box = face_picture(5, share=0.3)
    without, _ = face_picture(5, share=0.3, face=False)
    changed = np.flatnonzero((with_face != without).any(axis=(0, 2)))
    assert box.x - box.width <= changed.min() <= box.x + box.width // 2 <= changed.max() <= box.x + 2 * box.width
    assert box.width == round(0.3 * PICTURE_SIDE)
    assert (face_picture(5, share=0.3)[0] == with_face).all()
    assert face_picture(5, brightness=0.35)[0].mean() < 0.5 * face_picture(5)[0].mean()
