"""`gleaner data`: everything in is everything out, whoever wrote the files, and nothing is changed or half written."""

from __future__ import annotations

import base64
import json
import math
import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from google.protobuf.struct_pb2 import Struct
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcap.reader import make_reader
from typer.testing import CliRunner
from viam.proto.app.datasync import DataCaptureMetadata, DataType, SensorData

from gleaner.cli.data import app
from gleaner.machine.capture.at_rest import Keyring
from gleaner.machine.offline.export import Format, Report, export
from gleaner.machine.offline.reading import iso_ns
from gleaner.machine.offline.selection import Selection
from gleaner.machine.offline.to_parquet import flatten
from gleaner.wire.capture_file import encode_header, encode_record
from gleaner.wire.sensor_data import varint

JPEG = b"\xff\xd8\xff\xe0 not a whole picture"
START_S = 1_700_000_000


def framed(message: Any) -> bytes:
    """Viam's framing, without our checksum."""
    body = message.SerializeToString()
    return varint(len(body)) + body


def metadata(component: str, method: str, kind: int, tags: list[str]) -> DataCaptureMetadata:
    return DataCaptureMetadata(
        component_type="rdk:component:x",
        component_name=component,
        method_name=method,
        type=DataType.ValueType(kind),
        tags=tags,
    )


def record(at_ns: int, content: dict[str, Any] | bytes) -> SensorData:
    made = SensorData(binary=content) if isinstance(content, bytes) else SensorData(struct=Struct())
    if not isinstance(content, bytes):
        made.struct.update(content)
    for time in (made.metadata.time_requested, made.metadata.time_received):
        time.seconds, time.nanos = divmod(at_ns, 1_000_000_000)
    made.metadata.time_received.seconds += 1
    return made


def put(root: Path, name: str, readings: list[dict[str, Any]], *, viam: bool = False, suffix: str = ".capture") -> Path:
    folder = root / "rdk_component_x" / "imu" / "Readings"
    folder.mkdir(parents=True, exist_ok=True)
    records = [record(START_S * 10**9 + 7 * n, {"readings": reading}) for n, reading in enumerate(readings)]
    header = metadata("imu", "Readings", 2, ["night"])
    parts = [framed(header), *map(framed, records)] if viam else [encode_header(header), *map(encode_record, records)]
    path = folder / f"{name}{suffix}"
    path.write_bytes(b"".join(parts))
    return path


def put_picture(root: Path, number: int, payload: bytes, *, viam: bool = False) -> None:
    folder = root / "rdk_component_x" / "cam" / "GetImages"
    folder.mkdir(parents=True, exist_ok=True)
    made = record(START_S * 10**9, payload)  # all at the same time: names must stay apart
    box = made.metadata.annotations.bboxes.add(label="cup", x_min_normalized=0.25, y_max_normalized=0.5)
    box.x_max_normalized = 0.75
    header = metadata("cam", "GetImages", 1, [])
    parts = [framed(header), framed(made)] if viam else [encode_header(header), encode_record(made)]
    (folder / f"{number}.capture").write_bytes(b"".join(parts))


def snapshot(root: Path) -> dict[str, tuple[bytes, int]]:
    return {str(p): (p.read_bytes(), p.stat().st_mtime_ns) for p in sorted(root.rglob("*")) if p.is_file()}


def run(root: Path, out: Path, kind: Format, **more: Any) -> Report:
    return export(root, out, kind, Selection(), Keyring(), **more)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def mcap_messages(path: Path) -> list[tuple[str, str, int, dict[str, Any]]]:
    with path.open("rb") as file:
        return [
            (channel.topic, schema.name if schema else "", message.log_time, json.loads(message.data))
            for schema, channel, message in make_reader(file).iter_messages(log_time_order=False)
        ]


VALUES = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False, width=32) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1, max_size=3), inner, max_size=3),
    max_leaves=6,
)
READINGS = st.lists(
    st.dictionaries(st.sampled_from(["a", "b", "a.b", "c"]), VALUES, max_size=3), min_size=1, max_size=6
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(readings=READINGS, pictures=st.lists(st.binary(min_size=1, max_size=40), max_size=3), viam=st.booleans())
def test_everything_in_is_everything_out(
    tmp_path_factory: pytest.TempPathFactory, readings: list[dict[str, Any]], pictures: list[bytes], viam: bool
) -> None:
    base = tmp_path_factory.mktemp("offline")
    root = base / "capture"
    put(root, "1", readings, viam=viam)
    for number, payload in enumerate(pictures):
        put_picture(root, number, JPEG + payload, viam=viam)
    before = snapshot(root)
    for kind in Format:
        report = run(root, base / kind.value, kind)
        assert (report.records, report.damaged) == (len(readings) + len(pictures), [])
    assert snapshot(root) == before
    times = [iso_ns(START_S * 10**9 + 7 * n) for n in range(len(readings))]
    wanted = [{"readings": reading} for reading in readings]
    found = lines(base / "folder/imu/Readings/records.jsonl")
    assert [(line["time_requested"], line["data"]) for line in found] == list(zip(times, wanted, strict=True))
    messages = mcap_messages(base / "mcap")
    assert [m[3]["data"] for m in messages if m[0] == "/imu/Readings"] == wanted
    assert [iso_ns(m[2]) for m in messages if m[0] == "/imu/Readings"] == times
    rows = pq.read_table(base / "parquet/imu/Readings.parquet")
    assert rows["time_requested"].cast("int64").to_pylist() == [START_S * 10**9 + 7 * n for n in range(len(readings))]
    rows = rows.drop_columns(["time_requested", "time_received"])  # datetime has no nanoseconds
    for row, reading in zip(rows.to_pylist(), wanted, strict=True):
        for name, value in flatten(reading).items():
            is_json = rows.schema.field(name).metadata == {b"gleaner": b"json"}
            assert (json.loads(row[name]) if is_json and row[name] is not None else row[name]) == value
    payloads = sorted(JPEG + payload for payload in pictures)
    assert sorted(p.read_bytes() for p in (base / "folder").rglob("*.jpeg")) == payloads
    assert sorted(p.read_bytes() for p in (base / "parquet").rglob("*.jpeg")) == payloads
    images = [m for m in messages if m[1] == "foxglove.CompressedImage"]
    assert sorted(base64.b64decode(m[3]["data"]) for m in images) == payloads
    assert all(
        m[3]["format"] == "jpeg" and m[3]["annotations"]["bboxes"][0]["x_max_normalized"] == 0.75 for m in images
    )


def test_parquet_columns_are_typed_and_join_pieces_whose_types_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gleaner.machine.offline.to_parquet._BATCH_ROWS", 1)
    put(tmp_path / "c", "1", [{"t": 1.5, "m": True}, {"t": None, "m": "on", "xs": [1.0, 2.0]}, {"new": {"deep": "x"}}])
    run(tmp_path / "c", tmp_path / "out", Format.PARQUET)
    table = pq.read_table(tmp_path / "out/imu/Readings.parquet")
    types = {f.name: str(f.type) for f in table.schema if f.name.startswith("data.")}
    assert types["data.readings.t"] == "double"
    assert types["data.readings.new.deep"] == "string"
    assert types["data.readings.xs"].startswith("list<")
    assert table["data.readings.m"].to_pylist() == ["true", '"on"', None]
    assert table["tags"].to_pylist() == [["night"]] * 3
    assert [p.name for p in (tmp_path / "out").rglob(".*")] == []


def test_parquet_holds_pictures_in_its_rows_when_asked(tmp_path: Path) -> None:
    put_picture(tmp_path / "c", 1, JPEG)
    run(tmp_path / "c", tmp_path / "out", Format.PARQUET, embed=True)
    [row] = pq.read_table(
        tmp_path / "out/cam/GetImages.parquet", columns=["payload", "bboxes", "mime_type", "path"]
    ).to_pylist()
    assert row["payload"] == JPEG
    assert (row["bboxes"][0]["label"], row["mime_type"], row["path"]) == ("cup", "image/jpeg", None)


@pytest.mark.parametrize("kind", list(Format))
def test_damaged_files_are_named_and_the_others_exported(tmp_path: Path, kind: Format) -> None:
    root = tmp_path / "c"
    whole = put(root, "1", [{"n": 1.0}, {"n": 2.0}]).read_bytes()
    (root / "rdk_component_x/imu/Readings/2.capture").write_bytes(b"\x07garbage")
    (root / "rdk_component_x/imu/Readings/3.capture").write_bytes(whole[:-3])
    (root / "rdk_component_x/imu/Readings/4.prog").write_bytes(whole[:-3])  # being written: no damage
    report = run(root, tmp_path / "out", kind)
    assert report.records == 4
    assert [Path(each["file"]).name for each in report.damaged] == ["2.capture", "3.capture"]


@pytest.mark.parametrize("kind", list(Format))
def test_an_interrupted_export_leaves_nothing(tmp_path: Path, kind: Format) -> None:
    put(tmp_path / "c", "1", [{"n": 1.0}])

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "c", tmp_path / "out" / "x", kind, seen=interrupt)
    assert list((tmp_path / "out").iterdir()) == []


def test_nothing_is_replaced_without_force_and_no_foreign_folder_with_it(tmp_path: Path) -> None:
    put(tmp_path / "c", "1", [{"n": 1.0}])
    run(tmp_path / "c", tmp_path / "out", Format.FOLDER)
    ask = ["export", str(tmp_path / "c"), "--format", "folder", "--out"]
    refused = CliRunner().invoke(app, [*ask, str(tmp_path / "out")])
    assert (refused.exit_code, "--force" in refused.output) == (2, True)
    assert CliRunner().invoke(app, [*ask, str(tmp_path / "out"), "--force"]).exit_code == 0
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter").write_text("dear")
    assert CliRunner().invoke(app, [*ask, str(tmp_path / "mine"), "--force"]).exit_code == 2
    assert (tmp_path / "mine" / "letter").exists()


def test_encrypted_captures_are_read_with_their_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = os.urandom(32)
    path = put(tmp_path / "c", "1", [{"n": 1.0}])
    sealer = Keyring((key,)).sealer()
    assert sealer is not None
    path.write_bytes(sealer.beginning + sealer.frame(path.read_bytes(), 1))
    shut = CliRunner().invoke(app, ["show", str(path)])
    assert "--key-file" in shut.output
    monkeypatch.setenv("GLEANER_CAPTURE_KEY", key.hex())
    assert '"n": 1.0' in CliRunner().invoke(app, ["show", str(path)]).output


def test_ls_says_what_is_there_and_filters(tmp_path: Path) -> None:
    put(tmp_path, "1", [{"n": 1.0}, {"n": 2.0}])
    put(tmp_path, "2", [{"n": 3.0}], suffix=".prog")
    put_picture(tmp_path, 1, JPEG, viam=True)
    found = json.loads(CliRunner().invoke(app, ["ls", str(tmp_path), "--json"]).stdout)
    assert [(row["component"], row["files"], row["records"], row["unfinished"]) for row in found] == [
        ("cam", 1, 1, 0),
        ("imu", 2, 3, 1),
    ]
    for options in (["--tag", "night"], ["--component", "imu"], ["--method", "Readings"]):
        [row] = json.loads(CliRunner().invoke(app, ["ls", str(tmp_path), "--json", *options]).stdout)
        assert row["component"] == "imu"
    assert json.loads(CliRunner().invoke(app, ["ls", str(tmp_path), "--json", "--since", "1h"]).stdout) == []
    assert "imu" in CliRunner().invoke(app, ["ls", str(tmp_path)]).stdout


def test_show_writes_a_picture_out(tmp_path: Path) -> None:
    put_picture(tmp_path / "c", 1, JPEG)
    shown = CliRunner().invoke(app, ["show", str(tmp_path / "c"), "--picture", str(tmp_path / "p.jpeg")])
    assert shown.exit_code == 0, shown.output
    assert "cup" in shown.output
    assert (tmp_path / "p.jpeg").read_bytes() == JPEG


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["ls", "{}/none"], "does not exist"),
        (["ls", "{}"], "not a capture directory"),
        (["ls", "{}/c", "--since", "yesterday"], "no time"),
        (["ls", "{}/c", "--key-file", "{}/none"], "key file"),
        (["export", "{}/c", "--format", "mcap", "--out", "{}/c/x"], "inside the capture directory"),
    ],
)
def test_bad_input_is_one_line(tmp_path: Path, options: list[str], said: str) -> None:
    if options[1] != "{}":
        put(tmp_path / "c", "1", [{"n": 1.0}])
    answer = CliRunner().invoke(app, [option.format(tmp_path) for option in options])
    assert (answer.exit_code, len(answer.output.strip().splitlines())) == (2, 1)
    assert said in answer.output


def test_a_header_cannot_lead_out_of_the_export(tmp_path: Path) -> None:
    folder = tmp_path / "c" / "a" / "b" / "c"
    folder.mkdir(parents=True)
    header = encode_header(metadata("..", "../../evil", 1, []))
    (folder / "1.capture").write_bytes(header + encode_record(record(1, JPEG)))
    run(tmp_path / "c", tmp_path / "out", Format.FOLDER)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c", "out"]
    assert (tmp_path / "out" / "_.." / ".._.._evil").is_dir()


def strictly(text: str) -> Any:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_numbers_that_json_does_not_have_are_protobufs_texts_and_parquet_keeps_them(tmp_path: Path) -> None:
    root = tmp_path / "captures"
    reading = {"a": math.nan, "b": [math.inf, {"c": -math.inf}], "d": 1.5}
    put(root, "1", [reading])
    want = {"readings": {"a": "NaN", "b": ["Infinity", {"c": "-Infinity"}], "d": 1.5}}
    run(root, tmp_path / "folder", Format.FOLDER)
    [line] = (tmp_path / "folder/imu/Readings/records.jsonl").read_text().splitlines()
    assert strictly(line)["data"] == want
    run(root, tmp_path / "all.mcap", Format.MCAP)
    with (tmp_path / "all.mcap").open("rb") as file:
        [(_, _, message)] = make_reader(file).iter_messages()
    assert strictly(message.data.decode())["data"] == want
    run(root, tmp_path / "parquet", Format.PARQUET)
    [row] = pq.read_table(next((tmp_path / "parquet").rglob("*.parquet"))).to_pylist()
    assert math.isnan(row["data.readings.a"])
    assert strictly(row["data.readings.b"]) == ["Infinity", {"c": "-Infinity"}]
    said = CliRunner().invoke(app, ["show", str(root), "--json"]).stdout.splitlines()
    assert strictly(said[-1])["data"] == want


@pytest.mark.parametrize("kind", list(Format))
def test_an_export_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, kind: Format, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, out = tmp_path / "captures", tmp_path / "out"
    put(root, "1", [{"n": 1}])
    put_picture(root, 1, JPEG)
    synced: set[int] = set()
    real = os.fsync

    def fsync(handle: int) -> None:
        if not out.exists():
            synced.add(os.fstat(handle).st_ino)
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    run(root, out, kind)
    assert {path.stat().st_ino for path in (out, *out.rglob("*"))} <= synced
