"""Where the processes of a job meet before JAX hears of them.

`jax.distributed.initialize` ends a process that waits in vain for the others by SIGABRT, with a
stack trace out of C++ that no `except` sees (jax 0.10.2, whatever its initialization_timeout). One
line is promised instead. So process 0 listens at the coordinator's address until each of the others
has said its number there, sends them all on, and only then does JAX take the address over.
"""

import contextlib
import socket
import time

from jaxmlp.errors import JobError

PATIENCE = 60  # seconds for all processes to come
ANSWER = 5  # seconds for a process that is there to say or hear its number
GO = b"!"


def meet(host: str, port: int, processes: int, process_id: int) -> None:
    """Returns when all processes have come.

    Raises:
        ValueError: process 0 cannot listen at this address.
        JobError: they have not come within PATIENCE seconds.
    """
    if process_id == 0:
        _await_others(host, port, processes)
    else:
        _report(host, port, process_id)


def _await_others(host: str, port: int, processes: int) -> None:
    until, others = time.monotonic() + PATIENCE, set(range(1, processes))
    with contextlib.ExitStack() as opened:
        arrived: dict[int, socket.socket] = {}
        try:
            with socket.create_server((host, port)) as server:
                while others - arrived.keys():
                    server.settimeout(max(until - time.monotonic(), 1e-3))
                    connection = opened.enter_context(server.accept()[0])
                    connection.settimeout(ANSWER)
                    arrived[int.from_bytes(connection.recv(4))] = connection
        except TimeoutError:
            raise JobError(
                f"process {min(others - arrived.keys())} did not come to {host}:{port} within "
                f"{PATIENCE} s; start all {processes}, with the same --coordinator"
            ) from None
        except OSError as error:
            raise ValueError(
                f"--coordinator {host}:{port} cannot be used: {error.strerror}"
            ) from None
        for other in others:  # only now: the address is free for JAX
            arrived[other].sendall(GO)


def _report(host: str, port: int, process_id: int) -> None:
    until = time.monotonic() + PATIENCE
    while True:
        try:
            with socket.create_connection((host, port), timeout=ANSWER) as connection:
                connection.sendall(process_id.to_bytes(4))
                connection.settimeout(2 * PATIENCE)  # the last may come late to process 0
                if connection.recv(len(GO)):
                    return
            raise JobError(f"process 0 at {host}:{port} gave up: its own output says why")
        except OSError:
            if time.monotonic() > until:
                raise JobError(
                    f"coordinator {host}:{port} does not answer within {PATIENCE} s; "
                    "start process 0 too, or look at the address"
                ) from None
            time.sleep(0.5)
