"""Saved views over REST."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import Field

from gleaner.app.http.answers import Answer, Done
from gleaner.app.http.deps import CallerDep, ContextDep
from gleaner.app.http.item_models import Body
from gleaner.app.services.fleet_values import iso
from gleaner.app.services.views import SavedView

router = APIRouter(prefix="/api", tags=["views"])
_QUERY = Field(description="The query string of the data page's address: FILTER, and time=1h|24h|7d|30d.")


class ViewModel(Answer):
    id: str
    name: str
    query: str = _QUERY
    created_at: str

    @classmethod
    def of(cls, one: SavedView) -> ViewModel:
        return cls(id=one.id, name=one.name, query=one.query, created_at=iso(one.created_ns) or "")


class NewView(Body):
    name: str
    query: str = _QUERY


class ViewChange(Body):
    """What is left out stays."""

    name: str | None = None
    query: str | None = None


@router.get("/organizations/{organization_id}/views")
def list_views(context: ContextDep, caller: CallerDep, organization_id: str) -> list[ViewModel]:
    return [ViewModel.of(one) for one in context.views.of_organization(caller, organization_id)]


@router.post("/organizations/{organization_id}/views")
def create_view(context: ContextDep, caller: CallerDep, organization_id: str, body: NewView) -> ViewModel:
    return ViewModel.of(context.views.create(caller, organization_id, body.name, body.query))


@router.patch("/views/{view_id}")
def change_view(context: ContextDep, caller: CallerDep, view_id: str, body: ViewChange) -> ViewModel:
    return ViewModel.of(context.views.change(caller, view_id, body.name, body.query))


@router.delete("/views/{view_id}")
def delete_view(context: ContextDep, caller: CallerDep, view_id: str) -> Done:
    context.views.delete(caller, view_id)
    return Done()
