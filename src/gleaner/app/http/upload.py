"""Files dropped on the page, as one multipart form."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, File, Form, UploadFile
from pydantic import BaseModel, Field

from gleaner.app.context import AppContext
from gleaner.app.errors import InvalidInput
from gleaner.app.http.deps import CallerDep, ContextDep
from gleaner.app.services.items_upload import NewFile, Target
from gleaner.app.store.payload import CHUNK_BYTES, MemoryPayload, Payload

router = APIRouter(prefix="/api/items", tags=["items"])

_IN_MEMORY_BYTES = 4 << 20


class StoredModel(BaseModel):
    row: int
    id: str
    name: str
    duplicate: bool
    warning: str = Field(default="", description="What is wrong with the file although it is stored.")


class FailedModel(BaseModel):
    name: str
    message: str
    hint: str


class UploadAnswer(BaseModel):
    items: list[StoredModel]
    failed: list[FailedModel]


@router.post("/upload")
def upload(
    context: ContextDep,
    caller: CallerDep,
    files: Annotated[list[UploadFile], File()],
    tags: Annotated[list[str], Form(default_factory=list)],
    part_id: Annotated[str, Form()] = "",
    organization_id: Annotated[str, Form()] = "",
    dataset_id: Annotated[str, Form()] = "",
) -> UploadAnswer:
    """Stores what can be stored; what cannot is named with the reason."""
    if not files:
        raise InvalidInput("The form holds no files", "Send them as fields called `files`.")
    new = [NewFile(file.filename or "upload", _payload(context, file)) for file in files]
    stored, failed = context.file_uploads.store(caller, new, Target(part_id, organization_id, tuple(tags), dataset_id))
    return UploadAnswer(
        items=[
            StoredModel(row=s.row, id=s.binary_data_id, name=s.name, duplicate=s.is_duplicate, warning=s.warning)
            for s in stored
        ],
        failed=[FailedModel(**one.__dict__) for one in failed],
    )


def _payload(context: AppContext, file: UploadFile) -> Payload:
    if (file.size or 0) <= _IN_MEMORY_BYTES:
        return MemoryPayload(file.file.read())
    spooled = context.spool.create()
    while chunk := file.file.read(CHUNK_BYTES):
        spooled.append(chunk)
    return spooled
