"""Which of several app processes does a piece of work in the background: whoever holds its lease, a row in the database.

A lease ends by itself `LASTS_S` after it was last renewed, by the database's clock: a process that dies, hangs or loses the
database gives its work back without saying so. There is no leader; each kind of work has a lease of its own, and any process
may take it. Before work under a lease commits what must happen once, it calls `require` inside that very transaction: who was
held up for longer than the lease lasts finds there that it is not the holder any more.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from gleaner.app.database import Database, metadata

LASTS_S = 30.0
_RENEWALS = 3
"""Within the time it lasts."""

lease = sa.Table(
    "lease",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("holder", sa.Text, nullable=False),
    #: Seconds since the epoch, by the database's clock.
    sa.Column("expires", sa.Float, nullable=False),
)

_NOW = {"sqlite": "(julianday('now') - 2440587.5) * 86400.0", "postgresql": "extract(epoch FROM clock_timestamp())"}

log = logging.getLogger(__name__)


class LeaseLost(Exception):
    """Another process has taken over the work, or may have. Nothing was committed; it is done there."""


class Leases:
    """The leases of one process. Thread-safe. `holder` names the process and no other."""

    def __init__(self, database: Database, holder: str, lasts_s: float = LASTS_S) -> None:
        self._database = database
        self._holder = holder
        self._lasts_s = lasts_s

    def take(self, name: str) -> bool:
        """Takes a free lease, or renews one's own; false while another holds it."""
        now = _NOW[self._database.engine.dialect.name]
        statement = sa.text(
            f"INSERT INTO lease (name, holder, expires) VALUES (:name, :holder, {now} + :lasts) "
            "ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, expires = excluded.expires "
            f"WHERE lease.holder = :holder OR lease.expires <= {now} RETURNING holder"
        )
        with self._database.write() as db:
            values = {"name": name, "holder": self._holder, "lasts": self._lasts_s}
            return db.execute(statement, values).one_or_none() is not None

    def give_back(self, name: str) -> None:
        with self._database.write() as db:
            db.execute(lease.delete().where(lease.c.name == name, lease.c.holder == self._holder))

    def require(self, db: sa.Connection, name: str) -> None:
        """Inside a write transaction. Raises LeaseLost, so that it is rolled back, unless this process holds the lease."""
        now = sa.text(_NOW[db.dialect.name])
        held = sa.select(lease.c.name).where(
            lease.c.name == name, lease.c.holder == self._holder, lease.c.expires > now
        )
        if db.execute(held).one_or_none() is None:
            raise LeaseLost(f"This process does not hold the lease for {name} any more; another one goes on with it.")

    @contextmanager
    def holding(self, name: str) -> Iterator[bool]:
        """Tries to take the lease and renews it while the body runs; the value tells whether this process has it."""
        if not self.take(name):
            yield False
            return
        ended = threading.Event()
        renewing = threading.Thread(target=self._renew, args=(name, ended), name=f"lease-{name}")
        renewing.start()
        try:
            yield True
        finally:
            ended.set()
            renewing.join()
            self.give_back(name)

    def _renew(self, name: str, ended: threading.Event) -> None:
        is_failing = False
        while not ended.wait(self._lasts_s / _RENEWALS):
            try:
                if not self.take(name):
                    log.warning("The lease for %s went to another process while this one was held up", name)
                    return
                is_failing = False
            except sa.exc.SQLAlchemyError as err:
                if not is_failing:
                    log.warning("The lease for %s cannot be renewed: %s", name, err)
                is_failing = True


@contextmanager
def alone(name: str) -> Iterator[bool]:
    """Stands for `Leases.holding` where there is one process."""
    yield True


def never_lost(db: sa.Connection, name: str) -> None:
    """Stands for `Leases.require` there."""
