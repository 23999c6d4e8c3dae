"""Boxes instead of tags: boxed pictures come in as a zip, a detector learns from them, is deployed, and draws its boxes live."""

from __future__ import annotations

import asyncio
import io
import json
import math
import re
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from grpclib.client import Channel
from journey_pages import SECONDS, Pages
from journey_stack import DemoStack, local_page, record_figures
from playwright.sync_api import Browser, expect
from viam.gen.service.vision.v1.vision_grpc import VisionServiceStub
from viam.gen.service.vision.v1.vision_pb2 import Detection, GetDetectionsRequest

from gleaner.machine.home import MachineHome
from gleaner.sim import truth, views
from gleaner.sim.geometry import Lens, Pose
from gleaner.sim.truth import VisibleSign
from gleaner.sim.world import START

MODEL = "finder"
DATASET = "boxed-signs"
LABELS = ("red_star", "blue_circle", "black_triangle")


def boxed_views(per_label: int, seed: int) -> list[tuple[bytes, list[VisibleSign]]]:
    """Views of the arena with one whole sign or none each, and the sign's box."""
    return [
        (view.jpeg, [sign for sign in truth.visible(view.pose) if sign.label == label])
        for label in (*LABELS, None)
        for view in views.labelled_views(label, per_label, seed)
    ]


def coco_zip(boxed: Sequence[tuple[bytes, list[VisibleSign]]]) -> bytes:
    lens = Lens()
    size = np.array([lens.width_px, lens.height_px] * 2)
    labels = sorted({sign.label for _, signs in boxed for sign in signs})
    images = [
        {"id": n, "file_name": f"{n}.jpg", "width": int(size[0]), "height": int(size[1])} for n in range(len(boxed))
    ]
    annotations = []
    for number, (_, signs) in enumerate(boxed):
        for sign in signs:
            x0, y0, x1, y1 = (np.array([sign.x_min, sign.y_min, sign.x_max, sign.y_max]) * size).tolist()
            box = [x0, y0, x1 - x0, y1 - y0]
            one = {"id": len(annotations) + 1, "image_id": number, "category_id": labels.index(sign.label) + 1}
            annotations.append({**one, "bbox": box, "area": box[2] * box[3], "iscrowd": 0})
    categories = [{"id": n, "name": label} for n, label in enumerate(labels, 1)]
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for number, (jpeg, _) in enumerate(boxed):
            archive.writestr(f"images/{number}.jpg", jpeg)
        archive.writestr(
            "annotations.json", json.dumps({"images": images, "annotations": annotations, "categories": categories})
        )
    return made.getvalue()


def found_share(home: Path, vision: str, boxed: Sequence[tuple[bytes, list[VisibleSign]]], threshold: float) -> float:
    """Of the signs in the pictures, the share that the machine's vision service finds: label right, IoU at least 0.5."""

    async def ask() -> float:
        channel = Channel(path=str(MachineHome(home).socket_path))
        try:
            stub, hits, total, lens = VisionServiceStub(channel), 0, 0, Lens()
            for jpeg, signs in boxed:
                request = GetDetectionsRequest(
                    name=vision, image=jpeg, width=lens.width_px, height=lens.height_px, mime_type="image/jpeg"
                )
                said = [d for d in (await stub.GetDetections(request)).detections if d.confidence >= threshold]
                hits += sum(
                    any(d.class_name == sign.label and overlap(d, sign, lens) >= 0.5 for d in said) for sign in signs
                )
                total += len(signs)
            return hits / total
        finally:
            channel.close()

    with ThreadPoolExecutor(1) as pool:  # Playwright's synchronous API runs an event loop in this thread already
        return pool.submit(lambda: asyncio.run(ask())).result()


def overlap(said: Detection, sign: VisibleSign, lens: Lens) -> float:
    left, right = sign.x_min * lens.width_px, sign.x_max * lens.width_px
    top, bottom = sign.y_min * lens.height_px, sign.y_max * lens.height_px
    wide = max(0.0, min(right, said.x_max) - max(left, said.x_min))
    high = max(0.0, min(bottom, said.y_max) - max(top, said.y_min))
    areas = (right - left) * (bottom - top) + (said.x_max - said.x_min) * (said.y_max - said.y_min)
    return wide * high / (areas - wide * high)


@pytest.mark.slow
@pytest.mark.timeout(420)
def test_journey_detector_from_a_zip_of_boxes_to_boxes_on_the_live_picture(
    demo: DemoStack, chromium: Browser, tmp_path: Path
) -> None:
    archive = tmp_path / "boxed.zip"
    archive.write_bytes(coco_zip(boxed_views(28, seed=5)))
    with local_page(chromium) as page:
        pages = Pages(page, demo.web)
        pages.log_in(demo.new_login_link())
        organization = page.request.get(f"{demo.web}/api/auth/me").json()["organizations"][0]["id"]
        asked = {"name": DATASET, "organization_id": organization}
        made = page.request.post(f"{demo.web}/api/datasets", data=asked, headers={"Origin": demo.web})
        assert made.ok, made.text()
        page.goto(f"{demo.web}/datasets/{made.json()['id']}")
        page.get_by_role("button", name="Import").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Zip to import").set_input_files(archive)
        dialog.get_by_role("button", name="Import", exact=True).click()
        expect(dialog.get_by_text("112 new pictures")).to_be_visible(timeout=60 * SECONDS)
        pages.train(DATASET, MODEL, "Object detection", "60 s")
        pages.wait_until_trained(150)
        pages.picture("train-detector")
        dialog = pages.deploy(MODEL, "rover")
        dialog.get_by_role("link", name="Watch it live").click(timeout=30 * SECONDS)
        in_view = [sign.label for sign in truth.visible(Pose(START.x_mm, START.y_mm, START.heading_deg))]
        assert in_view == ["blue_circle", "red_star"]
        # One of them at least: how many it finds is measured below, on more than one picture.
        expect(pages.live("cam")).to_contain_text(re.compile("|".join(in_view)), timeout=20 * SECONDS)
        pages.picture("control-detector")
        page.goto(f"{demo.web}/models/{MODEL}")
        expect(page.get_by_text("mAP50", exact=True)).to_be_visible(timeout=10 * SECONDS)
        pages.picture("report-detector")
        found = found_share(demo.data_dir / "rover", f"{MODEL}-vision", boxed_views(12, seed=77), 0.3)
    assert found > 0.6 and math.isfinite(found)
    record_figures(detector_found=round(found, 3))
