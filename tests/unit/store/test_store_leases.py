"""Work in the background belongs to one process at a time, and to another once that one is gone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from store_fixtures import Store, readings

from gleaner.app.lake.compaction import LEASE, Compactor
from gleaner.app.leases import LeaseLost, Leases

SHORT_S = 0.3


def until(condition: Callable[[], bool], deadline_s: float = 20.0) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end
        threading.Event().wait(0.02)


def test_a_lease_has_one_holder_who_may_renew_it_and_give_it_back(store: Store) -> None:
    one, other = Leases(store.database, "one"), Leases(store.database, "other")
    assert one.take("cleaning")
    assert one.take("cleaning")
    assert not other.take("cleaning")
    assert other.take("compaction")  # each work has its own
    other.give_back("cleaning")  # which it does not have
    assert not other.take("cleaning")
    one.give_back("cleaning")
    assert other.take("cleaning")


def test_the_lease_of_a_process_that_went_away_goes_to_another_when_it_ends(store: Store) -> None:
    gone, other = Leases(store.database, "gone", lasts_s=SHORT_S), Leases(store.database, "other")
    assert gone.take("cleaning")
    until(lambda: other.take("cleaning"))
    assert not gone.take("cleaning")


def test_a_lease_is_renewed_as_long_as_the_work_takes(store: Store) -> None:
    one, other = Leases(store.database, "one", lasts_s=SHORT_S), Leases(store.database, "other")
    with one.holding("cleaning") as is_ours:
        assert is_ours
        end = time.monotonic() + 4 * SHORT_S
        until(lambda: time.monotonic() > end or other.take("cleaning"))
        assert time.monotonic() > end
        with other.holding("cleaning") as is_its:
            assert not is_its
    with other.holding("cleaning") as is_its:
        assert is_its


def test_of_many_that_want_a_lease_at_once_one_gets_it(store: Store) -> None:
    got: list[str] = []
    start = threading.Barrier(8)

    def want(name: str) -> None:
        start.wait()
        if Leases(store.database, name).take("cleaning"):
            got.append(name)

    threads = [threading.Thread(target=want, args=(f"process-{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1


def test_who_lost_the_lease_while_compacting_commits_nothing_and_no_reading_is_there_twice(store: Store) -> None:
    store.add(readings(1, 50))
    one, other = Leases(store.database, "one"), Leases(store.database, "other")
    held_up = Compactor(store.database, store.packs, store.clock, leases=one)
    assert other.take(LEASE)
    with pytest.raises(LeaseLost):
        held_up.compact(everything=True)
    going_on = Compactor(store.database, store.packs, store.clock, leases=other)
    assert going_on.compact(everything=True).readings == 50
    assert held_up.compact(everything=True).readings == 0
