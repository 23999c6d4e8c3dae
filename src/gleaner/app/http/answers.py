"""What all answers over HTTP share, and the one shape of failures (`errors.py` writes it)."""

from __future__ import annotations

from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field


class Answer(BaseModel):
    """What a handler builds by hand: a field that the model does not name is a mistake in the handler."""

    model_config = ConfigDict(extra="forbid")


def in_json(answer: BaseModel) -> Response:
    """For answers of many rows: FastAPI would check each value again and write the JSON in Python."""
    return Response(answer.__pydantic_serializer__.to_json(answer), media_type="application/json")


class Done(Answer):
    """It is done, and there is nothing to tell."""


class ProblemModel(Answer):
    """One thing wrong in the request; `path` is written like `components[0].attributes.width_px`."""

    path: str
    message: str
    hint: str


class ErrorModel(Answer):
    code: str
    message: str = Field(description="What failed, on what, and why.")
    hint: str = Field(description="What to do next.")
    problems: list[ProblemModel] = []


class ErrorAnswer(Answer):
    error: ErrorModel
