"""Datasets over REST."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

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


class BoxLabelModel(BaseModel):
    """A label of the dataset's boxes; `suggested` of them were drawn by a model and accepted by nobody yet."""

    label: str
    pictures: int
    boxes: int
    suggested: int


class DatasetModel(BaseModel):
    id: str
    name: str
    organization_id: str
    created_at: str
    type: Literal["binary", "sequence"] = Field(description="What its members are: pictures and files, or sequences.")
    sequence_count: int
    item_count: int
    untagged: int
    labels: list[FacetModel]
    box_labels: list[BoxLabelModel]
    unboxed: int
    cover_rows: list[int]
    versions: list[VersionModel]

    @classmethod
    def of(cls, one: Dataset) -> DatasetModel:
        return cls(
            id=one.id,
            name=one.name,
            organization_id=one.organization_id,
            created_at=iso(one.created_ns) or "",
            type=one.type.value,
            sequence_count=one.sequence_count,
            item_count=one.item_count,
            untagged=one.untagged,
            labels=facet_models(one.labels),
            box_labels=[BoxLabelModel(**label.__dict__) for label in one.box_labels],
            unboxed=one.unboxed,
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
    waiting: int = Field(description="Pictures left out because nobody has accepted a model's boxes in them.")


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


class SuggestedTagModel(BaseModel):
    row: int
    tag: str
    confidence: float


class SuggestedTags(BaseModel):
    """What an instant model, made of the dataset's tags just now, says about its untagged pictures. Nothing is written."""

    labels: list[LabelCount]
    learned_from: int
    tested: int = Field(description="Pictures asked that were not learned from, nor any like them; 0 if all are alike.")
    accuracy: float | None = Field(description="Share of the tested pictures that it names rightly.")
    accuracy_interval: list[float] = Field(description="Where the true share lies with 95 % certainty (Wilson).")
    suggested: list[SuggestedTagModel] = Field(description="The surest first.")
    waiting: int = Field(description="Pictures that nobody has looked at yet; ask again.")
    seconds: float


@router.get("/{dataset_id}/suggested-tags")
def suggested_tags(
    context: ContextDep,
    caller: CallerDep,
    dataset_id: str,
    label: Annotated[list[str], Query(default_factory=list)],
) -> SuggestedTags:
    """Tags for the untagged pictures; `label` names those to tell apart (all of the dataset's if none)."""
    found = context.suggestions.suggest(caller, dataset_id, label)
    return SuggestedTags(
        labels=[LabelCount(label=name, count=count) for name, count in found.labels.items()],
        learned_from=found.learned_from,
        tested=found.tested,
        accuracy=found.accuracy,
        accuracy_interval=list(found.interval),
        suggested=[SuggestedTagModel(**one._asdict()) for one in found.suggested],
        waiting=found.waiting,
        seconds=found.seconds,
    )


@router.get("/{dataset_id}/check")
def check(
    context: ContextDep,
    caller: CallerDep,
    dataset_id: str,
    label: Annotated[list[str], Query(default_factory=list)],
    model_type: str = "",
) -> Check:
    return Check(**context.datasets.check(caller, dataset_id, label, model_type))
