"""What a configuration says to keep no longer is deleted, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from store_fixtures import OTHER_PLACE, OWNER, PLACE, Store, picture, readings

from gleaner.app.services import fleet_tables
from gleaner.app.services.config_check import check_config
from gleaner.app.services.fleet_values import Place
from gleaner.app.services.items_values import ItemFilter, Selection
from gleaner.app.services.retention import Expired, Retention, policies_of
from gleaner.app.store.cleaning import KEEP_DELETED_S, Cleaner

DAY_S = 86_400


def configured(store: Store, config: dict[str, Any], place: Place = PLACE, number: int = 1) -> None:
    with store.database.write() as db:
        if number == 1:
            rows: tuple[tuple[Any, dict[str, Any]], ...] = (
                (fleet_tables.organization, {"id": place.organization_id, "name": "o"}),
                (
                    fleet_tables.location,
                    {"id": place.location_id, "organization_id": place.organization_id, "name": "l"},
                ),
                (
                    fleet_tables.machine,
                    {
                        "id": place.machine_id,
                        "organization_id": place.organization_id,
                        "location_id": place.location_id,
                        "name": "m",
                    },
                ),
                (
                    fleet_tables.part,
                    {"id": place.part_id, "machine_id": place.machine_id, "name": "p", "is_main": True, "info": {}},
                ),
            )
            for table, values in rows:
                db.execute(table.insert().values(**values, created_ns=1))
        saved = {"part_id": place.part_id, "number": number, "revision": f"{number}-x", "config": config}
        db.execute(fleet_tables.part_config.insert().values(**saved, saved_ns=1, edited_by=""))


def component(name: str, policy: Any) -> dict[str, Any]:
    entry = {"type": "data_manager", "attributes": {"capture_methods": [], "retention_policy": policy}}
    return {"name": name, "api": "rdk:component:camera", "model": "fake", "service_configs": [entry]}


def retention(store: Store) -> Retention:
    return Retention(store.database, store.packs, store.events, store.clock)


def names(store: Store) -> set[str]:
    return {one.origin.component_name for one in store.readings.series(OWNER, ItemFilter())}


def test_a_component_keeps_its_days_counted_from_the_arrival(store: Store) -> None:
    """Its pictures were taken years before they arrived."""
    configured(store, {"components": [component("cam", {"days": 2}), component("sensor", {"days": 3})]})
    store.add(picture(1), picture(2, component="other"), picture(3, place=OTHER_PLACE), readings(0, 4))
    store.clock.advance(2 * DAY_S)
    assert retention(store).apply() == Expired(0, 0)
    store.clock.advance(DAY_S)
    assert retention(store).apply() == Expired(1, 0)
    store.clock.advance(DAY_S)
    assert retention(store).apply() == Expired(0, 4)
    assert retention(store).apply() == Expired(0, 0)
    assert len(store.items.rows(OWNER, ItemFilter())) == 2
    assert names(store) == set()


def test_what_a_part_says_is_for_components_without_a_policy(store: Store) -> None:
    configured(store, {"data_retention_policy": {"days": 1}, "components": [component("cam", {"days": 30})]})
    store.add(picture(1), picture(2, component="other"), readings(0, 4), readings(0, 2, place=OTHER_PLACE))
    store.clock.advance(2 * DAY_S)
    assert retention(store).apply() == Expired(1, 4)


def test_only_the_configuration_that_is_current_counts(store: Store) -> None:
    configured(store, {"data_retention_policy": {"days": 1}})
    configured(store, {}, number=2)
    store.add(picture(1))
    store.clock.advance(9 * DAY_S)
    assert retention(store).apply() == Expired(0, 0)


def test_the_newest_that_fit_are_kept(store: Store) -> None:
    sizes = [len(b"\xff\xd8\xff picture %d" % number) for number in range(4)]
    limit = {"binary_limit_gb": (sum(sizes[2:]) + 1) / 1e9, "tabular_limit_gb": 1e-9}
    configured(store, {"components": [component("cam", limit), component("sensor", {"tabular_limit_gb": 1})]})
    store.add(*(picture(number) for number in range(4)), readings(0, 4), readings(0, 2, component="cam"))
    assert retention(store).apply() == Expired(2, 2)
    left = {store.items.content(OWNER, row).all() for row in store.items.rows(OWNER, ItemFilter())}
    assert left == {b"\xff\xd8\xff picture 2", b"\xff\xd8\xff picture 3"}
    assert names(store) == {"sensor"}


def test_pictures_in_datasets_stay_and_others_are_freed_a_day_later(store: Store) -> None:
    configured(store, {"data_retention_policy": {"days": 1}})
    dataset = store.datasets.create(OWNER, "org-1", "signs")
    store.add(picture(1), picture(2))
    chosen = store.items.rows(OWNER, ItemFilter())[0]
    store.datasets.add_items(OWNER, dataset.id, Selection(rows=(chosen,)))
    store.clock.advance(2 * DAY_S)
    cleaner = Cleaner(store.database, store.packs, store.clock, expire=retention(store).apply)
    assert retention(store).apply() == Expired(1, 0)
    assert store.items.rows(OWNER, ItemFilter()) == [chosen]
    store.clock.advance(KEEP_DELETED_S + 1)
    assert cleaner.clean().items == 1


@pytest.mark.parametrize("policy", [{}, {"days": 0}, {"days": "soon"}, {"binary_limit_gb": -1}, "30 days"])
def test_a_policy_that_cannot_be_used_is_refused_and_deletes_nothing(policy: Any) -> None:
    (problem,) = check_config({"components": [component("cam", policy)]})
    assert problem.path.startswith("components[0].service_configs[0].attributes.retention_policy")
    assert policies_of({"components": [component("cam", policy)]}).components == {}
    (problem,) = check_config({"data_retention_policy": policy})
    assert problem.path.startswith("data_retention_policy")
    assert not check_config({"data_retention_policy": {"days": 7}, "components": [component("cam", {"days": 7})]})
