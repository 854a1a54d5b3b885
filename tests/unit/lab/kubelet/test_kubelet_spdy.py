from __future__ import annotations

import asyncio
import random
import struct
import zlib

import pytest

from konverge.lab.kubelet.spdy.dictionary import HEADER_DICTIONARY
from konverge.lab.kubelet.spdy.frames import (
    RST_STREAM,
    SETTINGS,
    SYN_STREAM,
    WINDOW_UPDATE,
    FrameReader,
    HeaderBlocks,
    SpdyError,
    write_control,
    write_data,
)
from konverge.lab.kubelet.spdy.session import BUFFER_LIMIT, Session
from konverge.lab.kubelet.spdy.streams import SpdyStream


def test_the_dictionary_is_the_one_of_the_protocol() -> None:
    assert len(HEADER_DICTIONARY) == 1423
    assert zlib.adler32(HEADER_DICTIONARY) == 0xE3C6A7C2  # the id in every SPDY/3 header block
    assert HeaderBlocks().pack({"a": "b"})[:6] == bytes.fromhex("78bbe3c6a7c2")


def test_header_blocks_share_one_compression_state() -> None:
    sender, receiver = HeaderBlocks(), HeaderBlocks()
    blocks = [{"streamtype": "data", "port": "80", "requestid": str(number)} for number in range(5)]
    packed = [sender.pack(block) for block in blocks]
    assert [receiver.unpack(block) for block in packed] == blocks
    assert len(packed[4]) < len(packed[0])


def test_names_become_lower_case_and_values_keep_their_letters() -> None:
    assert HeaderBlocks().unpack(HeaderBlocks().pack({"streamType": "stdOut"})) == {"streamtype": "stdOut"}


def test_frames_are_found_however_the_bytes_are_cut() -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    source = random.Random(seed)
    stream = b"".join(
        write_data(source.randrange(1, 99), source.randbytes(source.randrange(300)), fin=source.random() < 0.5)
        + write_control(SYN_STREAM, source.randbytes(12), flags=1)
        for _ in range(40)
    )
    whole = list(FrameReader().feed(stream))
    reader, pieces = FrameReader(), []
    while stream:
        size = source.randrange(1, 50)
        pieces += list(reader.feed(stream[:size]))
        stream = stream[size:]
    assert pieces == whole
    assert len(whole) == 80
    assert whole[1].kind == SYN_STREAM


@pytest.mark.parametrize(
    "data",
    [
        struct.pack(">HHI", 0x8002, SYN_STREAM, 0),  # version 2
        struct.pack(">HHI", 0x8003, SYN_STREAM, 0xFFFFFF),  # too long
        b"GET / HTTP/1.1\r\n" + struct.pack(">II", 0xFFFF0001, 0) * 9,
    ],
)
def test_what_is_no_spdy_is_refused(data: bytes) -> None:
    with pytest.raises(SpdyError):
        list(FrameReader().feed(data))


def test_a_header_block_that_is_no_zlib_is_refused() -> None:
    with pytest.raises(SpdyError):
        HeaderBlocks().unpack(b"nonsense")


class Wire:
    """Two sessions back to back."""

    def __init__(self) -> None:
        self.to_server: list[bytes] = []
        self.client = Session(self._to_server, client=True)
        self.server = Session(self._to_client)

    async def _to_server(self, data: bytes) -> None:
        self.to_server.append(data)
        self.server.feed(data)

    async def _to_client(self, data: bytes) -> None:
        self.client.feed(data)

    async def open(self, **headers: str) -> tuple[SpdyStream, SpdyStream]:
        ours = await self.client.open(headers)
        theirs = await self.server.accept()
        assert theirs is not None
        return ours, theirs


async def read_all(stream: SpdyStream) -> bytes:
    data = b""
    while block := await stream.read():
        data += block
    return data


async def test_streams_carry_bytes_both_ways_and_end_one_by_one() -> None:
    wire = Wire()
    ours, theirs = await wire.open(streamtype="data", port="80")
    assert theirs.headers == {"streamtype": "data", "port": "80"}
    await ours.write(b"question")
    await ours.finish()
    assert await read_all(theirs) == b"question"
    await theirs.write(b"answer" * 100_000)
    await theirs.finish()
    assert await read_all(ours) == b"answer" * 100_000
    with pytest.raises(ConnectionResetError):
        await theirs.write(b"more")
    await wire.client.close()
    await wire.server.close()


async def test_many_streams_do_not_mix() -> None:
    wire = Wire()
    pairs = [await wire.open(requestid=str(number)) for number in range(20)]
    for number, (ours, _) in enumerate(pairs):
        await ours.write(f"n{number}".encode())
        await ours.finish()
    for number, (_, theirs) in enumerate(pairs):
        assert theirs.headers["requestid"] == str(number)
        assert await read_all(theirs) == f"n{number}".encode()
    await wire.client.close()


async def test_a_peer_without_window_updates_is_not_held_back() -> None:
    sent: list[bytes] = []

    async def send(data: bytes) -> None:
        sent.append(data)

    session = Session(send)
    session.feed(write_control(SYN_STREAM, struct.pack(">IIH", 1, 0, 0) + HeaderBlocks().pack({"a": "b"})))
    stream = await session.accept()
    assert stream is not None
    async with asyncio.timeout(5):
        await stream.write(bytes(300_000))
    assert sum(map(len, sent)) > 300_000
    await session.close()


async def test_a_peer_that_keeps_windows_is_obeyed() -> None:
    sent: list[bytes] = []

    async def send(data: bytes) -> None:
        sent.append(data)

    session = Session(send)
    session.feed(write_control(SETTINGS, struct.pack(">III", 1, 7, 20_000)))
    session.feed(write_control(SYN_STREAM, struct.pack(">IIH", 1, 0, 0) + HeaderBlocks().pack({"a": "b"})))
    stream = await session.accept()
    assert stream is not None
    writing = asyncio.create_task(stream.write(bytes(50_000)))
    payloads = lambda: sum(len(frame.payload) for frame in FrameReader().feed(b"".join(sent)) if frame.kind == 0)  # noqa: E731
    for _ in range(50):
        await asyncio.sleep(0)
    assert payloads() == 20_000
    session.feed(write_control(WINDOW_UPDATE, struct.pack(">II", 1, 30_000)))
    await asyncio.wait_for(writing, 5)
    assert payloads() == 50_000
    await session.close()


async def test_consumed_bytes_are_acknowledged_and_unread_ones_stop_the_reading() -> None:
    wire = Wire()
    ours, theirs = await wire.open(a="b")
    await ours.write(bytes(BUFFER_LIMIT + 100_000))
    await ours.finish()
    assert not wire.server.readable.is_set()
    assert len(await read_all(theirs)) == BUFFER_LIMIT + 100_000
    assert wire.server.readable.is_set()
    for _ in range(5):
        await asyncio.sleep(0)
    assert ours.window > 0  # the updates arrived and outweigh what was sent
    await wire.server.close()


async def test_reset_and_goodbye_end_readers_and_writers() -> None:
    wire = Wire()
    ours, theirs = await wire.open(a="b")
    wire.server.feed(write_control(RST_STREAM, struct.pack(">II", ours.number, 5)))
    assert await theirs.read() == b""
    with pytest.raises(ConnectionResetError):
        await theirs.write(b"x")
    _, second = await wire.open(a="c")
    wire.server.feed_eof()
    assert await second.read() == b""
    assert await wire.server.accept() is None


async def test_data_for_an_unknown_stream_is_answered_with_a_reset() -> None:
    wire = Wire()
    wire.server.feed(write_data(77, b"x"))
    await wire.server.close()
    answer = await wire.client.accept() if wire.client.closed.is_set() else None
    assert answer is None
