"""The HTML report's advice: labels that are likely wrong, and what more pictures would be worth."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

_PARTS = {"train": "learned from", "validation": "watched", "test": "tested"}
_NONE = "none of these"


def label_errors(errors: dict[str, Any] | None, folder: Path) -> str:
    """`errors` as in report.json; None in reports of older versions."""
    if errors is None:
        return ""
    if errors["reason"]:
        return _section("Labels that may be wrong", f"Not looked for: {escape(errors['reason'])}.", "")
    listed: Sequence[dict[str, Any]] = errors["pictures"]
    if not listed:
        text = f"None of {errors['checked']:,} pictures stands out."
        return _section("Labels that may be wrong", text, "")
    text = (
        f"Of {errors['checked']:,} pictures, those about which a model that has not learned them is sure of another answer, the "
        "surest first. Correct them in the dataset and train again."
    )
    if any("boxes" in one for one in listed):
        text = (
            f"Of {errors['checked']:,} pictures, those with a box that is likely missing, wrong or around nothing, the surest "
            "first. Green: the boxes that are there. Red: those that the model would draw."
        )
    figures = "".join(
        f"<figure>{embedded(folder, one['sample'])}<figcaption>{_said(one)}"
        f"<br><small>{escape(one['id'])}, {_PARTS.get(one['part'], one['part'])}</small></figcaption></figure>"
        for one in listed
    )
    return _section("Labels that may be wrong", text, f"<div class=pictures>{figures}</div>")


def _said(one: dict[str, Any]) -> str:
    if "boxes" not in one:
        expected = ", ".join(map(escape, one["expected"])) or _NONE
        suggested = ", ".join(map(escape, one["suggested"])) or _NONE
        return f"<b>{suggested}</b> {one['confidence']:.0%}<br>not {expected}?"
    lines = []
    for box in one["boxes"]:
        label, suggested, sure = escape(box["label"] or ""), escape(box["suggested"] or ""), f"{box['confidence']:.0%}"
        match box["kind"]:
            case "missing":
                lines.append(f"<b>{suggested}</b> without a box {sure}")
            case "label":
                lines.append(f"<b>{suggested}</b>, not {label}? {sure}")
            case _:
                lines.append(f"is there a <b>{label}</b>?")
    return "<br>".join(lines)


def learning_curve(curve: dict[str, Any] | None) -> str:
    if curve is None:
        return ""
    if curve["reason"]:
        return _section("What more pictures would be worth", f"Not measured: {escape(curve['reason'])}.", "")
    head = f"<tr><th>Label<th>Pictures<th>{curve['more']} more are worth</tr>"
    rows = "".join(
        f"<tr><th>{escape(one['label'])}<td>{one['pictures']:,}<td>{worth(one)}</tr>" for one in curve["labels"]
    )
    text = "In points of average precision, by how the error fell as more of the present pictures were learned."
    return _section("What more pictures would be worth", text, f"<div class=scroll><table>{head}{rows}</table></div>")


def worth(one: dict[str, Any]) -> str:
    """One label's outlook in words."""
    if one["verdict"] == "unknown":
        return f"<span class=muted>unknown: {escape(one['why'])}</span>"
    low, high = (value * 100 for value in one["gain_interval"])
    if one["verdict"] == "nothing":
        return f"nothing <span class=muted>(at most {high:.1f} points)</span>"
    return f"<b>+{one['gain'] * 100:.1f} points</b> <span class=muted>(95 % sure: {low:.1f} to {high:.1f})</span>"


def format_text(one: dict[str, Any]) -> str:
    """One exported format of the model."""
    if "file" not in one:
        return str(one["reason"])
    text = f"{one['file']}, {one['size_bytes'] / 1e6:.1f} MB, {one['inference_ms']:.1f} ms a picture on one thread, "
    if one["largest_difference"] is None:
        return text + f"{one['lost'] * 100:.1f} points lost on {one['judged']:,} pictures kept from training"
    return text + f"differs from the network by at most {one['largest_difference']:.1e}"


def embedded(folder: Path, sample: str | None) -> str:
    """The picture inside the page; nothing where it is gone."""
    try:
        content = (folder / sample).read_bytes() if sample else b""
    except OSError:
        content = b""
    return f"<img alt='' src='data:image/jpeg;base64,{base64.b64encode(content).decode()}'>" if content else ""


def _section(title: str, text: str, body: str) -> str:
    return f"<section><h2>{title}</h2><p class=muted>{text}</p>{body}</section>"
