"""The vision service on ML models: roles, decoding, cameras."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import simplejpeg
from google.protobuf.timestamp_pb2 import Timestamp
from onnx import TensorProto, helper, numpy_helper
from pydantic import ValidationError
from viam.errors import ViamGRPCError
from viam.media.video import CameraMimeType, NamedImage, ViamImage
from viam.proto.common import ResponseMetadata
from viam.services.mlmodel import MLModel

from gleaner.machine.models import mlmodel_onnx, vision_mlmodel
from gleaner.machine.models.base import BuildContext
from gleaner.machine.models.inference import InferenceProblem, ModelLoadProblem

LOG = logging.getLogger("test")
TAKEN_NS = 1_760_000_000_123_456_000


class Host:
    """Resources by (name, subtype)."""

    def __init__(self) -> None:
        self.resources: dict[tuple[str, str], Any] = {}

    def resource(self, name: str, subtype: str = "") -> Any:
        return self.resources.get((name, subtype))


class StillCamera:
    def __init__(self, data: bytes, mime_type: str = CameraMimeType.JPEG) -> None:
        self.images = [NamedImage("color", data, CameraMimeType.from_string(mime_type))]
        self.extra: Any = None

    async def get_images(self, *, extra: Any = None, timeout: float | None = None, **_: Any) -> Any:
        self.extra = extra
        stamp = Timestamp()
        stamp.FromNanoseconds(TAKEN_NS)
        return self.images, ResponseMetadata(captured_at=stamp)


def plain_jpeg(rgb: tuple[int, int, int], height: int = 48, width: int = 64) -> bytes:
    return bytes(simplejpeg.encode_jpeg(np.full((height, width, 3), rgb, np.uint8), quality=95))


def save_model(path: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], constants: list[Any]) -> Path:
    graph = helper.make_graph(nodes, "g", inputs, outputs, [numpy_helper.from_array(a, n) for n, a in constants])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


def channel_mean_model(path: Path, output: str = "probability", scale: float = 1 / 255, rounds: int = 0) -> Path:
    """Its three "probabilities" are how much red, green and blue the picture has; `rounds` of idle work make it slow."""
    constants = [("scale", np.float32(scale)), ("zero", np.float32(0)), ("big", np.ones((300, 300), np.float32))]
    work = [
        helper.make_node("ReduceMean", ["f"], ["idle"], keepdims=0),
        helper.make_node("Mul", ["big", "idle"], ["r0"]),
    ]
    for number in range(rounds):
        work.append(helper.make_node("MatMul", [f"r{number}", "big"], [f"s{number}"]))
        work.append(helper.make_node("Tanh", [f"s{number}"], [f"r{number + 1}"]))
    work.append(helper.make_node("ReduceMean", [f"r{rounds}"], ["result"], keepdims=0))
    work.append(helper.make_node("Mul", ["result", "zero"], ["nothing"]))
    nodes = [
        helper.make_node("Cast", ["image"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["f"], ["m"], axes=[1, 2], keepdims=0),
        helper.make_node("Mul", ["m", "scale"], ["scaled"]),
        *work,
        helper.make_node("Add", ["scaled", "nothing"], [output]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 16, 24, 3])
    answer = helper.make_tensor_value_info(output, TensorProto.FLOAT, [1, 3])
    return save_model(path, nodes, [image], [answer], constants)


def fixed_detector(path: Path, boxes: np.ndarray, scores: np.ndarray, categories: np.ndarray, names: list[str]) -> Path:
    """Answers the same boxes whatever it sees; the picture is only there to be taken."""
    nodes = [
        helper.make_node("Cast", ["image"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["f"], ["m"], keepdims=0),
        helper.make_node("Mul", ["m", "zero"], ["nothing"]),
        *[helper.make_node("Add", [c, "nothing"], [n]) for c, n in zip(["b", "c", "s"], names, strict=True)],
    ]
    shapes = [list(boxes.shape), list(categories.shape), list(scores.shape)]
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in zip(names, shapes, strict=True)]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 100, 200, 3])
    constants = [("b", boxes), ("c", categories), ("s", scores), ("zero", np.float32(0))]
    return save_model(path, nodes, [image], outputs, [(n, np.asarray(a, np.float32)) for n, a in constants])


async def onnx_service(
    host: Host, path: Path, labels: Path | None = None, name: str = "model", **others: Any
) -> MLModel:
    attributes = mlmodel_onnx.SPEC.attributes(model_path=str(path), label_path=str(labels or ""), **others)
    service = await mlmodel_onnx.SPEC.build(BuildContext(name, attributes, {}, host, LOG))  # type: ignore[arg-type]
    host.resources[name, "mlmodel"] = service
    return service  # type: ignore[return-value]


async def vision_service(host: Host, **attributes: Any) -> Any:
    parsed = vision_mlmodel.SPEC.attributes(mlmodel_name="model", **attributes)
    dependencies = {"model": host.resources["model", "mlmodel"]}
    return await vision_mlmodel.SPEC.build(BuildContext("eyes", parsed, dependencies, host, LOG))  # type: ignore[arg-type]


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    path = tmp_path / "labels.txt"
    path.write_text("red\ngreen\nblue\n")
    return path


@pytest.fixture
async def host(tmp_path: Path, labels: Path) -> Any:
    host = Host()
    await onnx_service(host, channel_mean_model(tmp_path / "m.onnx"), labels)
    host.resources["cam", "camera"] = StillCamera(plain_jpeg((250, 30, 120)))
    yield host
    for (_, subtype), resource in host.resources.items():
        if subtype == "mlmodel":
            await resource.close()


async def test_classifies_the_camera_picture_best_first(host: Host) -> None:
    vision = await vision_service(host)
    found = await vision.get_classifications_from_camera("cam", 2)
    assert [c.class_name for c in found] == ["red", "blue"]
    assert found[0].confidence == pytest.approx(250 / 255, abs=0.02)


async def test_a_model_is_asked_once_before_it_takes_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    host = Host()
    with caplog.at_level(logging.INFO):
        service: Any = await onnx_service(host, channel_mean_model(tmp_path / "good.onnx"))
    assert 0 < service.latency_ms < 1000
    assert "good.onnx answers in" in caplog.text
    await service.close()
    nodes = [
        helper.make_node("Cast", ["image"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Neg", ["f"], ["below"]),
        helper.make_node("Log", ["below"], ["probability"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 16, 24, 3])
    answer = helper.make_tensor_value_info("probability", TensorProto.FLOAT, [1, 16, 24, 3])
    nowhere = save_model(tmp_path / "nan.onnx", nodes, [image], [answer], [])
    with pytest.raises(ModelLoadProblem, match=r"nan\.onnx answers a plain grey picture with numbers that are none"):
        await onnx_service(host, nowhere)
    reshaped = [helper.make_node("Reshape", ["image", "shape"], ["probability"])]
    bytes_out = helper.make_tensor_value_info("probability", TensorProto.UINT8, [5, 7])
    unfit = save_model(tmp_path / "unfit.onnx", reshaped, [image], [bytes_out], [("shape", np.array([5, 7]))])
    with pytest.raises(ModelLoadProblem, match=r"unfit\.onnx"):
        await onnx_service(host, unfit)


@pytest.mark.parametrize(
    ("precision", "short", "used"),
    [
        (None, "fast", 1 / 255),
        ("float32", "fast", 1 / 255),
        ("int8", "fast", 1 / 510),
        ("auto", "fast", 1 / 510),
        ("auto", "slow", 1 / 255),
        ("auto", "none", 1 / 255),
        ("auto", "damaged", 1 / 255),
    ],
)
async def test_the_precision_chooses_the_file(
    host: Host, tmp_path: Path, precision: str | None, short: str, used: float
) -> None:
    """The two files answer differently here, so that it shows which one is used."""
    path = channel_mean_model(tmp_path / "chosen.onnx", rounds=30 if short == "fast" else 0)
    if short == "damaged":
        (tmp_path / "chosen-int8.onnx").write_bytes(b"no model")
    elif short != "none":
        channel_mean_model(tmp_path / "chosen-int8.onnx", scale=1 / 510, rounds=30 if short == "slow" else 0)
    attributes = {"precision": precision} if precision else {}
    model = await onnx_service(host, path, name="chosen", **attributes)
    answer = await model.infer({"image": np.full((1, 16, 24, 3), 255, np.uint8)})
    assert answer["probability"].max() == pytest.approx(255 * used, abs=0.01)


async def test_a_package_without_an_8_bit_model_says_so(host: Host, tmp_path: Path) -> None:
    path = channel_mean_model(tmp_path / "chosen.onnx")
    with pytest.raises(ModelLoadProblem, match=r"no 8-bit model .*chosen-int8\.onnx.*set precision to float32 or auto"):
        await onnx_service(host, path, name="chosen", precision="int8")


async def test_what_takes_no_picture_is_not_asked(tmp_path: Path) -> None:
    number = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])
    answer = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])
    path = save_model(tmp_path / "m.onnx", [helper.make_node("Log", ["x"], ["y"])], [number], [answer], [])
    service: Any = await onnx_service(Host(), path)
    assert service.latency_ms is None
    await service.close()


async def test_a_count_of_zero_gives_all_in_model_order(host: Host) -> None:
    vision = await vision_service(host)
    image = ViamImage(plain_jpeg((250, 30, 120)), CameraMimeType.JPEG)
    assert [c.class_name for c in await vision.get_classifications(image, 0)] == ["red", "green", "blue"]


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"default_minimum_confidence": 0.4}, ["red", "blue"]),
        ({"default_minimum_confidence": 0.99}, []),  # nothing is certain enough: no label rather than a wrong one
        ({"label_confidences": {"BLUE": 0.4}}, ["blue"]),
        ({"label_confidences": {"blue": 0.6}}, []),
        # a whitelist overrides the default minimum
        ({"label_confidences": {"green": 0.1}, "default_minimum_confidence": 0.9}, ["green"]),
    ],
)
async def test_confidence_attributes_filter_before_the_count(host: Host, attributes: Any, expected: list[str]) -> None:
    vision = await vision_service(host, **attributes)
    assert [c.class_name for c in await vision.get_classifications_from_camera("cam", 3)] == expected


async def test_capture_all_gives_picture_labels_and_timings(host: Host) -> None:
    vision = await vision_service(host)
    result = await vision.capture_all_from_camera("cam", True, True, True, extra={"fromDataManagement": True})
    assert result.image.data == host.resources["cam", "camera"].images[0].data
    assert {c.class_name for c in result.classifications} == {"red", "green", "blue"}
    assert result.detections is None  # a role the model does not have is left out
    assert result.extra["captured_at"] == "2025-10-09T08:53:20.123456Z"
    assert result.extra["inference_ms"] > 0
    assert host.resources["cam", "camera"].extra == {"fromDataManagement": True}


async def test_properties_tell_roles_and_default_camera(host: Host) -> None:
    properties = await (await vision_service(host, camera_name="cam")).get_properties()
    assert properties.classifications_supported
    assert not properties.detections_supported
    assert properties.default_camera == "cam"


async def test_default_camera_is_used_and_a_missing_one_named(host: Host) -> None:
    vision = await vision_service(host, camera_name="cam")
    assert await vision.get_classifications_from_camera("", 1)
    with pytest.raises(ViamGRPCError, match="could not find camera 'nope'"):
        await vision.get_classifications_from_camera("nope", 1)
    with pytest.raises(ViamGRPCError, match="no camera name provided and no default camera found"):
        await (await vision_service(host)).get_classifications_from_camera("", 1)


async def test_detections_from_a_classifier_are_refused(host: Host) -> None:
    with pytest.raises(ViamGRPCError, match="does not implement a Detector"):
        await (await vision_service(host)).get_detections_from_camera("cam")


async def test_a_picture_that_cannot_be_read_says_why(host: Host) -> None:
    vision = await vision_service(host)
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    image = ViamImage(plain_jpeg((9, 9, 9)), CameraMimeType.JPEG)
    image._data = simplejpeg.encode_jpeg(noise)[:-500]
    with pytest.raises(ViamGRPCError, match="cut off before its end"):
        await vision.get_classifications(image, 1)


async def test_a_replaced_model_is_used_at_once(host: Host, tmp_path: Path, labels: Path) -> None:
    vision = await vision_service(host)
    before = (await vision.get_classifications_from_camera("cam", 1))[0].confidence
    old = host.resources["model", "mlmodel"]
    await onnx_service(host, channel_mean_model(tmp_path / "half.onnx", scale=0.5 / 255), labels)
    await old.close()
    after = (await vision.get_classifications_from_camera("cam", 1))[0].confidence
    assert after == pytest.approx(before / 2, abs=1e-3)


async def test_label_count_must_match(host: Host, tmp_path: Path) -> None:
    (tmp_path / "two.txt").write_text("a\nb")
    with pytest.raises(ViamGRPCError, match="answers 3 classes, but there are 2 labels"):
        await vision_service(host, label_path=str(tmp_path / "two.txt"))


async def test_the_only_label_may_have_a_space_in_it(tmp_path: Path) -> None:
    host = Host()
    (tmp_path / "labels.txt").write_text("red star\n")  # by Viam's rule these would be two labels
    nodes = [
        helper.make_node("Cast", ["image"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["f"], ["m"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Mul", ["m", "scale"], ["p"]),
        helper.make_node("Reshape", ["p", "shape"], ["probability"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 16, 24, 3])
    answer = helper.make_tensor_value_info("probability", TensorProto.FLOAT, [1, 1])
    constants = [("scale", np.float32(1 / 255)), ("shape", np.array([1, 1], np.int64))]
    model = await onnx_service(
        host, save_model(tmp_path / "m.onnx", nodes, [image], [answer], constants), tmp_path / "labels.txt"
    )
    vision = await vision_service(host)
    (found,) = await vision.get_classifications(ViamImage(plain_jpeg((255, 255, 255)), CameraMimeType.JPEG), 1)
    assert (found.class_name, round(found.confidence, 2)) == ("red star", 1.0)
    await model.close()


async def test_a_missing_label_file_is_named(host: Host, tmp_path: Path) -> None:
    with pytest.raises(ViamGRPCError, match=r"gone\.txt cannot be read"):
        await vision_service(host, label_path=str(tmp_path / "gone.txt"))


async def test_without_labels_classes_are_numbers(tmp_path: Path) -> None:
    host = Host()
    model = await onnx_service(host, channel_mean_model(tmp_path / "m.onnx", output="anything"))
    vision = await vision_service(host)  # the only output needs no name
    image = ViamImage(plain_jpeg((0, 250, 0)), CameraMimeType.JPEG)
    assert (await vision.get_classifications(image, 1))[0].class_name == "1"
    await model.close()


async def test_a_detector_answers_boxes_in_pixels_of_the_original(tmp_path: Path) -> None:
    host = Host()
    boxes = np.array(
        [[[0.25, 0.1, 0.75, 0.5], [0.0, 0.0, 1.2, 1.0]]]
    )  # top, left, bottom, right; one runs over the edge
    path = fixed_detector(
        tmp_path / "d.onnx", boxes, np.array([[0.9, 0.3]]), np.array([[1.0, 0.0]]), ["location", "category", "score"]
    )
    (tmp_path / "l.txt").write_text("cat, dog")
    model = await onnx_service(host, path, tmp_path / "l.txt")
    vision = await vision_service(host, default_minimum_confidence=0.2)
    properties = await vision.get_properties()
    assert (properties.classifications_supported, properties.detections_supported) == (False, True)
    image = ViamImage(plain_jpeg((5, 5, 5), height=101, width=201), CameraMimeType.JPEG)
    first, second = await vision.get_detections(image)
    assert (first.class_name, first.x_min, first.y_min, first.x_max, first.y_max) == ("dog", 20, 25, 100, 75)
    assert first.x_max_normalized == pytest.approx(100 / 201)
    assert (second.class_name, second.x_max, second.y_max) == ("cat", 200, 100)
    await model.close()


async def test_unnamed_detector_outputs_are_told_apart_and_pixel_boxes_scaled(tmp_path: Path) -> None:
    host = Host()
    boxes = np.array([[[20.0, 10.0, 100.0, 50.0]]])  # left, top, right, bottom in pixels of the 100×200 input
    names = ["StatefulPartitionedCall:1", "StatefulPartitionedCall:2", "StatefulPartitionedCall:0"]
    model = await onnx_service(
        host, fixed_detector(tmp_path / "d.onnx", boxes, np.array([[0.875]]), np.array([[3.0]]), names)
    )
    vision = await vision_service(host, xmin_ymin_xmax_ymax_order=[0, 1, 2, 3])
    (found,) = await vision.get_detections(ViamImage(plain_jpeg((5, 5, 5), 101, 201), CameraMimeType.JPEG))
    assert (found.class_name, found.x_min, found.y_min, found.x_max, found.y_max) == ("3", 20, 10, 100, 50)
    assert found.confidence == pytest.approx(0.875)
    await model.close()


async def test_a_model_that_fits_no_role_is_refused(tmp_path: Path) -> None:
    host = Host()
    names = ["one", "two", "three"]
    path = fixed_detector(tmp_path / "x.onnx", np.ones((1, 4)), np.ones((4,)), np.ones((2, 2)), names)
    model = await onnx_service(host, path)
    with pytest.raises(ViamGRPCError, match="does not fulfill any method of the vision service"):
        await vision_service(host)
    await model.close()


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"xmin_ymin_xmax_ymax_order": [0, 1, 2, 2]}, "0, 1, 2 and 3 once each"),
        ({"input_image_std_dev": [0.5, 0.0, 0.5]}, "must not hold 0"),
        ({"input_image_mean_value": [0.5]}, "at least 3"),
        ({"colour": 1}, "Extra inputs"),
    ],
)
def test_wrong_attributes_are_named(attributes: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        vision_mlmodel.SPEC.attributes(mlmodel_name="model", **attributes)


async def test_metadata_names_tensors_and_labels(host: Host, labels: Path) -> None:
    metadata = await host.resources["model", "mlmodel"].metadata()
    (image,), (answer,) = metadata.input_info, metadata.output_info
    assert (image.name, image.data_type, list(image.shape)) == ("image", "uint8", [1, 16, 24, 3])
    assert (answer.name, answer.data_type, answer.extra["labels"]) == ("probability", "float32", str(labels))


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"image": np.zeros((1, 16, 24, 3), np.float32)}, "type float32; the model takes uint8"),
        ({"image": np.zeros((1, 8, 8, 3), np.uint8)}, r"shape \[1, 8, 8, 3\]; the model takes \[1, 16, 24, 3\]"),
        ({"image": np.zeros(1, np.uint8), "more": np.zeros(1)}, "unknown more"),
        ({}, "missing image"),
    ],
)
async def test_wrong_tensors_are_refused(host: Host, tensors: Any, message: str) -> None:
    with pytest.raises(InferenceProblem, match=message):
        await host.resources["model", "mlmodel"].infer(tensors)


async def test_a_closed_model_says_so(host: Host) -> None:
    model = host.resources["model", "mlmodel"]
    await model.close()
    with pytest.raises(ViamGRPCError, match="is closed"):
        await model.infer({"image": np.zeros((1, 16, 24, 3), np.uint8)})


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot be read: No such file"), (b"", "is empty"), (b"not a model", "is not an ONNX model")],
)
async def test_an_unusable_model_file_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "m.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelLoadProblem, match=message):
        await onnx_service(Host(), path)


@pytest.mark.parametrize("name", ["gleaner:mlmodel:onnx-cpu", "viam:mlmodel-onnx:onnx-cpu", "rdk:builtin:onnx_cpu"])
def test_the_onnx_model_answers_to_its_aliases(name: str) -> None:
    assert name in (mlmodel_onnx.SPEC.model, *mlmodel_onnx.SPEC.aliases)
