"""What a process keeps that connects to a cluster."""

from __future__ import annotations

import socket

import pytest

from circinus.errors import ServingError
from circinus.serving.ray.driver import check_head

pytest.importorskip("ray")


@pytest.mark.parametrize("listens", [False, True])
def test_an_address_without_a_head_is_told_soon(listens: bool) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        if listens:  # and says nothing: no head of a cluster
            other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(ServingError, match=rf"found no Ray cluster at address {address}.* within 0\.2 s"):
            check_head(address, 0.2)


def test_an_address_that_is_none_is_told() -> None:
    with pytest.raises(ServingError, match="found no Ray cluster at address head"):
        check_head("head", 0.2)


def test_the_address_of_a_client_is_left_to_ray() -> None:
    check_head("ray://127.0.0.1:1", 0.2)
