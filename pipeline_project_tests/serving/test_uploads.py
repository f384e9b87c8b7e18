"""Multipart bodies from strangers."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_project.serving.uploads import RequestError, UploadBudget, file_field

HEAD = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n'


@given(st.binary(max_size=2000))
def test_a_file_comes_out_as_it_went_in(data: bytes) -> None:
    if b"\r\n--b" not in b"\r\n" + data:
        assert file_field(HEAD + b"\r\n" + data + b"\r\n--b--\r\n", b"b") == data


WORDS = [b"--b", b"--", b"\r\n", b"\r", b"\n", b":", b"Content-Disposition: form-data", b'; name="file"', b'"', b";", b"x", b"\x00"]
pieces = st.sampled_from(WORDS)


@given(st.lists(st.one_of(pieces, st.binary(max_size=8)), max_size=30).map(b"".join))
def test_any_other_bytes_are_refused_or_parsed_but_never_a_bug(body: bytes) -> None:
    try:
        file_field(body, b"b")
    except RequestError as error:
        assert error.status == 400


@pytest.mark.parametrize(
    "body",
    [
        HEAD + b"X: " + b"a" * 5_000_000 + b"\r\n\r\nx\r\n--b--\r\n",
        HEAD + b"X: a\r\n" * 500_000 + b"\r\nx\r\n--b--\r\n",
        (HEAD + b"\r\nx\r\n") * 50_000 + b"--b--\r\n",
        b"\r\n" * 2_000_000,
    ],
)
def test_bodies_made_to_be_slow_are_refused_quickly(body: bytes) -> None:
    started = time.perf_counter()
    with pytest.raises(RequestError):
        file_field(body, b"b")
    assert time.perf_counter() - started < 1


def test_the_budget_is_given_back_whatever_happens() -> None:
    budget = UploadBudget(max_bytes=100, max_requests=2)
    for _ in range(5):
        with pytest.raises(RequestError) as refused, budget.lease() as lease:
            lease.take(60)
            with budget.lease() as other:
                other.take(60)
        assert refused.value.status == 503
    with budget.lease(), budget.lease(), pytest.raises(RequestError), budget.lease():
        pass
    with budget.lease() as lease:
        lease.take(100)
