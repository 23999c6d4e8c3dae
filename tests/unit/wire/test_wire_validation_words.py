"""What is wrong with a configuration is said in words of configurations."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from gleaner.wire.validation_words import in_words


class Oven(BaseModel):
    model_config = ConfigDict(extra="forbid")

    celsius: Annotated[float, Field(ge=0, le=300)] = 20
    shelves: Annotated[int, Field(gt=0, lt=9)] = 3
    seconds: Annotated[int, Field(le=1 << 20)] = 60
    fan: bool = False
    mode: Literal["bake", "grill"] = "bake"
    name: str = ""
    doors: list[int] = []
    lamp: dict[str, int] = {}
    colour: Annotated[str, Field(pattern="^[a-z]+$")] = "red"

    @field_validator("name")
    @classmethod
    def _short(cls, name: str) -> str:
        if len(name) > 9:
            raise ValueError("is too long for the door")
        return name


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"celsius": -1}, "must be at least 0, not -1"),
        ({"celsius": 301.5}, "must be at most 300, not 301.5"),
        ({"seconds": 1 << 21}, "must be at most 1048576, not 2097152"),
        ({"shelves": 0}, "must be more than 0, not 0"),
        ({"shelves": 9}, "must be less than 9, not 9"),
        ({"shelves": "many"}, "must be a whole number, not 'many'"),
        ({"shelves": 1.5}, "must be a whole number, not 1.5"),
        ({"celsius": "hot"}, "must be a number, not 'hot'"),
        ({"celsius": [1]}, "must be a number"),
        ({"celsius": "h" * 99}, "must be a number"),
        ({"fan": "often"}, "must be true or false, not 'often'"),
        ({"mode": "boil"}, "must be 'bake' or 'grill', not 'boil'"),
        ({"name": 7}, "must be text, not 7"),
        ({"name": True}, "must be text, not true"),
        ({"doors": "two"}, "must be a list, not 'two'"),
        ({"lamp": [1]}, "must be an object"),
        ({"heat": 1}, "is not known here: check its spelling, or remove it"),
        ({"name": "a very long name"}, "is too long for the door"),
        ({"colour": "RED"}, "String should match pattern '^[a-z]+$'"),
    ],
)
def test_each_mistake_has_its_words(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as raised:
        Oven.model_validate(values)
    assert [in_words(one) for one in raised.value.errors()] == [words]


def test_what_is_missing_is_missing() -> None:
    class Door(BaseModel):
        width: int

    with pytest.raises(ValidationError) as raised:
        Door.model_validate({})
    assert in_words(raised.value.errors()[0]) == "is missing"
