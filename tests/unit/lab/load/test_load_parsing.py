from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from konverge.lab.load.outcomes import ExchangeFailed, Kind
from konverge.lab.load.parsing import LONGEST_HEAD, ResponseParser

SIZED = b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\nX-A: 1\r\nx-a: 2\r\n\r\nhello world"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b'5;name="v"\r\nhello\r\n6\r\n world\r\n0\r\nTrailer: x\r\n\r\n'
)
INFORMED = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + SIZED


@pytest.mark.parametrize("message", [SIZED, CHUNKED, INFORMED])
@given(cuts=st.lists(st.integers(min_value=0, max_value=200)))
def test_any_split_of_the_bytes_gives_the_same_response(message: bytes, cuts: list[int]) -> None:
    parser = ResponseParser("GET")
    places = sorted({min(cut, len(message)) for cut in cuts} | {0, len(message)})
    for start, end in itertools.pairwise(places):
        parser.feed(message[start:end])
    assert parser.done
    assert (parser.response.status, bytes(parser.response.body)) == (200, b"hello world")
    assert parser.response.keep_alive


@pytest.mark.parametrize("message", [SIZED, CHUNKED])
def test_every_early_end_is_a_failure(message: bytes) -> None:
    for length in range(1, len(message)):
        parser = ResponseParser("GET")
        parser.feed(message[:length])
        assert not parser.done
        with pytest.raises(ExchangeFailed) as caught:
            parser.finish()
        assert caught.value.answered
        in_sized_body = message is SIZED and length >= len(SIZED) - 11
        assert caught.value.kind == (Kind.TRUNCATED if in_sized_body else Kind.EOF_MID_RESPONSE)


def test_an_end_before_the_first_byte_is_told_apart() -> None:
    with pytest.raises(ExchangeFailed) as caught:
        ResponseParser("GET").finish()
    assert (caught.value.kind, caught.value.answered) == (Kind.EOF_BEFORE_RESPONSE, False)


def test_a_body_without_length_lasts_until_the_end() -> None:
    parser = ResponseParser("GET")
    parser.feed(b"HTTP/1.1 200 OK\r\n\r\nsome")
    parser.feed(b" text")
    assert not parser.done
    parser.finish()
    assert parser.done
    assert bytes(parser.response.body) == b"some text"
    assert not parser.response.keep_alive


@pytest.mark.parametrize(
    ("method", "head"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"),
        ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        ("GET", b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n"),
    ],
)
def test_responses_without_body_end_with_the_head(method: str, head: bytes) -> None:
    parser = ResponseParser(method)
    parser.feed(head)
    assert parser.done


@pytest.mark.parametrize(
    ("head", "keep_alive"),
    [
        (b"HTTP/1.1 204 x\r\nConnection: close\r\n\r\n", False),
        (b"HTTP/1.1 204 x\r\nConnection: Upgrade, Close\r\n\r\n", False),
        (b"HTTP/1.0 204 x\r\n\r\n", False),
        (b"HTTP/1.0 204 x\r\nConnection: keep-alive\r\n\r\n", True),
        (b"HTTP/1.1 204 x\r\n\r\n", True),
    ],
)
def test_the_head_decides_whether_the_connection_is_kept(head: bytes, keep_alive: bool) -> None:
    parser = ResponseParser("GET")
    parser.feed(head)
    assert parser.response.keep_alive is keep_alive


@pytest.mark.parametrize(
    "message",
    [
        b"\x15\x03\x01\x00\x02\x02",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nName : x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1_0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1",
        b"HTTP/1.1 200 OK\r\nA: " + b"a" * LONGEST_HEAD,
    ],
)
def test_what_is_no_response_is_malformed(message: bytes) -> None:
    with pytest.raises(ExchangeFailed) as caught:
        ResponseParser("GET").feed(message)
    assert caught.value.kind == Kind.MALFORMED_RESPONSE
    assert caught.value.answered


def test_a_listener_gets_the_body_instead_of_the_response() -> None:
    parts: list[bytes] = []
    parser = ResponseParser("GET", parts.append)
    parser.feed(CHUNKED)
    assert b"".join(parts) == b"hello world"
    assert not parser.response.body
