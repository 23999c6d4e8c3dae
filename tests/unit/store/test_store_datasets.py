from __future__ import annotations

import json
from pathlib import Path

import pytest
from store_fixtures import FOREIGN_PLACE, OPERATOR, OWNER, Store, picture, text_file

from gleaner.app.errors import Conflict, InvalidInput, NotFound, PermissionDenied
from gleaner.app.services.items_values import ItemFilter, Selection, Settle, Settled, Suggested
from gleaner.app.store.records import Box


@pytest.fixture
def dataset(store: Store) -> str:
    """Six pictures: four stars, one circle, one untagged; and a text file."""
    tags = [("star",)] * 4 + [("circle",), ()]
    receipts = store.add(*(picture(n, tags=t) for n, t in enumerate(tags)), text_file("a.txt", b"x"))
    made = store.datasets.create(OWNER, "org-1", " shapes ")
    store.datasets.add_items(OWNER, made.id, Selection(rows=tuple(one.row for one in receipts)))
    return made.id


def test_dataset_tells_its_counts(store: Store, dataset: str) -> None:
    found = store.datasets.get(OWNER, dataset)
    assert (found.name, found.item_count, found.untagged) == ("shapes", 7, 2)
    assert [(one.value, one.count) for one in found.labels] == [("star", 4), ("circle", 1)]
    assert len(found.cover_rows) == 4
    assert store.items.count(OWNER, ItemFilter(dataset_ids=(dataset,)))[0] == 7
    assert store.items.page(OWNER, ItemFilter(), 1).items[0].datasets == ((dataset, "shapes"),)


def test_names_are_unique_in_their_organization(store: Store, dataset: str) -> None:
    with pytest.raises(Conflict):
        store.datasets.create(OWNER, "org-1", "shapes")
    other = store.datasets.create(OWNER, "org-1", "signs")
    with pytest.raises(Conflict):
        store.datasets.rename(OWNER, other.id, "shapes")
    assert store.datasets.rename(OWNER, dataset, "forms").name == "forms"
    assert [one.name for one in store.datasets.of_organization(OWNER, "org-1")] == ["forms", "signs"]


def test_deleting_a_dataset_keeps_its_items_and_versions(store: Store, dataset: str, tmp_path: Path) -> None:
    version = store.datasets.create_version(OWNER, dataset)
    store.datasets.delete(OWNER, dataset)
    with pytest.raises(NotFound):
        store.datasets.get(OWNER, dataset)
    assert store.items.count(OWNER, ItemFilter())[0] == 7
    assert store.datasets.materialize_version(version.id, tmp_path / "run").items == 6


def test_members_are_added_and_removed_once(store: Store, dataset: str) -> None:
    rows = store.items.rows(OWNER, ItemFilter(tags=("star",)))
    assert store.datasets.add_items(OWNER, dataset, Selection(rows=tuple(rows))) == 0
    assert store.datasets.remove_items(OWNER, dataset, Selection(filter=ItemFilter(tags=("star",)))) == 4
    assert store.datasets.get(OWNER, dataset).item_count == 3
    foreign = store.add(picture(50, place=FOREIGN_PLACE))[0].row
    with pytest.raises(NotFound):
        store.datasets.add_items(OWNER, dataset, Selection(rows=(foreign,)))
    with pytest.raises(PermissionDenied):
        store.datasets.add_items(OPERATOR, dataset, Selection(rows=(rows[0],)))


def test_merged_dataset_has_the_items_of_all(store: Store, dataset: str) -> None:
    other = store.datasets.create(OWNER, "org-1", "more")
    store.datasets.add_items(OWNER, other.id, Selection(rows=(store.add(picture(70))[0].row,)))
    merged = store.datasets.merge(OWNER, [dataset, other.id], "org-1", "all")
    assert merged.item_count == 8


def test_version_changes_with_content_and_annotations_only(store: Store, dataset: str) -> None:
    first = store.datasets.create_version(OWNER, dataset)
    assert (first.version, first.item_count) == (1, 6)  # the text file is no picture
    assert store.datasets.create_version(OWNER, dataset) == first
    row = store.items.rows(OWNER, ItemFilter(tags=("circle",)))[0]
    store.items.change_tags(OWNER, Selection(rows=(row,)), ["round"])
    second = store.datasets.create_version(OWNER, dataset)
    assert second.version == 2 and second.hash != first.hash
    store.items.change_tags(OWNER, Selection(rows=(row,)), remove=["round"])
    assert store.datasets.create_version(OWNER, dataset).hash == first.hash
    assert [one.version for one in store.datasets.get(OWNER, dataset).versions] == [3, 2, 1]


def test_materialized_version_is_what_was_frozen(store: Store, dataset: str, tmp_path: Path) -> None:
    row = store.items.rows(OWNER, ItemFilter(tags=("circle",)))[0]
    store.items.add_box(OWNER, row, Box("ring", 0.1, 0.2, 0.3, 0.4))
    version = store.datasets.create_version(OWNER, dataset)
    store.items.change_tags(OWNER, Selection(rows=(row,)), ["later"])
    written = store.datasets.materialize_version(version.id, tmp_path / "run")
    assert (written.items, written.missing) == (6, 0)
    lines = [json.loads(line) for line in (tmp_path / "run" / "dataset.jsonl").read_text().splitlines()]
    assert len(lines) == 6
    circle = next(one for one in lines if one["classification_annotations"] == [{"annotation_label": "circle"}])
    assert circle["bounding_box_annotations"] == [
        {
            "annotation_label": "ring",
            "x_min_normalized": 0.1,
            "y_min_normalized": 0.2,
            "x_max_normalized": 0.3,
            "y_max_normalized": 0.4,
        }
    ]
    assert circle["binary_data_id"].startswith("org-1/location-1/")
    assert circle["timestamp"].endswith("Z")
    image = tmp_path / "run" / circle["image_path"]
    assert image.read_bytes() == b"\xff\xd8\xff picture 4" and image.suffix == ".jpeg"
    assert image.stat().st_mode & 0o777 == 0o600


def test_deleted_picture_is_gone_from_old_versions_too(store: Store, dataset: str, tmp_path: Path) -> None:
    version = store.datasets.create_version(OWNER, dataset)
    store.items.delete(OWNER, Selection(filter=ItemFilter(tags=("circle",))))
    written = store.datasets.materialize_version(version.id, tmp_path / "run")
    assert (written.items, written.missing) == (5, 1)


def test_empty_dataset_has_no_version(store: Store) -> None:
    made = store.datasets.create(OWNER, "org-1", "empty")
    with pytest.raises(InvalidInput, match="empty"):
        store.datasets.create_version(OWNER, made.id)


def test_check_names_what_makes_a_poor_model(store: Store, dataset: str) -> None:
    found = store.datasets.check(OWNER, dataset, ["star", "circle"], "single_label_classification")
    assert found["counts"] == [{"label": "star", "count": 4}, {"label": "circle", "count": 1}]
    assert found["untagged"] == 2
    text = " ".join(one["message"] for one in found["warnings"])
    assert "7 pictures are few" in text and "2 of 7" in text and "circle: 1 picture." in text
    assert all(one["hint"] for one in found["warnings"])


def test_check_of_a_good_dataset_is_silent(store: Store) -> None:
    receipts = store.add(*(picture(n, tags=("a",) if n % 2 else ("b",)) for n in range(20)))
    made = store.datasets.create(OWNER, "org-1", "good")
    store.datasets.add_items(OWNER, made.id, Selection(rows=tuple(one.row for one in receipts)))
    assert store.datasets.check(OWNER, made.id, ["a", "b"])["warnings"] == []
    alone = store.datasets.check(OWNER, made.id, ["a"])
    assert [one["message"] for one in alone["warnings"]] == ["10 of 20 pictures have none of the chosen tags."]


def test_check_for_detection_counts_boxes(store: Store, dataset: str) -> None:
    row = store.items.rows(OWNER, ItemFilter(tags=("circle",)))[0]
    for _ in range(2):
        store.items.add_box(OWNER, row, Box("ring", 0.1, 0.2, 0.3, 0.4))
    found = store.datasets.check(OWNER, dataset, [], "object_detection")
    assert found["counts"] == [{"label": "ring", "count": 1}]


def test_check_for_detection_leaves_out_what_nobody_has_accepted(store: Store, dataset: str) -> None:
    row = store.items.rows(OWNER, ItemFilter(tags=("circle",)))[0]
    store.items.add_box(OWNER, row, Box("ring", 0.5, 0.2, 0.6, 0.4))
    made = store.items.add_box(OWNER, row, Box("ring", 0.1, 0.2, 0.3, 0.4, 0.8))
    found = store.datasets.check(OWNER, dataset, [], "object_detection")
    assert (found["waiting"], found["untagged"]) == (1, 6)
    assert found["counts"] == [{"label": "ring", "count": 0}]
    said = "1 picture is left out: a box of it is a model's that nobody has accepted."
    assert found["warnings"][0]["message"] == said
    store.items.update_box(OWNER, row, made.id, confidence=None)
    found = store.datasets.check(OWNER, dataset, ["ring"], "object_detection")
    assert (found["waiting"], found["counts"]) == (0, [{"label": "ring", "count": 1}])
    assert not [one for one in found["warnings"] if "accepted" in one["message"]]


def test_a_version_says_which_boxes_are_a_models(store: Store, dataset: str, tmp_path: Path) -> None:
    row = store.items.rows(OWNER, ItemFilter(tags=("circle",)))[0]
    store.items.add_box(OWNER, row, Box("ring", 0.1, 0.2, 0.3, 0.4))
    made = store.items.add_box(OWNER, row, Box("ring", 0.5, 0.2, 0.6, 0.4, 0.8))
    before = store.datasets.create_version(OWNER, dataset)
    store.items.update_box(OWNER, row, made.id, confidence=None)
    after = store.datasets.create_version(OWNER, dataset)
    assert (before.version, after.version) == (1, 2)
    for version, expected in ((before, [None, 0.8]), (after, [None, None])):
        folder = tmp_path / str(version.version)
        store.datasets.materialize_version(version.id, folder)
        lines = map(json.loads, (folder / "dataset.jsonl").read_text().splitlines())
        assert [box.get("confidence") for line in lines for box in line["bounding_box_annotations"]] == expected


def test_a_models_boxes_are_accepted_and_dismissed_by_confidence(store: Store, dataset: str) -> None:
    row = store.items.rows(OWNER, ItemFilter(tags=("circle",)))[0]
    drawn = store.items.add_box(OWNER, row, Box("ring", 0.1, 0.2, 0.3, 0.4))
    for n, (label, sure) in enumerate((("ring", 0.9), ("ring", 0.5), ("cup", 0.95), ("ring", 0.2))):
        store.items.add_box(OWNER, row, Box(label, 0.1 * n, 0.5, 0.1 * n + 0.1, 0.9, sure))
    of_dataset = Selection(filter=ItemFilter(dataset_ids=(dataset,)))

    def settle(which: Suggested, to: Settle) -> Settled:
        return store.items.settle_boxes(OWNER, of_dataset, which, to)

    def left() -> list[float]:
        (item,) = store.items.lookup(OWNER, [row])
        return sorted(one.box.confidence for one in item.boxes if one.box.confidence is not None)

    assert settle(Suggested(at_least=0.5), Settle.COUNT) == Settled(3, 1)
    assert left() == [0.2, 0.5, 0.9, 0.95]
    assert settle(Suggested(("ring",), at_least=0.5), Settle.ACCEPT) == Settled(2, 1)
    assert left() == [0.2, 0.95]
    assert settle(Suggested(below=0.95), Settle.DISMISS) == Settled(1, 1)
    assert left() == [0.95]
    (item,) = store.items.lookup(OWNER, [row])
    assert len(item.boxes) == 4 and drawn in item.boxes
    with pytest.raises(PermissionDenied):
        store.items.settle_boxes(OPERATOR, of_dataset, Suggested(), Settle.ACCEPT)
