"""What damage costs: the same readings in our files (plain and encrypted), in Viam's format and in MCAP, then damaged.

Run: `python bench/capture_damage.py [--times 200]`. Per kind of damage (cut off, tail zeroed, page zeroed, one bit flipped)
and format: records that are wrong (in no file, twice, or out of order) and, as median and worst, the records lost *beyond
the damage*: those that are whole in the file and yet not read. The last line is JSON.

Readers: ours; Viam's rules (length and message, no checksum, stop at the first error); `mcap`'s own readers, the one that
looks for the index and the one that reads from the front (with the CRCs checked), whichever finds more.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from google.protobuf.message import DecodeError
from mcap.exceptions import McapError
from mcap.reader import NonSeekingReader, SeekingReader
from mcap.writer import CompressionType
from mcap.writer import Writer as McapWriter
from viam.proto.app.datasync import DataCaptureMetadata, DataType, SensorData

from gleaner.machine.capture.at_rest import FileSealer, Keyring, plain_bytes
from gleaner.wire.capture_file import CaptureFileError, encode_header, encode_record, read_capture
from gleaner.wire.sensor_data import ReadingEncoder, varint

RECORDS, PAGE = 500, 4096
# The library's own choice is 1 MB, which would be the whole file: small chunks are kind to it.
MCAP_CHUNK_BYTES = 8192
METADATA = DataCaptureMetadata(component_name="imu", type=DataType.DATA_TYPE_TABULAR_SENSOR, method_name="Readings")
RING = Keyring((bytes(range(32)),))


@dataclass(frozen=True)
class Format:
    """A file of all readings: where its records lie, and how it is read back (their serialized messages)."""

    content: bytes
    spans: tuple[tuple[int, int], ...]
    read: Callable[[bytes], list[bytes]]


@dataclass(frozen=True)
class Outcome:
    wrong: int
    lost_beyond: int


def messages() -> list[bytes]:
    encoder = ReadingEncoder()
    return [
        encoder.encode(10**18 + n, 10**18 + n + 5, {"readings": {"n": n, "v": [0.1 * n, 9.81, -n], "state": "driving"}})
        for n in range(RECORDS)
    ]


MESSAGES = messages()
NUMBERS = {message: number for number, message in enumerate(MESSAGES)}


def laid_out(beginning: bytes, records: Sequence[bytes], read: Callable[[bytes], list[bytes]]) -> Format:
    spans, at = [], len(beginning)
    for record in records:
        spans.append((at, at + len(record)))
        at += len(record)
    return Format(beginning + b"".join(records), tuple(spans), read)


def ours() -> Format:
    return laid_out(encode_header(METADATA), [encode_record(m) for m in MESSAGES], read_ours)


def encrypted() -> Format:
    sealer = FileSealer(RING.keys[0])
    beginning = sealer.beginning + sealer.frame(encode_header(METADATA), 0)
    return laid_out(beginning, [sealer.frame(encode_record(m), 1) for m in MESSAGES], read_ours)


def viam() -> Format:
    header = METADATA.SerializeToString()
    return laid_out(varint(len(header)) + header, [varint(len(m)) + m for m in MESSAGES], read_by_viams_rules)


def mcap() -> Format:
    """Messages as protobuf bytes in small chunks with a CRC each; a record counts as damaged with its own bytes."""
    file = io.BytesIO()
    writer = McapWriter(file, compression=CompressionType.NONE, chunk_size=MCAP_CHUNK_BYTES)
    writer.start()
    schema = writer.register_schema("SensorData", "protobuf", b"")
    channel = writer.register_channel("imu", "protobuf", schema)
    for number, message in enumerate(MESSAGES):
        writer.add_message(channel, 10**18 + number, message, 10**18 + number, number)
    writer.finish()
    content, spans, at = file.getvalue(), [], 0
    for message in MESSAGES:
        start = content.index(message, at)
        at = start + len(message)
        spans.append((start, at))
    return Format(content, tuple(spans), read_mcap)


# --- readers ---------------------------------------------------------------------------------------------------------


def read_ours(data: bytes) -> list[bytes]:
    try:
        plain = plain_bytes(data, RING)
        layout = read_capture(plain).layout
    except CaptureFileError:
        return []
    seal_bytes = len(encode_record(b"x")) - 2
    return [plain[span.start : span.end - seal_bytes] for span in layout.records]


def read_by_viams_rules(data: bytes) -> list[bytes]:
    found: list[bytes] = []
    position, is_header = 0, True
    while position < len(data):
        size = shift = 0
        while position < len(data):
            byte = data[position]
            position += 1
            size |= (byte & 127) << shift
            shift += 7
            if byte < 128 or shift > 63:
                break
        message = data[position : position + size]
        if len(message) < size:
            break
        position += size
        try:
            (DataCaptureMetadata if is_header else SensorData).FromString(message)
        except DecodeError:
            break
        if not is_header and message:  # zeros are records of length 0 to it: not held against it
            found.append(message)
        is_header = False
    return found


def read_mcap(data: bytes) -> list[bytes]:
    best: list[bytes] = []
    for reader in (
        lambda: SeekingReader(io.BytesIO(data), validate_crcs=True),
        lambda: NonSeekingReader(io.BytesIO(data), validate_crcs=True),
    ):
        found: list[bytes] = []
        # The library raises these and what `struct` and Python raise inside it.
        try:
            for _, _, message in reader().iter_messages(log_time_order=False):
                found.append(message.data)
        except (
            McapError,
            ValueError,
            OSError,
            KeyError,
            IndexError,
            EOFError,
            AssertionError,
            OverflowError,
            MemoryError,
        ):
            pass
        except Exception as error:
            if type(error).__module__.split(".")[0] not in ("mcap", "struct", "_struct", "lz4", "zstandard"):
                raise
        best = max(best, found, key=len)
    return best


# --- damage ----------------------------------------------------------------------------------------------------------


def truncated(content: bytes, chance: random.Random) -> tuple[bytes, int, int]:
    """(what is left, the damaged bytes' start and end)"""
    cut = chance.randrange(len(content))
    return content[:cut], cut, len(content)


def zeroed_tail(content: bytes, chance: random.Random) -> tuple[bytes, int, int]:
    cut = chance.randrange(len(content))
    return content[:cut] + bytes(len(content) - cut), cut, len(content)


def zeroed_page(content: bytes, chance: random.Random) -> tuple[bytes, int, int]:
    start = chance.randrange(len(content) // PAGE) * PAGE
    end = min(start + PAGE, len(content))
    return content[:start] + bytes(end - start) + content[end:], start, end


def flipped_bit(content: bytes, chance: random.Random) -> tuple[bytes, int, int]:
    at = chance.randrange(len(content))
    damaged = bytearray(content)
    damaged[at] ^= 1 << chance.randrange(8)
    return bytes(damaged), at, at + 1


DAMAGE = {"truncated": truncated, "zeroed_tail": zeroed_tail, "zeroed_page": zeroed_page, "flipped_bit": flipped_bit}
FORMATS = {"gleaner": ours, "gleaner_encrypted": encrypted, "viam": viam, "mcap": mcap}


def judge(form: Format, data: bytes, start: int, end: int) -> Outcome:
    whole = {number for number, (a, b) in enumerate(form.spans) if b <= start or a >= end}
    found = form.read(data)
    numbers = [NUMBERS.get(message, -1) for message in found]
    wrong = numbers.count(-1)
    last = -1
    for number in numbers:
        wrong += int(0 <= number <= last)
        last = max(last, number)
    return Outcome(wrong, len(whole - set(numbers)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=200, help="of each damage")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    figures: dict[str, float] = {}
    all_lost: dict[str, list[int]] = {}
    all_wrong: dict[str, int] = {}
    for name, make in FORMATS.items():
        form, chance = make(), random.Random(options.seed)
        assert form.read(form.content) == MESSAGES
        for kind, damage in DAMAGE.items():
            outcomes = [judge(form, *damage(form.content, chance)) for _ in range(options.times)]
            lost, wrong = [o.lost_beyond for o in outcomes], sum(o.wrong for o in outcomes)
            print(f"{name:18} {kind:12} wrong {wrong:5}   lost beyond the damage: median {statistics.median(lost):5}, "
                  f"worst {max(lost):4}, nothing in {lost.count(0):4} of {len(lost)}")  # fmt: skip
            figures[f"{name}_{kind}_median_loss"] = statistics.median(lost)
            all_lost.setdefault(name, []).extend(lost)
            all_wrong[name] = all_wrong.get(name, 0) + wrong
    figures |= {
        "wrong_records": all_wrong["gleaner"] + all_wrong["gleaner_encrypted"],
        "median_loss": statistics.median(all_lost["gleaner"] + all_lost["gleaner_encrypted"]),
        "mean_loss": round(statistics.mean(all_lost["gleaner"] + all_lost["gleaner_encrypted"]), 2),
    }
    for peer in ("viam", "mcap"):
        figures |= {
            f"{peer}_wrong_records": all_wrong[peer],
            f"{peer}_median_loss": statistics.median(all_lost[peer]),
            f"{peer}_mean_loss": round(statistics.mean(all_lost[peer]), 2),
        }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
