"""report.json as one HTML file that needs nothing else: opened from a disk, sent by mail, no request to anywhere."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from gleaner.learn.html_review import embedded, format_text, label_errors, learning_curve

_MOST_PICTURES = 60
_CHART = (640, 220)
_KINDS = {
    "single_label_classification": "Single-label classifier",
    "multi_label_classification": "Multi-label classifier",
    "object_detection": "Object detector",
}


def write_html(folder: Path) -> Path:
    """`report.html` beside the folder's report.json and samples; its path."""
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    path = folder / "report.html"
    path.write_text(render(report, folder), encoding="utf-8")
    return path


def render(report: dict[str, Any], folder: Path) -> str:
    """`folder` holds the samples that the report names; one that is gone is left out."""
    sections = [
        _headline(report),
        _labels(report),
        _confusion(report["confusion"]),
        _threshold(report),
        _history(report["history"]),
        _wrong(report, folder),
        label_errors(report.get("label_errors"), folder),
        learning_curve(report.get("learning_curve")),
        _skipped(report["skipped"]),
        _how(report),
    ]
    style = files("gleaner.learn").joinpath("report.css").read_text(encoding="utf-8")
    title = escape(f"{report['model_name']} {report['model_version']}".strip())
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}: training report</title><style>{style}</style></head>\n"
        f"<body><main><header><p class=kind>{_KINDS.get(report['task'], report['task'])}</p><h1>{title}</h1>"
        f"<p class=muted>trained {escape(report['created_at'][:16].replace('T', ' '))} UTC</p></header>\n"
        + "\n".join(section for section in sections if section)
        + "</main></body></html>\n"
    )


def _headline(report: dict[str, Any]) -> str:
    """The figure people decide by, with how far it can be trusted."""
    summary, is_detector = report["summary"], report["task"] == "object_detection"
    value, interval = (
        (summary.get("map50"), summary.get("map50_interval"))
        if is_detector
        else (summary["accuracy"], summary["accuracy_interval"])
    )
    count = summary["test_count"]
    if value is None:
        said = "<p>Nothing could be kept back for a test: too few pictures, or all of them alike.</p>"
        return f"<section class=head>{said}</section>"
    what = "mAP50, the mean average precision at IoU 0.5" if is_detector else "of the test pictures answered right"
    sure = f"95 % sure: between {_share(interval[0])} and {_share(interval[1])}" if interval else ""
    tiles = [
        ("Test pictures", f"{count:,}", "never seen in training"),
        ("Threshold", f"{summary['suggested_threshold']:.2f}", "suggested least confidence"),
        (
            "Calibration error",
            _share(summary["ece"]),
            f"before calibrating {_share(report['calibration']['ece_before'])}",
        ),
        ("One picture takes", f"{report['timings']['inference_ms']:.1f} ms", "onnxruntime on this computer"),
    ]
    if is_detector and summary.get("map50_95") is not None:
        tiles.insert(0, ("mAP50-95", _share(summary["map50_95"]), "how tight the boxes are"))
    listed = "".join(f"<div><dt>{name}</dt><dd>{value}</dd><small>{note}</small></div>" for name, value, note in tiles)
    return (
        f"<section class=head><p class=big>{_share(value)}</p><p>{what}<br><b>{sure}</b></p><dl>{listed}</dl></section>"
    )


def _labels(report: dict[str, Any]) -> str:
    head = "<tr><th>Label<th>Tested<th>Precision<th>Recall<th>F1<th>Average precision</tr>"
    rows = "".join(
        f"<tr><th>{escape(one['label'])}<td>{one['support']:,}"
        + "".join(_bar(one[name] if one["support"] else None) for name in ("precision", "recall", "f1"))
        + _bar(one["average_precision"])
        + "</tr>"
        for one in report["per_label"]
    )
    return f"<section><h2>Each label</h2><div class=scroll><table>{head}{rows}</table></div></section>"


def _bar(value: float | None) -> str:
    if value is None:
        return "<td class=muted>–"
    return f"<td><span class=bar><i style='width:{value:.0%}'></i></span> {_share(value)}"


def _confusion(confusion: dict[str, Any]) -> str:
    labels, matrix = confusion["labels"], confusion["matrix"]
    head = "".join(f"<th scope=col><span>{escape(label)}</span>" for label in labels)
    rows = ""
    for number, (label, counts) in enumerate(zip(labels, matrix, strict=True)):
        total = max(1, sum(counts))
        cells = "".join(
            f"<td class={'right' if column == number else 'wrong'} style='--share:{count / total:.3f}'>{count or ''}"
            for column, count in enumerate(counts)
        )
        rows += f"<tr><th scope=row>{escape(label)}{cells}</tr>"
    return (
        "<section><h2>What was taken for what</h2><p class=muted>Rows: what it is. Columns: what the model said.</p>"
        f"<div class=scroll><table class=confusion><tr><td>{head}</tr>{rows}</table></div></section>"
    )


def _threshold(report: dict[str, Any]) -> str:
    curve = report["threshold_curve"]
    if not curve:
        return ""
    lines = [
        (name, [(one["threshold"], one[name]) for one in curve if one[name] is not None])
        for name in ("precision", "recall", "f1")
    ]
    mark = report["summary"]["suggested_threshold"]
    text = (
        "A higher threshold makes the model say less, and be right more often when it does. "
        "Measured on the pictures that watched the training."
    )
    drawn = _chart(lines, (0.0, 1.0), mark)
    return f"<section><h2>Threshold</h2><p class=muted>{text}</p>{drawn}</section>"


def _history(history: Sequence[dict[str, Any]]) -> str:
    if len(history) < 2:
        return ""
    lines = [
        ("training", [(one["t_s"], one["train_accuracy"]) for one in history]),
        ("validation", [(one["t_s"], v) for one in history if (v := one["validation_accuracy"]) is not None]),
    ]
    drawn = _chart(lines, (0.0, max(one["t_s"] for one in history)), None)
    text = f"Over {history[-1]['t_s']:.0f} seconds and {history[-1]['step']:,} steps."
    return f"<section><h2>How it learned</h2><p class=muted>{text}</p>{drawn}</section>"


def _chart(
    lines: Sequence[tuple[str, list[tuple[float, float]]]], x_range: tuple[float, float], mark: float | None
) -> str:
    """Curves of shares, 0–1, over `x_range`."""
    width, height = _CHART
    low, high = x_range

    def place(x: float, y: float) -> str:
        return f"{40 + (x - low) / (high - low or 1) * (width - 50):.1f},{10 + (1 - min(1.0, max(0.0, y))) * (height - 40):.1f}"

    grid = "".join(
        f"<line x1=40 x2={width - 10} y1={(y := 10 + (1 - v) * (height - 40)):.1f} y2={y:.1f} />"
        f"<text x=34 y={y + 4:.1f} text-anchor=end>{v:.0%}</text>"
        for v in (0.0, 0.5, 1.0)
    )
    grid += f"<text x=40 y={height - 6}>{_number(low)}</text><text x={width - 10} y={height - 6} text-anchor=end>{_number(high)}</text>"
    if mark is not None:
        top, bottom = place(mark, 1.0), place(mark, 0.0)
        x = top.partition(",")[0]
        grid += f"<line class=mark x1={x} x2={x} y1={top.partition(',')[2]} y2={bottom.partition(',')[2]} />"
        grid += f"<text x={x} y={height - 6} text-anchor=middle>{mark:.2f}</text>"
    drawn = "".join(
        f"<polyline class=line{number} points='{' '.join(place(x, y) for x, y in points)}' />"
        for number, (_, points) in enumerate(lines)
        if points
    )
    names = "".join(f"<span class=line{number}>{name}</span>" for number, (name, _) in enumerate(lines))
    return f"<svg viewBox='0 0 {width} {height}' role=img>{grid}{drawn}</svg><p class=legend>{names}</p>"


def _wrong(report: dict[str, Any], folder: Path) -> str:
    wrong = report["wrong"]
    if not wrong:
        return "<section><h2>Mistakes</h2><p>None on the test pictures.</p></section>"
    shown = [figure for one in wrong[:_MOST_PICTURES] if (figure := _figure(one, folder))]
    more = f" The first {len(shown)} of {len(wrong)}." if len(wrong) > len(shown) else ""
    text = (
        "The worst first. Look here for mistakes in your labels, and for what to capture more of."
        + more
        + (" Green: what is there. Red: what the model said." if report["task"] == "object_detection" else "")
        + (" Beside it: what spoke for the label that it found likeliest." if wrong[0].get("looked_at") else "")
    )
    return f"<section><h2>Mistakes</h2><p class=muted>{text}</p><div class=pictures>{''.join(shown)}</div></section>"


def _figure(one: dict[str, Any], folder: Path) -> str:
    image = embedded(folder, one["sample"])
    if seen := one.get("looked_at"):
        image = f"<div class=pair>{image}{embedded(folder, seen['sample'])}</div>"
    expected = ", ".join(map(escape, one["expected"])) or "none of these"
    said = ", ".join(f"{escape(p['label'])} {p['confidence']:.0%}" for p in one["predicted"][:3]) or "nothing"
    return f"<figure>{image}<figcaption><b>{expected}</b><br>said: {said}<br><small>{escape(one['id'])}</small></figcaption></figure>"


def _skipped(skipped: Sequence[dict[str, str]]) -> str:
    if not skipped:
        return ""
    rows = "".join(f"<tr><th>{escape(one['id'])}<td>{escape(one['reason'])}</tr>" for one in skipped[:500])
    title = f"Left out: {len(skipped):,} picture{'' if len(skipped) == 1 else 's'}"
    return f"<section><h2>{title}</h2><div class=scroll><table>{rows}</table></div></section>"


def _how(report: dict[str, Any]) -> str:
    """Everything that the run depended on."""
    dataset, model, config = report["dataset"], report["model"], report["config"]
    split = dataset["split"]
    rows: Iterable[tuple[str, str]] = [
        (
            "Pictures",
            f"{dataset['item_count']:,} in {dataset['groups']:,} groups of look-alikes, which are never divided",
        ),
        (
            "Split",
            f"{split['train']:,} to learn from, {split['validation']:,} to watch, {split['test']:,} to test "
            f"({'as the dataset says' if dataset.get('split_by') == 'dataset' else 'drawn by Gleaner'})",
        ),
        ("Dataset", dataset["hash"] or "–"),
        ("Seed, time given", f"{config['seed']}, {config['budget_s']:.0f} s"),
        (
            "Training",
            f"{model['steps']:,} steps in {report['timings']['train_s']:.0f} s on {config['threads']} threads",
        ),
        *(
            (("Started from", f"{start['name']}, licence {start['license']}"),)
            if (start := config.get("backbone"))
            else ()
        ),
        ("Model", f"{model['parameters']:,} numbers, {model['size_bytes'] / 1e6:.1f} MB"),
        ("Input", " × ".join(map(str, model["input_shape"])) + " (uint8, RGB)"),
        ("File against network", f"largest difference {model['largest_difference']:.1e}"),
        *((f"As {name}", format_text(one)) for name, one in model.get("formats", {}).items()),
        ("Versions", ", ".join(f"{name} {version}" for name, version in report["versions"].items())),
    ]
    listed = "".join(f"<tr><th>{name}<td>{escape(value)}</tr>" for name, value in rows)
    return f"<section><h2>How it was made</h2><div class=scroll><table class=how>{listed}</table></div></section>"


def _share(value: float) -> str:
    return f"{value:.1%}".replace("%", " %")


def _number(value: float) -> str:
    return f"{value:.0f} s" if value > 1 else f"{value:g}"
