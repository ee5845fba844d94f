"""Who listens where, against sockets of this very process."""

import os
import socket
from pathlib import Path

import pytest

from modelyard.runtime import listeners
from modelyard.runtime.runtime import Listener

pytestmark = pytest.mark.skipif(not Path("/proc/self/net/tcp").exists(), reason="no /proc here")


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"), (socket.AF_INET, "0.0.0.0")])  # noqa: S104 - a port that nobody is told of
def test_a_listening_socket_is_seen_and_a_bound_one_is_not(family, host):
    with socket.socket(family) as listening, socket.socket(family) as bound:
        listening.bind((host, 0))
        listening.listen()
        bound.bind((host, 0))
        mine = Listener(host, listening.getsockname()[1])
        silent = Listener(host, bound.getsockname()[1])
        for found in (listeners.of_network(os.getpid()), listeners.of_processes([os.getpid()])):
            assert mine in found
            assert silent not in found


def test_of_others_nothing_is_counted():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        mine = Listener("127.0.0.1", listening.getsockname()[1])
        assert mine in listeners.of_network(os.getpid())
        assert mine not in listeners.of_processes([os.getppid()])


def test_a_process_that_is_gone_listens_nowhere():
    assert listeners.of_network(2**22 + 1) == []
    assert listeners.of_processes([2**22 + 1]) == []
