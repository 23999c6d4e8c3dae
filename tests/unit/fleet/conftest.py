"""A fleet on a real encrypted database, nothing running: services are called as the doors call them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet_world import Fleet

from gleaner.app.assembly import build_context
from gleaner.app.context import AppContext
from gleaner.app.settings import Settings


@pytest.fixture
def context(tmp_path: Path) -> Iterator[AppContext]:
    context = build_context(Settings(data_dir=tmp_path / "app"))
    context.database.create_tables()
    context.packs.objects.start()
    context.auth.bootstrap("owner@localhost")
    yield context
    context.workers.shutdown()
    context.database.close()


@pytest.fixture
def fleet(context: AppContext) -> Fleet:
    owner = context.auth.first_owner()
    [organization] = context.fleet.organizations(owner)
    [location] = context.fleet.locations(owner, organization.id)
    machine = context.fleet.create_machine(owner, "rover", location.id)
    return Fleet(context, owner, organization.id, location.id, machine)
