"""Saved views over real HTTP."""

from __future__ import annotations

from typing import Any

import pytest
from running_app import RunningApp


def save(app: RunningApp, name: str, query: str, status: int = 200) -> dict[str, Any]:
    answer = app.client.post(f"/api/organizations/{app.organization_id}/views", json={"name": name, "query": query})
    assert answer.status_code == status, answer.text
    return dict(answer.json())


def names(app: RunningApp) -> list[tuple[str, str]]:
    answer = app.client.get(f"/api/organizations/{app.organization_id}/views")
    return [(one["name"], one["query"]) for one in answer.json()]


def test_views_are_saved_renamed_changed_and_deleted(app: RunningApp) -> None:
    red = save(app, " Red ones ", "tag=red&time=24h")
    save(app, "any", "")
    assert names(app) == [("any", ""), ("Red ones", "tag=red&time=24h")]
    changed = app.client.patch(f"/api/views/{red['id']}", json={"name": "Unsure", "query": "?label=a%20b&once=true"})
    assert changed.json() == red | {"name": "Unsure", "query": "label=a%20b&once=true"}
    assert names(app) == [("any", ""), ("Unsure", "label=a%20b&once=true")]
    assert app.client.delete(f"/api/views/{red['id']}").status_code == 200
    assert app.client.delete(f"/api/views/{red['id']}").status_code == 404
    assert names(app) == [("any", "")]


def test_names_are_given_once(app: RunningApp) -> None:
    one = save(app, "one", "tag=a")
    save(app, "two", "tag=b")
    assert "already" in save(app, "one", "tag=c", 409)["error"]["message"]
    assert app.client.patch(f"/api/views/{one['id']}", json={"name": "two"}).status_code == 409
    assert app.client.patch(f"/api/views/{one['id']}", json={"name": "one"}).status_code == 200


@pytest.mark.parametrize("query", ["item=5", "tag", "=&=", "organization_id=x", "tag=" + "x" * 9000])
def test_what_is_no_filter_is_refused(app: RunningApp, query: str) -> None:
    assert save(app, "view", query, 400)["error"]["hint"]
    assert names(app) == []


def test_another_organizations_views_are_not_seen(app: RunningApp) -> None:
    assert app.client.get("/api/organizations/other/views").status_code == 403
    made = app.client.post("/api/organizations/other/views", json={"name": "n", "query": ""})
    assert made.status_code == 404
