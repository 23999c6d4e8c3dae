"""What a person does on each page, in the words of the page."""

from __future__ import annotations

import os
import re
from pathlib import Path

from playwright.sync_api import Locator, Page, expect

ROOT = Path(__file__).resolve().parents[2]
#: `GLEANER_JOURNEY_IMAGES=docs/images make journey` renews the pictures of the documentation.
IMAGES = ROOT / os.environ.get("GLEANER_JOURNEY_IMAGES", "test-results")
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
        self.page.screenshot(path=IMAGES / f"{name}.jpg", type="jpeg", quality=88)

    # --- Data -----------------------------------------------------------------------------------------------------
    def open_data(self, **filters: str) -> None:
        query = "&".join(f"{name}={value.replace('+', '%2B')}" for name, value in filters.items())
        self.page.goto(f"{self.web}/data?{query}")

    def cells(self) -> Locator:
        return self.page.locator('[role="option"][data-row]')

    def select_everything(self, count: int) -> None:
        """Ctrl-A once the gallery shows what the filter should match."""
        expect(self.page.get_by_role("tab", name=re.compile(rf"^Images\s*{count}$"))).to_be_visible(
            timeout=10 * SECONDS
        )
        self.cells().first.wait_for()
        self.page.keyboard.press("Control+a")
        expect(self.page.get_by_role("toolbar", name="Selected pictures")).to_contain_text(f"{count} selected")

    def tag_selected(self, tag: str) -> None:
        self.page.keyboard.press("t")
        box = self.page.get_by_role("combobox", name="Tags")
        box.fill(tag)
        with self.page.expect_response(lambda answer: answer.url.endswith("/api/items/tags") and answer.ok):
            box.press("Enter")
        self.page.keyboard.press("Escape")  # leaves the picker; the pictures stay selected
        expect(box).to_be_hidden()

    def add_selected_to_dataset(self, name: str) -> None:
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

    def deploy(self, model: str, machine: str) -> Locator:
        """The dialog that follows the deployment."""
        self.page.goto(f"{self.web}/models/{model}")
        self.page.get_by_role("button", name="Deploy", exact=True).first.click()
        dialog = self.page.get_by_role("dialog", name=f"Deploy {model}")
        field = dialog.get_by_label("Machine")
        if machine not in (field.text_content() or ""):
            field.click()
            self.page.get_by_role("option", name=re.compile(machine)).click()
        dialog.get_by_role("button", name="Deploy", exact=True).click()
        return dialog

    # --- Control --------------------------------------------------------------------------------------------------
    def open_control(self, machine_id: str, **query: str) -> None:
        address = "&".join(f"{name}={value}" for name, value in query.items())
        self.page.goto(f"{self.web}/machines/{machine_id}/control?{address}")

    def live(self, camera: str) -> Locator:
        return self.page.get_by_role("figure", name=f"Live picture of {camera}")

    def recognised(self, camera: str) -> Locator:
        """The labels drawn over the live picture, above the threshold."""
        return self.page.get_by_role("list", name=f"Recognised in {camera}")

    # --- Machines -------------------------------------------------------------------------------------------------
    def add_machine(self, name: str) -> str:
        """Adds a machine and makes its setup file. Returns the file's text, as it stands on the page."""
        self.page.goto(f"{self.web}/machines")
        self.page.get_by_role("button", name="Add machine").click()
        expect(self.page.get_by_role("dialog").get_by_label("Name")).to_be_focused()
        self.page.keyboard.type(name)
        self.page.keyboard.press("Enter")
        self.page.wait_for_url(re.compile(r"/machines/[^/]+/connect"))
        expect(self.page.get_by_text(f"Waiting for {name} to call in")).to_be_visible()
        self.page.get_by_role("button", name="Make the setup file").click()
        text = self.page.get_by_label("setup file", exact=True).text_content()
        assert text
        self.picture("connect")
        return text

    def add_resource(self, search: str, title: str, name: str) -> Locator:
        """On the Configure tab. Returns the new card."""
        self.page.get_by_role("button", name="Add a component or service").first.click()
        dialog = self.page.get_by_role("dialog")
        dialog.get_by_label("Find a component or service").fill(search)
        dialog.get_by_role("button", name=re.compile(title)).first.click()
        dialog.get_by_label("Name").fill(name)
        dialog.get_by_role("button", name="Create").click()
        return self.page.locator(f"#resource-{name}")

    def save_configuration(self) -> None:
        self.page.keyboard.press("Control+s")
        expect(self.page.get_by_text("The machine runs it")).to_be_visible(timeout=15 * SECONDS)
