"""Versions of a model on a machine: measured before they take over, refused when they are no good, rolled back by a click."""

from __future__ import annotations

import asyncio
import io
import re
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import onnx
import pytest
from journey_pages import SECONDS, Pages
from journey_stack import DemoStack, local_page
from onnx import TensorProto, helper, numpy_helper
from playwright.sync_api import Browser, Locator, expect
from viam.app.viam_client import ViamClient
from viam.proto.app.packages import CreatePackageRequest, PackageInfo, PackageServiceStub, PackageType
from viam.rpc.dial import Credentials, DialOptions

MODEL = "warmth"


def archive(*, is_broken: bool) -> bytes:
    """How much red, green and blue a picture has; broken: the logarithm of less than nothing."""
    nodes = [
        helper.make_node("Cast", ["image"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["f"], ["m"], axes=[1, 2], keepdims=0),
        helper.make_node("Mul", ["m", "scale"], ["s" if is_broken else "probability"]),
        *([helper.make_node("Log", ["s"], ["probability"])] if is_broken else []),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 96, 96, 3])
    answer = helper.make_tensor_value_info("probability", TensorProto.FLOAT, [1, 3])
    scale = numpy_helper.from_array(np.float32(-1 if is_broken else 1 / 255), "scale")
    graph = helper.make_graph(nodes, "g", [image], [answer], [scale])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in (("model.onnx", model.SerializeToString()), ("labels.txt", b"red\ngreen\nblue\n")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


class Owner:
    """A logged-in REST client of the demo, which also uploads packages through Viam's own client."""

    def __init__(self, demo: DemoStack) -> None:
        self.demo = demo
        self.rest = httpx.Client(base_url=demo.web, headers={"origin": demo.web}, timeout=30, follow_redirects=True)
        self.rest.get(demo.new_login_link())
        self.organization_id = self.rest.get("/api/auth/me").json()["organizations"][0]["id"]
        grant = {"role": "owner", "resource_type": "organization", "resource_id": self.organization_id}
        made = self.rest.post(f"/api/organizations/{self.organization_id}/keys", json={"name": "k", **grant}).json()
        self._credentials = Credentials("api-key", made["key"])
        self._entity = made["id"]

    def upload(self, version: str, content: bytes) -> None:
        with ThreadPoolExecutor(1) as thread:  # Playwright's loop runs in this one
            thread.submit(lambda: asyncio.run(self._upload(version, content))).result()

    async def _upload(self, version: str, content: bytes) -> None:
        options = DialOptions(
            disable_webrtc=True,
            insecure=True,
            auth_entity=self._entity,
            credentials=self._credentials,
            max_reconnect_attempts=0,
        )
        client = await ViamClient.create_from_dial_options(options, f"127.0.0.1:{self.demo.ports[1]}")
        try:
            info = PackageInfo(
                organization_id=self.organization_id,
                name=MODEL,
                version=version,
                type=PackageType.PACKAGE_TYPE_ML_MODEL,
            )
            requests = [CreatePackageRequest(info=info), CreatePackageRequest(contents=content)]
            service = PackageServiceStub(client._channel)
            await service.CreatePackage(requests, metadata=client.data_client._metadata)
        finally:
            client.close()

    def part_id(self) -> str:
        machines = self.rest.get("/api/machines", params={"organization_id": self.organization_id}).json()
        return str(machines[0]["parts"][0]["id"])


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoStack]:
    """One of its own: the other journeys find theirs as a person does."""
    stack = DemoStack(tmp_path_factory.mktemp("demo"))
    try:
        yield stack.start()
    finally:
        stack.stop()


@pytest.fixture
def owner(demo: DemoStack) -> Owner:
    return Owner(demo)


def test_a_bad_version_never_takes_over_and_one_click_goes_back(
    chromium: Browser, demo: DemoStack, owner: Owner
) -> None:
    owner.upload("1", archive(is_broken=False))
    body = {"organization_id": owner.organization_id, "part_id": owner.part_id()}
    assert owner.rest.post(f"/api/ml_models/{MODEL}/deploy", json=body).status_code == 200
    try:
        with local_page(chromium) as page:
            page.set_default_timeout(20 * SECONDS)
            Pages(page, demo.web).log_in(demo.new_login_link())
            page.goto(f"{demo.web}/models/{MODEL}")
            row = page.get_by_role("list", name="Where it runs").get_by_role("listitem")
            arrives(row, "version 1, follows the newest", "Running")
            expect(row).to_contain_text(re.compile(r"\d ms a picture"))

            owner.upload("2", archive(is_broken=False))
            arrives(row, "version 2, follows the newest", "Running")
            owner.upload("3", archive(is_broken=True))
            arrives(row, "version 3, follows the newest", "Failed")
            expect(row).to_contain_text("model.onnx answers a plain grey picture with numbers that are none")
            expect(row).to_contain_text("version 2 stays in use")
            expect(page.get_by_text("Version 3 was uploaded, not trained here")).to_be_visible()
            Pages(page, demo.web).picture("rolled-back-before")

            row.get_by_role("button", name="Roll back").click()
            arrives(row, "version 2, pinned", "Running")
            row.get_by_role("button", name="Roll back").click()
            arrives(row, "version 1, pinned", "Running")
            expect(row.get_by_role("button", name="Roll back")).to_have_count(0)
            page.get_by_role("button", name="Undo").last.click()
            arrives(row, "version 2, pinned", "Running")
            row.get_by_role("button", name="Follow the newest").click()
            arrives(row, "version 3, follows the newest", "Failed")
            Pages(page, demo.web).picture("rolled-back")
    finally:
        owner.rest.delete(f"/api/ml_models/{MODEL}/deployments/{owner.part_id()}")
        owner.rest.delete(f"/api/ml_models/{MODEL}", params={"organization_id": owner.organization_id})
        owner.rest.close()


def arrives(row: Locator, version: str, state: str) -> None:
    expect(row).to_contain_text(version, timeout=60 * SECONDS)
    expect(row).to_contain_text(state, timeout=60 * SECONDS)
