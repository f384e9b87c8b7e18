"""Faces are found, and nothing of them is left; a detector's file that is none is refused in words."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from pipeline_project.ingest.privacy import Box, FaceFinder, mask_faces, open_face_finder
from pipeline_project.settings.tree import PrivacySettings
from pipeline_project_tests.servers.object_server import ObjectServer


def privacy(uri: str = "", faces: str = "mask") -> PrivacySettings:
    return PrivacySettings.model_validate({"faces": faces, "faces_model_uri": uri, "phone_regions": []})


@pytest.fixture(scope="module")
def cascade() -> FaceFinder:
    found = open_face_finder(privacy())
    assert found is not None
    return found


@pytest.fixture(scope="module")
def astronaut() -> NDArray[np.uint8]:
    from skimage import data

    return np.asarray(data.astronaut(), np.uint8)  # (512, 512, 3): a portrait, the face at about x 170-280, y 60-180


def bright_is_a_face() -> bytes:
    """The smallest network with YuNet's inputs and outputs: the confidence of a cell is its mean brightness."""
    nodes, outputs, values = [], [], []
    for stride in (8, 16, 32):
        mean = np.full((1, 3, stride, stride), 1 / (3 * stride * stride * 255), np.float32)
        values.append(numpy_helper.from_array(mean, f"mean{stride}"))
        nodes.append(
            helper.make_node("Conv", ["input", f"mean{stride}"], [f"cell{stride}"], kernel_shape=[stride] * 2, strides=[stride] * 2)
        )
        for name, channels in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
            weight = np.full((channels, 1, 1, 1), float(name in ("cls", "obj")), np.float32)
            shape = np.array([1, -1, channels], np.int64)
            values += [numpy_helper.from_array(weight, f"w{name}{stride}"), numpy_helper.from_array(shape, f"s{name}{stride}")]
            nodes += [
                helper.make_node("Conv", [f"cell{stride}", f"w{name}{stride}"], [f"c{name}{stride}"], kernel_shape=[1, 1]),
                helper.make_node("Transpose", [f"c{name}{stride}"], [f"t{name}{stride}"], perm=[0, 2, 3, 1]),
                helper.make_node("Reshape", [f"t{name}{stride}", f"s{name}{stride}"], [f"{name}_{stride}"]),
            ]
            outputs.append(helper.make_tensor_value_info(f"{name}_{stride}", TensorProto.FLOAT, [1, None, channels]))
    picture = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, "h", "w"])
    return model_of(helper.make_graph(nodes, "bright", [picture], outputs, values))


def another_network() -> bytes:
    picture = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 64, 64])
    same = helper.make_tensor_value_info("same", TensorProto.FLOAT, [1, 3, 64, 64])
    return model_of(helper.make_graph([helper.make_node("Identity", ["input"], ["same"])], "other", [picture], [same]))


def model_of(graph: onnx.GraphProto) -> bytes:
    return bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8).SerializeToString())


def test_a_face_in_a_real_photograph_is_found_and_masked(cascade: FaceFinder, astronaut: NDArray[np.uint8]) -> None:
    boxes = cascade.find(astronaut)
    face = next(box for box in boxes if box.x < 224 < box.x + box.width and box.y < 115 < box.y + box.height)
    assert 60 <= face.width <= 170
    masked = mask_faces(astronaut, boxes)
    inside = masked[face.y : face.y + face.height, face.x : face.x + face.width]
    assert (inside == inside[0, 0]).all(), "one colour is left"
    assert not [box for box in cascade.find(masked) if box.x < 224 < box.x + box.width and box.y < 115 < box.y + box.height]


def test_equal_pictures_give_equal_boxes_at_every_size(cascade: FaceFinder, astronaut: NDArray[np.uint8]) -> None:
    large = np.repeat(np.repeat(astronaut, 2, axis=0), 2, axis=1)
    assert cascade.find(astronaut) == cascade.find(astronaut.copy())
    doubled = [box for box in cascade.find(large) if box.x < 448 < box.x + box.width]
    assert doubled, "the boxes are those of the picture that was given, not of the one that was searched"
    assert all(box.x + box.width <= 1024 and box.y + box.height <= 1024 for box in doubled)


@pytest.mark.parametrize("shape", [(1, 1, 3), (16, 400, 3), (23, 23, 3), (24, 24, 3), (300, 20, 3)])
def test_small_and_narrow_pictures_have_no_face(cascade: FaceFinder, shape: tuple[int, int, int]) -> None:
    assert cascade.find(np.full(shape, 127, np.uint8)) == []


@given(st.integers(0, 2**32), st.lists(st.tuples(*[st.integers(-20, 60)] * 2, *[st.integers(1, 60)] * 2), max_size=4))
def test_a_masked_box_is_one_colour_and_nothing_else_changes(seed: int, found: list[tuple[int, int, int, int]]) -> None:
    picture = np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    before, boxes = picture.copy(), [Box(*box) for box in found]
    masked = mask_faces(picture, boxes, margin=0)
    assert (picture == before).all(), "the picture itself is as it was"
    outside = np.ones((40, 50), bool)
    for box in boxes:
        outside[max(0, box.y) : max(0, box.y + box.height), max(0, box.x) : max(0, box.x + box.width)] = False
    assert (masked[outside] == picture[outside]).all()
    for box in boxes[-1:]:
        inside = masked[max(0, box.y) : max(0, box.y + box.height), max(0, box.x) : max(0, box.x + box.width)]
        assert not inside.size or (inside == inside[0, 0]).all()


def test_the_mask_reaches_beyond_the_box() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (100, 100, 3), dtype=np.uint8)
    masked = mask_faces(picture, [Box(40, 40, 20, 20)])
    assert (masked[34:66, 34:66] == masked[50, 50]).all()


def test_faces_that_are_off_need_no_detector() -> None:
    assert open_face_finder(privacy(faces="off")) is None


def test_a_network_of_its_own_is_used(tmp_path: Path) -> None:
    file = tmp_path / "bright.onnx"
    file.write_bytes(bright_is_a_face())
    finder = open_face_finder(privacy(str(file)))
    assert finder is not None
    assert "YuNet bright.onnx" in finder.name
    assert finder.find(np.zeros((200, 320, 3), np.uint8)) == []
    picture = np.zeros((200, 320, 3), np.uint8)
    picture[64:96, 128:160] = 255
    boxes = finder.find(picture)
    assert boxes
    assert all(110 <= box.x <= 160 and 46 <= box.y <= 96 for box in boxes)
    tall = np.zeros((1500, 700, 3), np.uint8)  # another size, and larger than the detector looks at
    tall[900:1000, 300:400] = 255
    assert all(220 <= box.x <= 400 and 820 <= box.y <= 1000 for box in finder.find(tall))


def test_a_network_lies_on_s3(moto_login: ObjectServer) -> None:
    import boto3

    client = boto3.client("s3", endpoint_url=moto_login.endpoint)
    client.create_bucket(Bucket="face-models")
    client.put_object(Bucket="face-models", Key="yunet/bright.onnx", Body=bright_is_a_face())
    finder = open_face_finder(privacy("s3://face-models/yunet/bright.onnx"), endpoint_url=moto_login.endpoint)
    assert finder is not None
    assert finder.find(np.full((64, 64, 3), 255, np.uint8))
    with pytest.raises(ValueError, match=r"faces_model_uri=s3://face-models/other\.onnx: no such object"):
        open_face_finder(privacy("s3://face-models/other.onnx"), endpoint_url=moto_login.endpoint)
    with pytest.raises(OSError, match=r"faces_model_uri=s3://no-such-bucket/x\.onnx: cannot read it"):
        open_face_finder(privacy("s3://no-such-bucket/x.onnx"), endpoint_url=moto_login.endpoint)


@pytest.mark.parametrize(
    "make",
    [lambda: b"", lambda: b"no network" * 100, lambda: bright_is_a_face()[:900], another_network],
    ids=["empty", "text", "cut", "other"],
)
def test_a_file_that_is_no_face_detector_is_refused(tmp_path: Path, make: Callable[[], bytes]) -> None:
    file = tmp_path / "x.onnx"
    file.write_bytes(make())
    with pytest.raises(ValueError, match=r"privacy\.faces_model_uri=.*x\.onnx: OpenCV cannot use it.*leave it empty"):
        open_face_finder(privacy(str(file)))


@pytest.mark.parametrize(("uri", "why"), [("/no/such.onnx", "no such file"), ("s3://bucket", "s3://bucket/path")])
def test_an_address_without_a_file_is_refused(uri: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        open_face_finder(privacy(uri))
