"""Cutting RESP into messages: whatever the cuts, every byte comes out, and each message ends where it ends."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monkeyproof.faults.proxy.resp.framing import (
    MAX_LINE_BYTES,
    NotResp,
    Read,
    RespFramer,
    bulk,
    command,
    elements,
    name_of,
    payload_of,
    reads_of,
    words,
)

BINARY = st.one_of(st.binary(max_size=40), st.sampled_from([b"\r\n", b"$3\r\nabc\r\n", b"*1\r\n", b"x" * 5000]))
LINES = st.binary(max_size=20).map(lambda data: data.replace(b"\r", b"").replace(b"\n", b""))
SCALARS = st.one_of(
    st.tuples(st.sampled_from([b"+", b"-", b":", b",", b"(", b"#"]), LINES).map(lambda two: b"%b%b\r\n" % two),
    st.tuples(st.sampled_from([b"$", b"!", b"="]), BINARY).map(lambda two: two[0] + bulk(two[1])[1:]),
    st.sampled_from([b"$-1\r\n", b"*-1\r\n", b"_\r\n", b"*0\r\n", b"%0\r\n"]),
)


def aggregates(inner: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    def many(kind: bytes, of: list[bytes]) -> bytes:
        each = 2 if kind in (b"%", b"|") else 1
        of = of[: len(of) // each * each]
        # An attribute describes the value that follows it.
        return b"%b%d\r\n%b%b" % (kind, len(of) // each, b"".join(of), b":7\r\n" if kind == b"|" else b"")

    return st.tuples(st.sampled_from([b"*", b"~", b">", b"%", b"|"]), st.lists(inner, max_size=5)).map(
        lambda two: many(*two)
    )


REPLIES = st.recursive(SCALARS, aggregates, max_leaves=12)
REQUESTS = st.one_of(
    st.lists(BINARY, min_size=1, max_size=6).map(lambda arguments: command(*arguments)),
    st.sampled_from([b"PING\r\n", b"GET a\n", b"\r\n", b"*0\r\n", b'SET a "b c"\r\n']),
)
CUTS = st.lists(st.integers(1, 60), max_size=30)


def cut(framer: RespFramer, stream: bytes, cuts: list[int]) -> list[bytes]:
    """The messages that a framer finds in a stream that comes in parts."""
    found, message = [], b""
    for size in [*cuts, len(stream) + 1]:
        part, stream = stream[:size], stream[size:]
        framer.feed(part)
        while (piece := framer.next()) is not None:
            assert piece.start == (not message)
            message += piece.data
            if piece.end:
                found.append(message)
                message = b""
    return found


@settings(max_examples=60)
@given(st.lists(REQUESTS, max_size=8), CUTS)
def test_requests_are_distinguished_however_they_arrive(requests: list[bytes], cuts: list[int]) -> None:
    framer = RespFramer(requests=True)
    assert cut(framer, b"".join(requests), cuts) == requests
    assert framer.rest() == b""


@settings(max_examples=60)
@given(st.lists(REPLIES, max_size=8), CUTS)
def test_replies_are_distinguished_however_they_arrive(replies: list[bytes], cuts: list[int]) -> None:
    framer = RespFramer(requests=False)
    assert cut(framer, b"".join(replies), cuts) == replies
    assert framer.rest() == b""


@given(st.binary(max_size=200), CUTS, st.booleans())
def test_of_any_bytes_none_is_lost(stream: bytes, cuts: list[int], requests: bool) -> None:
    framer, out, fed = RespFramer(requests=requests), b"", b""
    try:
        for size in [*cuts, len(stream) + 1]:
            part, stream = stream[:size], stream[size:]
            fed += part
            framer.feed(part)
            while (piece := framer.next()) is not None:
                out += piece.data
    except NotResp:
        pass
    assert out + framer.rest() == fed


@given(st.lists(BINARY, min_size=1, max_size=6))
def test_words_of_a_request(arguments: list[bytes]) -> None:
    assert words(command(*arguments)) == arguments
    # A name that is no name (it holds a line end) is none of ours.
    if b"\r\n" not in arguments[0]:
        assert name_of(command(*arguments)) == arguments[0].upper()


@settings(max_examples=60)
@given(st.lists(REPLIES, max_size=6))
def test_elements_of_a_reply(replies: list[bytes]) -> None:
    assert elements(b"*%d\r\n%b" % (len(replies), b"".join(replies))) == replies


def test_a_long_value_comes_in_pieces_and_is_not_kept() -> None:
    framer, size = RespFramer(requests=False), 64 << 20
    framer.feed(b"*2\r\n:1\r\n$%d\r\n" % size)
    passed = len(framer.next().data)
    block = b"y" * 65536
    for _ in range(size // len(block)):
        framer.feed(block)
        piece = framer.next()
        assert not piece.end
        passed += len(piece.data)
        assert framer.next() is None
        assert len(framer.rest()) == 0
    framer.feed(b"\r\n+OK\r\n")
    assert framer.next().end
    assert framer.next().data == b"+OK\r\n"
    assert passed == size + len(b"*2\r\n:1\r\n$67108864\r\n")


@pytest.mark.parametrize(
    ("stream", "requests"),
    [
        (b"\x16\x03\x01 a handshake of TLS", True),
        (b"*1\r\n:5\r\n", True),
        (b"*1\r\n$-1\r\n", True),
        (b"*x\r\n", True),
        (b"*2\r\n*1\r\n", True),
        (b"G" * (MAX_LINE_BYTES + 1), True),
        (b"*" + b"1" * 30 + b"\r\n", True),
        (b"HTTP/1.1 200 OK\r\n", False),
        (b"$?\r\n", False),
        (b"$5x\r\n", False),
        (b"*2\r\n\x00\r\n", False),
        (b"+" + b"G" * (MAX_LINE_BYTES + 1), False),
    ],
)
def test_bytes_that_are_no_resp_are_recognised(stream: bytes, requests: bool) -> None:
    framer = RespFramer(requests=requests)
    framer.feed(stream)
    with pytest.raises(NotResp):
        list(iter(framer.next, None))
    assert stream.endswith(framer.rest())


def test_requests_without_an_answer() -> None:
    framer = RespFramer(requests=True)
    framer.feed(b"\r\n*0\r\n*-1\r\nPING\r\n*1\r\n$4\r\nPING\r\n")
    assert [framer.next().silent for _ in range(5)] == [True, True, True, False, False]


@pytest.mark.parametrize(
    ("request_words", "reads"),
    [
        ([b"get", b"k"], [Read(b"GET", b"k")]),
        ([b"GETEX", b"k", b"EX", b"5"], [Read(b"GET", b"k")]),
        ([b"MGET", b"a", b"b"], [Read(b"GET", b"a"), Read(b"GET", b"b")]),
        ([b"HMGET", b"h", b"x", b"y"], [Read(b"HGET", b"h", b"x"), Read(b"HGET", b"h", b"y")]),
        ([b"HGETALL", b"h"], [Read(b"HGETALL", b"h")]),
        ([b"HGET"], []),
        ([b"SET", b"k", b"v"], []),
        ([], []),
    ],
)
def test_what_a_request_reads(request_words: list[bytes], reads: list[Read]) -> None:
    assert reads_of(request_words) == reads


def test_payloads() -> None:
    assert payload_of(b"$3\r\na\r\n\r\n") == b"a\r\n"
    assert payload_of(b"$-1\r\n") is None
    assert payload_of(b":1\r\n") is None
