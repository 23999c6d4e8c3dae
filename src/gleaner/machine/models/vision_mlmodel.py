"""`rdk:builtin:mlmodel`: a vision service on an ML model. Which roles it has is found out by trying a small grey picture."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, cast

import numpy as np
from grpclib import Status
from pydantic import Field, field_validator, model_validator
from viam.proto.service.mlmodel import Metadata
from viam.services.mlmodel import MLModel
from viam.utils import struct_to_dict

from gleaner.machine.models.base import Attributes, BuildContext, Host, ModelSpec
from gleaner.machine.models.inference import Tensors
from gleaner.machine.vision.classify import decode_classes, select_classes
from gleaner.machine.vision.detect import DEFAULT_BOX_ORDER, Box, DetectorNames, decode_boxes, find_outputs
from gleaner.machine.vision.inputs import InputLayout, Normalization, input_layout, make_input
from gleaner.machine.vision.labels import LabelFilter, ModelAnswerProblem, read_labels
from gleaner.machine.vision.service import VISION_CAPTURE, PictureVision, Seen, VisionProblem
from gleaner.machine.vision.tiles import Frame, Tiling, merge, piece_of
from gleaner.machine.vision.tracking import LEAST_FAINT, SURE, Tracks
from gleaner.wire.picture import PictureProblem, Rgb, picture_size, read_rgb

_PROBE_SIDE, _PROBE_GREY = 5, 128


class Tiles(Attributes):
    rows: int = Field(ge=1, le=8, title="Rows", description="Of tiles.")
    columns: int = Field(ge=1, le=8, title="Columns", description="Of tiles.")
    overlap: float = Field(
        default=0.2,
        ge=0,
        le=0.5,
        title="Overlap",
        description="Of neighbours, as a share of a tile's side; a thing across a seam should fit into it.",
    )

    @model_validator(mode="after")
    def _more_than_one(self) -> Tiles:
        if self.rows * self.columns == 1:
            raise ValueError("one row of one column is the whole picture: choose more, or leave tiles out")
        return self


class VisionMlModelAttributes(Attributes):
    mlmodel_name: str = Field(
        min_length=1, title="ML model", description="Name of the ML model service that looks at the pictures."
    )
    camera_name: str = Field(default="", title="Default camera", description="Used when a call names no camera.")
    default_minimum_confidence: float = Field(
        default=0.0, ge=0, le=1, title="Lowest confidence", description="What is less certain is not reported."
    )
    label_confidences: dict[str, float] = Field(
        default_factory=dict,
        title="Lowest confidence by label",
        description="When given, only these labels are reported, each from its own confidence up.",
    )
    label_path: str = Field(
        default="", title="Label file", description="One label per line; empty takes the ML model's."
    )
    remap_input_names: dict[str, str] = Field(
        default_factory=dict, title="Input names", description="The model's name for its input → image."
    )
    remap_output_names: dict[str, str] = Field(
        default_factory=dict,
        title="Output names",
        description="The model's names → probability, or location, category and score.",
    )
    xmin_ymin_xmax_ymax_order: list[int] = Field(
        default_factory=lambda: list(DEFAULT_BOX_ORDER),
        title="Box order",
        description="What each number of a box is: 0 left, 1 top, 2 right, 3 bottom.",
    )
    input_image_mean_value: list[float] = Field(
        default_factory=lambda: [0.5] * 3,
        min_length=3,
        title="Mean",
        description="Subtracted from 0–1 channels of float models.",
    )
    input_image_std_dev: list[float] = Field(
        default_factory=lambda: [0.5] * 3,
        min_length=3,
        title="Standard deviation",
        description="Divides the channels of float models.",
    )
    input_image_bgr: bool = Field(default=False, title="Blue first", description="The model wants blue, green, red.")
    tiles: Annotated[int, Field(ge=2, le=8)] | Tiles | None = Field(
        default=None,
        title="Tiles",
        description="Detectors look at so many rows and columns of overlapping parts of the picture as well, for things that are "
        'small in it: a number of both, or {"rows", "columns", "overlap"}. Each part takes as long as a picture.',
    )
    tracking: bool = Field(
        default=False,
        title="Ids over frames",
        description="Each thing keeps an id while it moves; its class name becomes <label>_<number>_<date>_<time first seen>.",
    )
    tracking_keep_s: float = Field(
        default=2.0,
        gt=0,
        le=60,
        title="Remembered for",
        description="How long a thing that is not seen keeps its id.",
        json_schema_extra={"unit": "s"},
    )

    @field_validator("xmin_ymin_xmax_ymax_order")
    @classmethod
    def _permutation(cls, value: list[int]) -> list[int]:
        if value and sorted(value) != [0, 1, 2, 3]:
            raise ValueError("must hold 0, 1, 2 and 3 once each")
        return value or list(DEFAULT_BOX_ORDER)

    @property
    def tiling(self) -> Tiling | None:
        if isinstance(self.tiles, int):
            return Tiling(self.tiles, self.tiles, Tiles.model_fields["overlap"].default)
        return None if self.tiles is None else Tiling(self.tiles.rows, self.tiles.columns, self.tiles.overlap)

    @field_validator("input_image_std_dev")
    @classmethod
    def _no_zero(cls, value: list[float]) -> list[float]:
        if any(v == 0 for v in value):
            raise ValueError("must not hold 0")
        return value


@dataclass(frozen=True)
class Prepared:
    """What is known of one model instance."""

    model: MLModel
    layout: InputLayout
    labels: list[str]
    classifies: bool
    detector: DetectorNames | None


class MlModelVision(PictureVision):
    """Looks the ML model up for every picture, so a model that is replaced by a newer version is picked up at once."""

    def __init__(self, name: str, attributes: VisionMlModelAttributes, fallback: MLModel | None, host: Host) -> None:
        super().__init__(name, attributes.camera_name, host)
        self._attributes = attributes
        self._fallback = fallback
        self._prepared: Prepared | None = None
        self._keep = LabelFilter(attributes.default_minimum_confidence, attributes.label_confidences)
        mean, std = attributes.input_image_mean_value, attributes.input_image_std_dev
        self._normalization = Normalization(tuple(mean), tuple(std), attributes.input_image_bgr)
        self._tiling = attributes.tiling
        # Who has said what is certain enough has said what is worth an id; else the paper's threshold keeps noise out.
        is_told = bool(attributes.default_minimum_confidence or attributes.label_confidences)
        self._tracks = Tracks(attributes.tracking_keep_s, 0.0 if is_told else SURE) if attributes.tracking else None
        self.clock_s: Callable[[], float] = time.monotonic
        """Replaced by tests."""

    async def refresh(self) -> None:
        prepared = await self._ready()
        self.classifies, self.detects = prepared.classifies, prepared.detector is not None

    async def look(self, picture: bytes, count: int, timeout: float | None) -> Seen:
        prepared = await self._ready()
        try:
            size, views = await asyncio.to_thread(self._views, picture, prepared.layout)
        except (PictureProblem, ValueError) as error:
            raise VisionProblem(f"vision service {self.name} cannot use the picture: {error}") from error
        began = time.perf_counter()
        answers = [
            (frame, await prepared.model.infer({prepared.layout.name: tensor}, timeout=timeout))
            for frame, tensor in views
        ]
        inference_ms = (time.perf_counter() - began) * 1000
        try:
            classes = self._classes(prepared, answers[0][1], count)
            found = self._boxes(prepared, answers)
        except ModelAnswerProblem as error:
            raise VisionProblem(f"vision service {self.name}: {error}", Status.FAILED_PRECONDITION) from error
        passing = found and [box for box in found if self._keep.passes(box.label, box.confidence)]
        faint = [box for box in found or () if not self._keep.passes(box.label, box.confidence)] if self._tracks else []
        return Seen(classes, passing, size, inference_ms, faint)

    def named(self, boxes: list[Box], seen: Seen, source: str) -> list[Box]:
        if self._tracks is None:
            return boxes
        names = self._tracks.update(source, boxes, seen.faint, self.clock_s())
        return [replace(box, label=name or box.label) for box, name in zip(boxes, names, strict=True)]

    def _views(self, picture: bytes, layout: InputLayout) -> tuple[tuple[int, int], list[tuple[Frame, Any]]]:
        """The picture's size, and the parts of it that the model is shown: the whole as ever, then the tiles."""
        pixels = read_rgb(picture, fit=layout.size)
        size = picture_size(picture) if layout.size else (pixels.shape[0], pixels.shape[1])
        height, width = size
        whole = Frame(0, 0, width, height)
        views = [(whole, make_input(pixels, layout, self._normalization))]
        if self._tiling is None:
            return size, views
        frames = self._tiling.frames(height, width)[1:]
        if layout.size:  # a tile of it is to be no larger than a whole picture would be
            fit = (layout.size[0] * self._tiling.rows, layout.size[1] * self._tiling.columns)
            pixels = read_rgb(picture, fit=fit)
        for frame in frames:
            part = _cropped(pixels, frame, size)
            views.append((frame, make_input(part, layout, self._normalization)))
        return size, views

    def _classes(self, prepared: Prepared, outputs: Any, count: int) -> list[tuple[str, float]] | None:
        if not prepared.classifies:
            return None
        classes = decode_classes(outputs, self._attributes.remap_output_names, prepared.labels)
        return select_classes(classes, self._keep, count)

    def _boxes(self, prepared: Prepared, answers: Sequence[tuple[Frame, Any]]) -> list[Box] | None:
        """What may be of use: boxes that pass, and those that say where things went that are followed."""
        if prepared.detector is None:
            return None
        order, layout = self._attributes.xmin_ymin_xmax_ymax_order, prepared.layout
        pieces = []
        for frame, outputs in answers:
            size = (frame.height, frame.width)
            found = decode_boxes(outputs, prepared.detector, prepared.labels, order, layout.size or size, size)
            pieces += [piece_of(box, frame) for box in found if self._is_of_use(box)]
        return [piece.box for piece in pieces] if self._tiling is None else merge(pieces)

    def _is_of_use(self, box: Box) -> bool:
        is_faint = self._tracks is not None and box.confidence >= LEAST_FAINT
        return is_faint or self._keep.passes(box.label, box.confidence)

    async def _ready(self) -> Prepared:
        model = self._host.resource(self._attributes.mlmodel_name, "mlmodel") or self._fallback
        if model is None:
            raise VisionProblem(
                f"vision service {self.name}: ML model {self._attributes.mlmodel_name!r} is not ready",
                Status.UNAVAILABLE,
            )
        prepared = self._prepared
        if prepared is None or prepared.model is not model:
            # Two callers may both probe; that is harmless, and a lock would tie the service to one event loop.
            self._prepared = prepared = await self._probe(cast(MLModel, model))
        return prepared

    async def _probe(self, model: MLModel) -> Prepared:
        """Runs a grey picture through the model and sees which roles can make sense of the answer."""
        attributes = self._attributes
        metadata = await model.metadata()
        if not metadata.input_info:
            raise VisionProblem(f"ML model {attributes.mlmodel_name!r} tells of no input", Status.FAILED_PRECONDITION)
        first = metadata.input_info[0]
        try:
            layout = input_layout(first.name, first.data_type, list(first.shape), attributes.remap_input_names)
            readings = await asyncio.to_thread(_label_readings, metadata, attributes.label_path)
            grey = np.full((_PROBE_SIDE, _PROBE_SIDE, 3), _PROBE_GREY, np.uint8)
            outputs = await model.infer({layout.name: make_input(grey, layout, self._normalization)})
        except ModelAnswerProblem as error:
            raise VisionProblem(f"vision service {self.name}: {error}", Status.FAILED_PRECONDITION) from error
        reasons: list[str] = []
        labels = self._labels_that_classify(outputs, readings, reasons)
        detector = self._find_detector(outputs, readings[0], layout, reasons)
        if labels is None and detector is None:
            raise VisionProblem(
                f"ML model {attributes.mlmodel_name!r} does not fulfill any method of the vision service "
                f"({'; '.join(reasons)})",
                Status.FAILED_PRECONDITION,
            )
        if detector is None and (attributes.tiles or attributes.tracking):
            raise VisionProblem(
                f"vision service {self.name}: {'tiles' if attributes.tiles else 'tracking'} needs a detector, and ML model "
                f"{attributes.mlmodel_name!r} is none ({'; '.join(reasons)}): leave it out, or choose another model",
                Status.FAILED_PRECONDITION,
            )
        return Prepared(model, layout, readings[0] if labels is None else labels, labels is not None, detector)

    def _labels_that_classify(
        self, outputs: Tensors, readings: list[list[str]], reasons: list[str]
    ) -> list[str] | None:
        """The first reading of the labels that fits the model as a classifier; None, with the reason, if none does."""
        for labels in readings:
            try:
                decode_classes(outputs, self._attributes.remap_output_names, labels)
            except ModelAnswerProblem as error:
                reasons.append(f"as classifier: {error}")
            else:
                return labels
        return None

    def _find_detector(
        self, outputs: Tensors, labels: list[str], layout: InputLayout, reasons: list[str]
    ) -> DetectorNames | None:
        try:
            names = find_outputs(outputs, self._attributes.remap_output_names)
            size = layout.size or (_PROBE_SIDE, _PROBE_SIDE)
            decode_boxes(outputs, names, labels, self._attributes.xmin_ymin_xmax_ymax_order, size, size)
        except ModelAnswerProblem as error:
            reasons.append(f"as detector: {error}")
            return None
        return names


def _cropped(pixels: Rgb, frame: Frame, size: tuple[int, int]) -> Rgb:
    """The frame, in pixels of a picture of that (height, width), cut out of `pixels`, which may be a smaller copy of it."""
    down, across = pixels.shape[0] / size[0], pixels.shape[1] / size[1]
    top, bottom = round(frame.top * down), round((frame.top + frame.height) * down)
    left, right = round(frame.left * across), round((frame.left + frame.width) * across)
    return np.ascontiguousarray(pixels[top:bottom, left:right])


def _label_readings(metadata: Metadata, own_path: str) -> list[list[str]]:
    if own_path:
        return read_labels(own_path)
    extra = struct_to_dict(metadata.output_info[0].extra) if metadata.output_info else {}
    path = extra.get("labels")
    return read_labels(path) if isinstance(path, str) and path else [[]]


def _dependencies(attributes: Any) -> list[str]:
    return [name for name in (attributes.mlmodel_name, attributes.camera_name) if name]


async def _build(context: BuildContext) -> MlModelVision:
    attributes: VisionMlModelAttributes = context.attributes
    model = cast("MLModel | None", context.dependencies.get(attributes.mlmodel_name))
    vision = MlModelVision(context.name, attributes, model, context.host)
    await vision.refresh()
    return vision


SPEC = ModelSpec(
    api="rdk:service:vision",
    model="rdk:builtin:mlmodel",
    title="Vision on an ML model",
    description="Names what a camera sees, with a confidence, or draws boxes around it, using an ML model service.",
    icon="eye",
    attributes=VisionMlModelAttributes,
    build=_build,
    dependencies=_dependencies,
    capture=VISION_CAPTURE,
)
