"""The training dialog with somebody else's network to start from; in a real browser."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from journey_gallery import COLOURS, SECONDS, Server, logged_in_page, picture, running_server
from journey_pages import Pages
from playwright.sync_api import Browser, Page, expect

pytestmark = pytest.mark.skipif(
    any(find_spec(one) is None for one in ("transformers", "onnxscript")), reason="gleaner[pretrained] is not installed"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, free_ports: Callable[[int], list[int]]) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("app"), *free_ports(2)) as made:
        yield made


@pytest.fixture
def page(chromium: Browser, server: Server) -> Iterator[Page]:
    with logged_in_page(chromium, server) as opened:
        opened.set_viewport_size({"width": 1280, "height": 1000})
        yield opened


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Tiny, with random weights, and a card that asks for no money to be made."""
    from transformers import ResNetConfig, ResNetModel

    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 12, 16, 24], depths=[1, 1, 1, 1], layer_type="basic")
    ResNetModel(config).save_pretrained(tmp_path)
    (tmp_path / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    return tmp_path


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_licence_is_accepted_before_its_network_is_started_from(page: Page, server: Server, checkpoint: Path) -> None:
    body = {"name": "discs", "organization_id": server.organization_id}
    dataset = server.rest.post("/api/datasets", json=body).json()["id"]
    rows = []
    for number, colour in enumerate(COLOURS):
        files = {f"{colour}_{seed}.jpg": picture(colour, 1000 * number + seed) for seed in range(6)}
        rows += server.upload(files, [colour])
    server.rest.post(f"/api/datasets/{dataset}/items", json={"rows": rows, "action": "add"})

    page.goto(f"{server.web}/datasets/{dataset}")
    page.get_by_role("button", name="Train", exact=False).first.click()
    dialog = page.get_by_role("dialog", name="Train a model")
    dialog.get_by_text("10 s", exact=True).click()
    start = dialog.get_by_label("Start from")
    start.fill("resnet50")
    dialog.get_by_role("button", name="Train model").click()
    expect(dialog).to_contain_text("'resnet50' names no backbone")
    start.fill(f"hf:{checkpoint}")
    Pages(page, server.web).picture("train-dialog-backbone")
    dialog.get_by_role("button", name="Train model").click()
    page.wait_for_url(re.compile(r"/train/"), timeout=10 * SECONDS)
    expect(page.get_by_text("cc-by-nc-4.0, which is not permissive").first).to_be_visible(timeout=60 * SECONDS)

    page.goto(f"{server.web}/datasets/{dataset}")
    page.get_by_role("button", name="Train", exact=False).first.click()
    expect(start).to_have_value(f"hf:{checkpoint}")
    dialog.get_by_label("I accept its licence, whatever it is").check()
    dialog.get_by_role("button", name="Train model").click()
    page.wait_for_url(re.compile(r"/train/"), timeout=10 * SECONDS)
    expect(page.get_by_text(f"hf:{checkpoint}").first).to_be_visible()
    expect(page.get_by_text("Completed").first).to_be_visible(timeout=150 * SECONDS)
    (job, refused) = server.rest.get("/api/training_jobs", params={"organization_id": server.organization_id}).json()
    assert (job["status"], refused["status"]) == ("completed", "failed"), json.dumps(refused)
    assert job["backbone"] == f"hf:{checkpoint}"
