"""Answers of `ItemReader` from the columns in memory; each means the same as its SQL in `items_filter` and `facets`."""

from __future__ import annotations

import numpy as np
import sqlalchemy as sa

from gleaner.app.services.facets import Totals, assemble, listed, named_datasets, readings
from gleaner.app.services.item_columns import Mask, View
from gleaner.app.services.items_filter import matching, named_by
from gleaner.app.services.items_values import Facets, FacetValue, ItemFilter, Origin
from gleaner.app.services.picture_hash import are_near, distances
from gleaner.app.store import tables as t

_ITEM = t.item.c


class Chosen:
    """The items a filter chooses among those of the origins the caller may see."""

    def __init__(self, view: View, db: sa.Connection, visible: list[Origin], wanted: ItemFilter) -> None:
        self._view, self._db, self._visible, self._wanted = view, db, visible, wanted
        self._chosen = matching(visible, wanted)
        self._seen = self._of_origins(visible) & self._in_time()
        self._parts: dict[str, Mask] = {}
        self._said: dict[str, Mask] = {}
        """Search word → items that say it themselves, whatever their origin."""
        count = len(view)
        for name, values, names in (
            ("tags", view.tags, wanted.tags),
            ("labels", view.labels, wanted.labels),
            ("datasets", view.datasets, wanted.dataset_ids),
        ):
            if names:
                self._parts[name] = values.having(frozenset(names).__contains__, count)
        if wanted.tagged is not None:
            is_fitting = view.tag_counts > 0 if wanted.tagged else view.tag_counts == 0
            self._parts["tags"] = self._parts["tags"] & is_fitting if "tags" in self._parts else is_fitting
        if wanted.boxed is not None:
            is_fitting = self._boxed() if wanted.boxed else ~self._boxed()
            self._parts["labels"] = self._parts["labels"] & is_fitting if "labels" in self._parts else is_fitting
        if wanted.near is not None:
            self._parts["near"] = self._near(wanted.near)
        if wanted.only is not None:
            self._parts["only"] = np.isin(view.rows, wanted.only)

    def mask(self, without: str = "") -> Mask:
        """As `items_filter.conditions` over the chosen origins."""
        return self._of_origins(self._chosen) & self._fitting(without, self._chosen)

    def index(self) -> bytes:
        """Rows as little-endian u32: newest first, unless the filter brings an order of its own."""
        mask = self.mask()
        if self._wanted.only is not None:
            order = np.array(self._wanted.only, np.int64)
            return bytes(order[np.isin(order, self._view.rows[mask])].astype("<u4").tobytes())
        rows = self._view.rows_newest_first
        if (near := self._place_of(self._wanted.near)) is not None:
            chosen = self._view.newest_first[mask[self._view.newest_first]]
            how_far = distances(self._view.hashes[chosen], int(self._view.hashes[near]))
            nearest_first = chosen[np.argsort(how_far, kind="stable")]
            return bytes(self._view.rows[nearest_first].astype("<u4").tobytes())
        return (rows if mask.all() else rows[mask[self._view.newest_first]]).tobytes()

    def rows(self) -> list[int]:
        return [int(row) for row in self._view.rows[self.mask()]]

    def count(self) -> tuple[int, int]:
        mask = self.mask()
        return int(mask.sum()), int(self._view.sizes[mask].sum())

    def facets(self) -> Facets:
        view, db, wanted = self._view, self._db, self._wanted
        return assemble(
            self._visible,
            wanted,
            self._per_origin(),
            readings(db, self._visible, wanted),
            int((self.mask("labels") & ~self._boxed()).sum()),
            _listed(view.tags.counts(self.mask("tags"))),
            _listed(view.labels.counts(self.mask("labels"))),
            named_datasets(db, view.datasets.counts(self.mask("datasets"))),
        )

    def _per_origin(self) -> dict[int, Totals]:
        view, mask = self._view, self._fitting("", self._visible)
        origins = view.origins[mask]
        counts = np.bincount(origins)
        # Exact: float64 holds sums of bytes below 2^53, nine petabytes.
        sizes = np.bincount(origins, weights=view.sizes[mask])
        bare = np.bincount(origins, weights=view.tag_counts[mask] == 0)
        return {
            int(number): Totals(int(counts[number]), int(sizes[number]), int(bare[number]))
            for number in np.flatnonzero(counts)
        }

    def _fitting(self, without: str, origins: list[Origin]) -> Mask:
        mask = self._seen
        for name, part in self._parts.items():
            if name != without:
                mask = mask & part
        for word in self._wanted.search.split():
            mask = mask & self._found(word, origins)
        return self._once(mask) if self._wanted.once else mask

    def _place_of(self, row: int | None) -> int | None:
        """The position of a picture that was looked at and may be seen."""
        if row is None:
            return None
        at = int(np.searchsorted(self._view.rows, row))
        is_known = at < len(self._view) and self._view.rows[at] == row and self._view.alike[at]
        return at if is_known and self._of_origins(self._visible)[at] else None

    def _near(self, row: int) -> Mask:
        at = self._place_of(row)
        if at is None:
            return np.asarray(self._view.rows == row)
        return np.asarray(are_near(self._view.hashes, int(self._view.hashes[at])) & (self._view.alike != 0))

    def _once(self, mask: Mask) -> Mask:
        """Of those that look the same only the newest row."""
        positions = np.flatnonzero(mask)
        alike = self._view.alike[positions]
        newest = np.zeros(int(alike.max(initial=0)) + 1, np.int32)
        newest[alike] = positions  # the last one stays
        once = np.zeros_like(mask)
        once[positions[(alike == 0) | (newest[alike] == positions)]] = True
        return once

    def _boxed(self) -> Mask:
        return self._view.labels.having(lambda _: True, len(self._view))

    def _of_origins(self, origins: list[Origin]) -> Mask:
        return _are_of([one.id for one in origins], self._view)

    def _in_time(self) -> Mask:
        mask = np.ones(len(self._view), np.bool_)
        if self._wanted.start_ns is not None:
            mask &= self._view.captured_ns >= self._wanted.start_ns
        if self._wanted.end_ns is not None:
            mask &= self._view.captured_ns < self._wanted.end_ns
        return mask

    def _found(self, word: str, origins: list[Origin]) -> Mask:
        view = self._view
        if word not in self._said:
            lower = word.lower()
            mask = view.tags.having(lambda name: lower in name.lower(), len(view))
            # Two queries: each has an index, and an OR of them would use none.
            named = _ITEM.file_name.icontains(word, autoescape=True), _ITEM.file_name != "", _ITEM.deleted_ns.is_(None)
            for where in (named, (_ITEM.file_id == word.rpartition("/")[2],)):
                rows = np.array(list(self._db.scalars(sa.select(_ITEM.row).where(*where))), np.int64)
                mask[np.isin(view.rows, rows)] = True
            self._said[word] = mask
        return self._said[word] | _are_of(named_by(word, origins), view)


def _are_of(origin_ids: list[int], view: View) -> Mask:
    if view.origin_ids <= frozenset(origin_ids):
        return np.ones(len(view), np.bool_)
    most = max(view.origin_ids)
    chosen = np.zeros(most + 1, np.bool_)
    chosen[[one for one in origin_ids if one <= most]] = True
    return np.asarray(chosen[view.origins])


def _listed(counts: dict[str, int]) -> list[FacetValue]:
    return listed({name: (name, number) for name, number in counts.items()})
