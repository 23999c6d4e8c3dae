from __future__ import annotations

import numpy as np
import pytest
from store_fixtures import (
    FOREIGN_PLACE,
    LAB_OWNER,
    OPERATOR,
    OTHER_PLACE,
    OWNER,
    Store,
    picture,
    readings,
    text_file,
    user,
)

from gleaner.app.caller import Role
from gleaner.app.errors import InvalidInput, NotFound, PermissionDenied
from gleaner.app.services.items_values import ItemFilter, Selection
from gleaner.app.store.records import Box

SECOND = 10**9
START = 1_700_000_000 * SECOND
BOX = Box("star", 0.1, 0.2, 0.3, 0.4)


@pytest.fixture
def rows(store: Store) -> list[int]:
    """Ten pictures of the rover (even ones tagged `even`), five of the arm, one text file, one foreign picture."""
    uploads = [picture(n, tags=("even",) if n % 2 == 0 else ()) for n in range(10)]
    uploads += [picture(n, place=OTHER_PLACE, component="wrist") for n in range(10, 15)]
    uploads += [text_file("notes/Log book.txt", b"hello"), picture(99, place=FOREIGN_PLACE)]
    return [receipt.row for receipt in store.add(*uploads)]


FILTERS = {
    "everything of the organization": (ItemFilter(), 16),
    "another organization": (ItemFilter(organization_ids=("org-2",)), 0),
    "machine": (ItemFilter(machine_ids=("machine-1",)), 11),
    "alternatives inside a name": (ItemFilter(machine_ids=("machine-1", "machine-2")), 16),
    "names combine with and": (ItemFilter(machine_ids=("machine-2",), component_names=("cam",)), 0),
    "machine name": (ItemFilter(machine_names=("arm",)), 5),
    "part": (ItemFilter(part_ids=("part-2",)), 5),
    "whole component type": (ItemFilter(component_types=("rdk:component:camera",)), 15),
    "short component type": (ItemFilter(component_types=("camera",)), 15),
    "method": (ItemFilter(methods=("ReadImage",)), 15),
    "mime type": (ItemFilter(mime_types=("text/plain",)), 1),
    "kind": (ItemFilter(kinds=("image",)), 15),
    "tag": (ItemFilter(tags=("even", "never")), 5),
    "tagged": (ItemFilter(tagged=True), 5),
    "untagged": (ItemFilter(tagged=False), 11),
    "start is inclusive": (ItemFilter(start_ns=START + 9 * SECOND, kinds=("image",)), 6),
    "end is exclusive": (ItemFilter(end_ns=START + 9 * SECOND), 9),
    "search in names, any case": (ItemFilter(search="log BOOK"), 1),
    "search in tags": (ItemFilter(search="eve"), 5),
    "search in components": (ItemFilter(search="wri"), 5),
    "search treats % as a letter": (ItemFilter(search="%"), 0),
}


@pytest.mark.parametrize("name", FILTERS)
def test_filter(store: Store, rows: list[int], name: str) -> None:
    wanted, expected = FILTERS[name]
    assert store.items.count(OWNER, wanted)[0] == expected
    assert len(store.items.index(OWNER, wanted)) == 4 * expected
    assert len(store.items.page(OWNER, wanted, limit=100).items) == expected
    assert store.items.facets(OWNER, wanted).total == expected


def test_index_is_newest_first(store: Store, rows: list[int]) -> None:
    index = np.frombuffer(store.items.index(OWNER, ItemFilter(kinds=("image",))), "<u4")
    assert index.tolist() == rows[:15][::-1]


def test_pages_cover_everything_once_in_both_directions(store: Store, rows: list[int]) -> None:
    for ascending in (False, True):
        seen: list[int] = []
        last = ""
        while (page := store.items.page(OWNER, ItemFilter(), 4, last, ascending=ascending)).items:
            seen += [item.row for item in page.items]
            last = page.last
        assert sorted(seen) == sorted(rows[:16])
        times = [item.captured_ns for item in store.items.lookup(OWNER, seen)]
        assert times == sorted(times, reverse=not ascending)


def test_page_marker_of_somebody_else_is_refused(store: Store) -> None:
    with pytest.raises(InvalidInput, match="page marker"):
        store.items.page(OWNER, ItemFilter(), last="nonsense")


def test_facets_show_what_else_could_be_chosen(store: Store, rows: list[int]) -> None:
    store.add(readings(0, 4))
    facets = store.items.facets(OWNER, ItemFilter(machine_ids=("machine-1",), tags=("even",)))
    assert (facets.total, facets.untagged) == (5, 0)
    assert [(one.value, one.label, one.count) for one in facets.machines] == [("machine-1", "rover", 5)]
    assert [(one.value, one.count) for one in facets.tags] == [("even", 5)]
    everything = store.items.facets(OWNER, ItemFilter(kinds=("file",)))
    assert {one.value: one.count for one in everything.kinds} == {"image": 15, "file": 1, "reading": 4}
    assert everything.total_bytes == 5


def test_facets_follow_deletions(store: Store, rows: list[int]) -> None:
    store.items.delete(OWNER, Selection(rows=(rows[0],)))
    assert [(one.value, one.count) for one in store.items.facets(OWNER, ItemFilter()).tags] == [("even", 4)]


def test_location_owner_sees_and_changes_the_own_location_only(store: Store, rows: list[int]) -> None:
    assert store.items.count(LAB_OWNER, ItemFilter())[0] == 11
    assert store.items.lookup(LAB_OWNER, rows)[-1].origin.location_id == "location-1"
    assert store.items.change_tags(LAB_OWNER, Selection(rows=(rows[1],)), ["mine"]) == 1
    with pytest.raises(NotFound):
        store.items.change_tags(LAB_OWNER, Selection(rows=(rows[12],)), ["theirs"])


@pytest.mark.parametrize("caller", [OPERATOR, user("robot", "machine-1", Role.OPERATOR)])
def test_operators_look_but_do_not_touch(store: Store, rows: list[int], caller) -> None:  # type: ignore[no-untyped-def]
    one = Selection(rows=(rows[0],))
    assert store.items.get(caller, rows[0])
    for change in (
        lambda: store.items.change_tags(caller, one, ["x"]),
        lambda: store.items.delete(caller, one),
        lambda: store.items.add_box(caller, rows[0], BOX),
        lambda: store.datasets.create(caller, "org-1", "mine"),
    ):
        with pytest.raises(PermissionDenied, match="owner"):
            change()


def test_other_organizations_do_not_exist(store: Store, rows: list[int]) -> None:
    with pytest.raises(NotFound):
        store.items.get(OWNER, rows[-1])
    assert store.items.lookup(OWNER, [rows[-1]]) == []


def test_tags_are_added_and_removed_and_changes_counted(store: Store, rows: list[int]) -> None:
    three = Selection(rows=tuple(rows[:3]))
    assert store.items.change_tags(OWNER, three, add=["red", " red ", ""]) == 3
    assert store.items.change_tags(OWNER, three, add=["red"]) == 0
    assert store.items.change_tags(OWNER, three, remove=["even", "never"]) == 2
    assert [item.tags for item in store.items.lookup(OWNER, rows[:3])] == [("red",)] * 3
    assert store.items.count(OWNER, ItemFilter(tagged=False))[0] == 10
    by_filter = Selection(filter=ItemFilter(machine_ids=("machine-2",)))
    assert store.items.change_tags(OWNER, by_filter, add=["arm"]) == 5
    assert store.items.tags(OWNER, ItemFilter()) == ["arm", "even", "red"]
    with pytest.raises(InvalidInput, match="No tags"):
        store.items.change_tags(OWNER, three)


def test_deletion_hides_at_once_and_can_be_undone(store: Store, rows: list[int]) -> None:
    dataset = store.datasets.create(OWNER, "org-1", "shapes")
    store.datasets.add_items(OWNER, dataset.id, Selection(rows=tuple(rows[:4])))
    first = store.items.delete(OWNER, Selection(rows=(rows[0], rows[1])))
    second = store.items.delete(OWNER, Selection(filter=ItemFilter(tags=("even",))))
    assert (first.deleted, second.deleted) == (2, 4)
    assert store.items.count(OWNER, ItemFilter())[0] == 10
    assert store.datasets.get(OWNER, dataset.id).item_count == 1
    assert store.items.undelete(OWNER, first.undo) == 2
    assert {item.row for item in store.items.page(OWNER, ItemFilter(), 100).items} >= {rows[0], rows[1]}
    assert store.datasets.get(OWNER, dataset.id).item_count == 3
    with pytest.raises(NotFound):
        store.items.undelete(OWNER, first.undo)
    with pytest.raises(PermissionDenied):
        store.items.undelete(OPERATOR, second.undo)


def test_boxes_live_with_their_item(store: Store, rows: list[int]) -> None:
    made = store.items.add_box(OWNER, rows[0], BOX)
    changed = store.items.update_box(OWNER, rows[0], made.id, label="sun", x_max=0.9)
    assert changed.box == Box("sun", 0.1, 0.2, 0.9, 0.4)
    assert store.items.get(OWNER, rows[0]).boxes == (changed,)
    assert store.items.labels(OWNER, ItemFilter()) == ["sun"]
    assert store.items.rows(OWNER, ItemFilter(labels=("sun",))) == [rows[0]]
    with pytest.raises(NotFound):
        store.items.remove_box(OWNER, rows[1], made.id)
    store.items.remove_box(OWNER, rows[0], made.id)
    assert store.items.get(OWNER, rows[0]).boxes == ()


@pytest.mark.parametrize(
    "box",
    [
        Box("", 0, 0, 1, 1),
        Box("a", -0.1, 0, 1, 1),
        Box("a", 0.5, 0, 0.5, 1),  # no area
        Box("a", 0, 0.6, 1, 0.4),  # upside down
        Box("a", 0, 0, float("nan"), 1),
        Box("a", 0, 0, 1, 1, 1.5),
    ],
)
def test_impossible_boxes_are_refused(store: Store, rows: list[int], box: Box) -> None:
    with pytest.raises(InvalidInput) as refused:
        store.items.add_box(OWNER, rows[0], box)
    assert refused.value.hint


def test_viam_ids_find_their_items(store: Store, rows: list[int]) -> None:
    items = store.items.lookup(OWNER, [rows[3], rows[1]])
    assert store.items.by_ids(OWNER, [one.binary_data_id for one in items]) == items
    assert store.items.by_ids(OWNER, [one.file_id for one in items]) == items
    for bad, error in (([], InvalidInput), ([""], InvalidInput), (["a/b"], InvalidInput), (["a/b/c"], NotFound)):
        with pytest.raises(error):
            store.items.by_ids(OWNER, bad)


def test_names_follow_the_fleet(store: Store, rows: list[int]) -> None:
    from dataclasses import replace

    store.add(picture(50, place=replace(OTHER_PLACE, machine_name="new arm"), component="wrist"))
    assert store.items.count(OWNER, ItemFilter(machine_names=("new arm",)))[0] == 6
