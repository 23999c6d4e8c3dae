"""What a person does on each page, in the words of the page."""

from __future__ import annotations

import re
from pathlib import Path

from playwright.sync_api import Locator, Page, expect

IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"
SECONDS = 1000


class Pages:
    def __init__(self, page: Page, web: str) -> None:
        self.page = page
        self.web = web

    def log_in(self, link: str) -> None:
        self.page.goto(link)
        expect(self.page.get_by_role("heading", name="Machines", exact=True)).to_be_visible(timeout=10 * SECONDS)

    def picture(self, name: str) -> None:
        """Keeps a screenshot for the documentation."""
        IMAGES.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=IMAGES / f"{name}.png")

    # --- Data -----------------------------------------------------------------------------------------------------
    def open_data(self, **filters: str) -> None:
        query = "&".join(f"{name}={value.replace('+', '%2B')}" for name, value in filters.items())
        self.page.goto(f"{self.web}/data?{query}")

    def cells(self) -> Locator:
        return self.page.locator('[role="option"][data-row]')

    def select_everything(self, count: int) -> None:
        """Ctrl-A once the gallery shows what the filter should match."""
        expect(self.cells()).to_have_count(count, timeout=10 * SECONDS)
        self.page.keyboard.press("Control+a")
        expect(self.page.get_by_role("toolbar", name="Selected pictures")).to_contain_text(f"{count} selected")

    def tag_selected(self, tag: str) -> None:
        self.page.keyboard.press("t")
        box = self.page.get_by_role("combobox", name="Tags")
        box.fill(tag)
        with self.page.expect_response(lambda answer: answer.url.endswith("/api/items/tags") and answer.ok):
            box.press("Enter")

    def add_selected_to_dataset(self, name: str) -> None:
        self.page.keyboard.press("Escape")
        self.page.keyboard.press("d")
        box = self.page.get_by_role("combobox", name="Dataset")
        box.fill(name)
        with self.page.expect_response(
            lambda answer: re.search(r"/api/datasets/[^/]+/items$", answer.url) is not None and answer.ok
        ):
            box.press("Enter")

    # --- Training -------------------------------------------------------------------------------------------------
    def train(self, dataset: str, model: str, kind: str, time: str) -> None:
        self.page.goto(f"{self.web}/datasets")
        self.page.get_by_role("link", name=f"Dataset {dataset}", exact=True).click()
        self.page.get_by_role("button", name="Train model").click()
        dialog = self.page.get_by_role("dialog", name="Train a model")
        dialog.get_by_label("Model name").fill(model)
        dialog.get_by_role("radio", name=re.compile(kind)).check()
        dialog.get_by_role("radiogroup", name="Training time").get_by_text(time, exact=True).click()
        self.picture("train-dialog")
        dialog.get_by_role("button", name="Train model").click()
        self.page.wait_for_url(re.compile(r"/train/"), timeout=10 * SECONDS)

    def wait_until_trained(self, timeout_s: float) -> None:
        done = self.page.get_by_text("Completed", exact=True).or_(self.page.get_by_text("Failed", exact=True)).first
        expect(done).to_be_visible(timeout=timeout_s * SECONDS)
        expect(done).to_have_text("Completed")

    def deploy(self, model: str, machine: str) -> None:
        self.page.goto(f"{self.web}/models/{model}")
        self.page.get_by_role("button", name="Deploy", exact=True).first.click()
        dialog = self.page.get_by_role("dialog", name=f"Deploy {model}")
        field = dialog.get_by_label("Machine")
        if machine not in (field.text_content() or ""):
            field.click()
            self.page.get_by_role("option", name=re.compile(machine)).click()
        dialog.get_by_role("button", name="Deploy", exact=True).click()

    # --- Control --------------------------------------------------------------------------------------------------
    def open_control(self, machine_id: str, **query: str) -> None:
        address = "&".join(f"{name}={value}" for name, value in query.items())
        self.page.goto(f"{self.web}/machines/{machine_id}/control?{address}")

    def live(self, camera: str) -> Locator:
        return self.page.get_by_role("figure", name=f"Live picture of {camera}")

    def recognised(self, camera: str) -> Locator:
        """The labels drawn over the live picture, above the threshold."""
        return self.page.get_by_role("list", name=f"Recognised in {camera}")
