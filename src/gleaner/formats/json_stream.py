"""The elements of a huge JSON object's arrays, one at a time: a COCO file of a million pictures is gigabytes."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from typing import IO, Any

_READ_BYTES = 1 << 16
_BLANK = " \t\r\n"


class JsonProblem(ValueError):
    """Not JSON, at the line the text names."""


class _Text:
    """A window on the file; `at` is where in it reading goes on."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._json = json.JSONDecoder()
        self._text = ""
        self._at = 0
        self._line = 1
        self._is_whole = False
        self._fill()
        self._text = self._text.removeprefix("\ufeff")

    def peek(self) -> str:
        """The next character that is not blank; empty at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _BLANK:
                self._at += 1
            if self._at < len(self._text) or not self._fill():
                return self._text[self._at : self._at + 1]

    def take(self, wanted: str) -> bool:
        if self.peek() != wanted:
            return False
        self._at += 1
        return True

    def expect(self, wanted: str) -> None:
        if not self.take(wanted):
            raise self.problem(f"expected {wanted!r}, found {self.peek() or 'the end of the file'!r}")

    def value(self) -> Any:
        self.peek()
        grown = _READ_BYTES
        while True:
            try:
                found, end = self._json.raw_decode(self._text, self._at)
            except (json.JSONDecodeError, RecursionError) as err:
                if isinstance(err, RecursionError) or not self._fill(grown):
                    raise self.problem(getattr(err, "msg", "too deeply nested")) from err
                grown *= 2  # tried again from the start: a large value must not be read in small steps
                continue
            if end == len(self._text) and self._fill():
                continue  # a number may go on
            self._at = end
            return found

    def problem(self, why: str) -> JsonProblem:
        line = self._line + self._text.count("\n", 0, self._at)
        return JsonProblem(f"it is no valid JSON near line {line}: {why}")

    def _fill(self, size: int = _READ_BYTES) -> bool:
        """False at the end of the file."""
        if self._is_whole:
            return False
        self._line += self._text.count("\n", 0, self._at)
        self._text, self._at = self._text[self._at :], 0
        before = len(self._text)
        while len(self._text) == before and not self._is_whole:
            data = self._file.read(size)
            self._is_whole = not data
            self._text += self._decoder.decode(data, final=self._is_whole)
        return len(self._text) > before


def elements(file: IO[bytes], names: frozenset[str]) -> Iterator[tuple[str, int, Any]]:
    """(name, number, element) of the arrays called `names` in the file's object. Raises JsonProblem."""
    text = _Text(file)
    text.expect("{")
    if text.take("}"):
        return
    while True:
        name = text.value()
        text.expect(":")
        if name in names and text.peek() == "[":
            yield from ((str(name), number, one) for number, one in _array(text))
        else:
            text.value()
        if text.take("}"):
            return
        text.expect(",")


def _array(text: _Text) -> Iterator[tuple[int, Any]]:
    text.expect("[")
    if text.take("]"):
        return
    number = 0
    while True:
        yield number, text.value()
        number += 1
        if text.take("]"):
            return
        text.expect(",")
