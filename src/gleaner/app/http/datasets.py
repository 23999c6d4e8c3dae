"""Datasets over REST."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel

from gleaner.app.http.answers import Done
from gleaner.app.http.deps import CallerDep, ContextDep
from gleaner.app.http.item_models import Body, Changed, Chosen, FacetModel, facet_models
from gleaner.app.services.datasets_values import Dataset
from gleaner.app.services.fleet_values import iso

router = APIRouter(prefix="/api/datasets", tags=["datasets"])


class VersionModel(BaseModel):
    version: int
    created_at: str
    item_count: int
    hash: str


class DatasetModel(BaseModel):
    id: str
    name: str
    organization_id: str
    created_at: str
    item_count: int
    untagged: int
    labels: list[FacetModel]
    cover_rows: list[int]
    versions: list[VersionModel]

    @classmethod
    def of(cls, one: Dataset) -> DatasetModel:
        return cls(
            id=one.id,
            name=one.name,
            organization_id=one.organization_id,
            created_at=iso(one.created_ns) or "",
            item_count=one.item_count,
            untagged=one.untagged,
            labels=facet_models(one.labels),
            cover_rows=list(one.cover_rows),
            versions=[
                VersionModel(
                    version=v.version, created_at=iso(v.created_ns) or "", item_count=v.item_count, hash=v.hash
                )
                for v in one.versions
            ],
        )


class NewDataset(Body):
    name: str
    organization_id: str


class Rename(Body):
    name: str


class ItemChange(Chosen):
    action: Literal["add", "remove"]


class Warning_(BaseModel):
    message: str
    hint: str


class LabelCount(BaseModel):
    label: str
    count: int


class Check(BaseModel):
    warnings: list[Warning_]
    counts: list[LabelCount]
    untagged: int


@router.get("")
def list_datasets(context: ContextDep, caller: CallerDep, organization_id: str) -> list[DatasetModel]:
    return [DatasetModel.of(one) for one in context.datasets.of_organization(caller, organization_id)]


@router.post("")
def create(context: ContextDep, caller: CallerDep, body: NewDataset) -> DatasetModel:
    return DatasetModel.of(context.datasets.create(caller, body.organization_id, body.name))


@router.get("/{dataset_id}")
def get(context: ContextDep, caller: CallerDep, dataset_id: str) -> DatasetModel:
    return DatasetModel.of(context.datasets.get(caller, dataset_id))


@router.patch("/{dataset_id}")
def rename(context: ContextDep, caller: CallerDep, dataset_id: str, body: Rename) -> DatasetModel:
    return DatasetModel.of(context.datasets.rename(caller, dataset_id, body.name))


@router.delete("/{dataset_id}")
def delete(context: ContextDep, caller: CallerDep, dataset_id: str) -> Done:
    context.datasets.delete(caller, dataset_id)
    return Done()


@router.post("/{dataset_id}/items")
def change_items(context: ContextDep, caller: CallerDep, dataset_id: str, body: ItemChange) -> Changed:
    change = context.datasets.add_items if body.action == "add" else context.datasets.remove_items
    return Changed(changed=change(caller, dataset_id, body.selection()))


@router.get("/{dataset_id}/check")
def check(
    context: ContextDep,
    caller: CallerDep,
    dataset_id: str,
    label: Annotated[list[str], Query(default_factory=list)],
    model_type: str = "",
) -> Check:
    return Check(**context.datasets.check(caller, dataset_id, label, model_type))
