"""What pictures look like to the backbone, on real photos; tags suggested from it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from store_fixtures import FOREIGN_PLACE, OPERATOR, OWNER, Store, picture, user

from gleaner.app.caller import Role
from gleaner.app.errors import InvalidInput, NotFound
from gleaner.app.services.embeddings import Embeddings
from gleaner.app.services.items_values import ItemFilter, Selection
from gleaner.app.services.similar_pictures import SimilarPictures
from gleaner.app.services.tag_suggestions import TagSuggestions
from gleaner.app.services.thumbnails import Thumbnails
from gleaner.app.store import tables as t
from gleaner.app.store.cleaning import KEEP_DELETED_S, Cleaner

PER_SIGN = 12
SIGNS = ("0", "2", "4")


@pytest.fixture(scope="module")
def graph_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Written by whichever test is first."""
    return tmp_path_factory.mktemp("embedding")


@pytest.fixture
def thumbnails(store: Store) -> Iterator[Thumbnails]:
    made = Thumbnails(store.database, store.packs, store.items, store.clock)
    yield made
    made.stop()


@pytest.fixture
def embeddings(store: Store, thumbnails: Thumbnails, graph_folder: Path) -> Embeddings:
    found = Embeddings(store.database, thumbnails, graph_folder)
    thumbnails.on_seen = found.seen
    return found


def hand_signs(photos: Path) -> list[tuple[str, bytes]]:
    """Some of each, in turns."""
    folders = [sorted((photos / "signs" / sign).iterdir()) for sign in SIGNS]
    return [
        (sign, folder[number * 4].read_bytes())
        for number, (sign, folder) in itertools.product(range(PER_SIGN), zip(SIGNS, folders, strict=True))
    ]


def saved(store: Store) -> dict[int, int]:
    with store.database.read() as db:
        return {
            row: len(vector) for row, vector in db.execute(sa.select(t.item_embedding.c.row, t.item_embedding.c.vector))
        }


def test_pictures_are_embedded_behind_their_thumbnails(
    store: Store, thumbnails: Thumbnails, embeddings: Embeddings, photos: Path
) -> None:
    content = [data for _, data in hand_signs(photos)[:3]]
    receipts = store.add(*(picture(n, content=one) for n, one in enumerate(content)))
    embeddings.look_at_older()
    assert saved(store) == {}, "nothing is known of them before their thumbnails were drawn"
    while thumbnails.look_at_older():
        pass
    thumbnails.start()
    thumbnails.stop()
    while embeddings.look_at_older():
        pass
    assert saved(store) == {one.row: 1024 for one in receipts}


def test_a_restarted_app_goes_on_with_what_is_missing(
    store: Store, thumbnails: Thumbnails, embeddings: Embeddings, photos: Path
) -> None:
    first, second = store.add(*(picture(n, content=one) for n, (_, one) in enumerate(hand_signs(photos)[:2])))
    embeddings.vectors([first.row], 60)
    with store.database.write() as db:
        db.execute(t.item_embedding.update().values(version=1))
    while thumbnails.look_at_older():
        pass
    thumbnails.start()
    thumbnails.stop()
    later = Embeddings(store.database, thumbnails, embeddings._folder)
    while later.look_at_older():
        pass
    assert sorted(later.known([first.row, second.row])) == [first.row, second.row]


def test_a_vector_goes_with_its_picture(store: Store, embeddings: Embeddings, photos: Path) -> None:
    [one] = store.add(picture(1, content=hand_signs(photos)[0][1]))
    assert embeddings.vectors([one.row], 60)[one.row].any()
    store.items.delete(OWNER, Selection(rows=(one.row,)))
    store.clock.advance(KEEP_DELETED_S + 60)
    Cleaner(store.database, store.packs, store.clock).clean()
    assert saved(store) == {}
    assert embeddings.vectors([one.row], 60) == {}


def test_what_cannot_be_shown_is_like_nothing(store: Store, embeddings: Embeddings) -> None:
    [one] = store.add(picture(1, content=b"\xff\xd8\xff broken"))
    assert not embeddings.vectors([one.row], 60)[one.row].any()


@pytest.fixture
def half_tagged(store: Store, photos: Path) -> tuple[str, dict[int, str]]:
    """(dataset, the truth about its untagged pictures)."""
    dataset = store.datasets.create(OWNER, "org-1", "signs")
    truth = {}
    for number, (sign, data) in enumerate(hand_signs(photos)):
        is_tagged = number < len(SIGNS) * PER_SIGN // 2
        tags = (f"sign {sign}",) if is_tagged else ()
        [one] = store.add(picture(number, content=data, tags=tags, dataset_ids=(dataset.id,)))
        if not is_tagged:
            truth[one.row] = f"sign {sign}"
    return dataset.id, truth


def test_untagged_pictures_get_suggestions_and_no_tags(
    store: Store, thumbnails: Thumbnails, embeddings: Embeddings, half_tagged: tuple[str, dict[int, str]]
) -> None:
    dataset_id, truth = half_tagged
    found = TagSuggestions(store.database, embeddings, thumbnails).suggest(OWNER, dataset_id)
    assert {one.row for one in found.suggested} == set(truth)
    right = np.mean([truth[one.row] == one.tag for one in found.suggested])
    assert right >= 0.6  # of three: a guess has a third
    assert [one.confidence for one in found.suggested] == sorted(
        (one.confidence for one in found.suggested), reverse=True
    )
    assert found.accuracy is not None
    assert found.interval[0] <= found.accuracy <= found.interval[1]
    assert found.learned_from == found.tested == len(SIGNS) * PER_SIGN // 2
    assert found.waiting == 0
    assert len(store.items.rows(OWNER, ItemFilter(tagged=True))) == found.tested


def test_suggestions_need_two_tags_and_the_right_to_see(
    store: Store, thumbnails: Thumbnails, embeddings: Embeddings, half_tagged: tuple[str, dict[int, str]]
) -> None:
    dataset_id, _ = half_tagged
    suggestions = TagSuggestions(store.database, embeddings, thumbnails)
    with pytest.raises(InvalidInput, match="tell apart"):
        suggestions.suggest(OPERATOR, dataset_id, ["sign 0"])
    with pytest.raises(NotFound):
        suggestions.suggest(user("organization", "org-2", Role.OWNER, "org-2"), dataset_id)


def test_similar_pictures_come_nearest_first_and_only_those_that_may_be_seen(
    store: Store, embeddings: Embeddings, photos: Path
) -> None:
    signs = dict.fromkeys(SIGNS, 0)
    truth = {}
    for number, (sign, data) in enumerate(hand_signs(photos)):
        [one] = store.add(picture(number, content=data))
        truth[one.row] = sign
        signs[sign] += 1
    [foreign] = store.add(picture(900, content=hand_signs(photos)[0][1] + b"x", place=FOREIGN_PLACE))
    embeddings.vectors([*truth, foreign.row], 60)
    similar = SimilarPictures(store.database, store.items, embeddings)
    hits = []
    for row, sign in truth.items():
        found = similar.rows(OWNER, row)
        assert found[0] == row
        assert foreign.row not in found
        assert set(found) <= set(truth)
        hits += [truth[one] == sign for one in found[1:4]]
    assert np.mean(hits) >= 0.5, "of three signs by many hands; a guess has a third"
    with pytest.raises(NotFound):
        similar.rows(OWNER, foreign.row)


def test_similar_pictures_follow_what_is_stored_and_deleted(store: Store, embeddings: Embeddings, photos: Path) -> None:
    content = [data for _, data in hand_signs(photos)]
    first, second = store.add(*(picture(n, content=data) for n, data in enumerate(content[:2])))
    similar = SimilarPictures(store.database, store.items, embeddings)
    assert similar.rows(OWNER, first.row) == [first.row], "the other one was not looked at yet"
    again = content[0][:-2] + b"\xff\xfe\x00\x03x\xff\xd9"  # the same picture with a comment
    [third] = store.add(picture(5, content=again))
    assert similar.rows(OWNER, third.row)[:2] == [third.row, first.row]
    embeddings.vectors([second.row], 60)
    store.items.delete(OWNER, Selection(rows=(first.row,)))
    store.clock.advance(KEEP_DELETED_S + 60)
    Cleaner(store.database, store.packs, store.clock).clean()
    found = SimilarPictures(store.database, store.items, embeddings, now=lambda: 1e9).rows(OWNER, third.row)
    assert first.row not in found
    with pytest.raises(NotFound):
        similar.rows(OWNER, first.row)


def test_similarity_is_asked_of_pictures_that_can_be_decoded(store: Store, embeddings: Embeddings) -> None:
    similar = SimilarPictures(store.database, store.items, embeddings)
    [broken] = store.add(picture(1, content=b"\xff\xd8\xff broken"))
    with pytest.raises(InvalidInput, match="cannot be decoded"):
        similar.rows(OWNER, broken.row)


def test_the_order_of_chosen_rows_is_kept_on_both_ways_of_asking(store: Store) -> None:
    rows = [one.row for one in store.add(*(picture(n) for n in range(4)))]
    wanted = ItemFilter(only=(rows[2], rows[0], rows[3], 999))
    for _ in range(2):
        found = np.frombuffer(store.items.index(OWNER, wanted), "<u4").tolist()
        assert found == [rows[2], rows[0], rows[3]]
        assert store.items.count(OWNER, wanted)[0] == 3
        store.items.columns.start()
        store.items.columns.stop()
