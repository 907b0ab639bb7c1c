"""The network between the forecaster and the database is cut and mended: by a real link.

What wrappers in place of the network can show is in test_faults.py.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import optuna
import pytest
import sqlalchemy
from backends import POSTGRES, database, server
from forecasting import running, verdict_of
from helpers import BAD, GOOD_ENDS, finished, good_trials, reports, saturating
from optuna.exceptions import StorageInternalError
from optuna.study import Study
from optuna.trial import TrialState
from serving import Serving, trains, wait

from optuna_lcpruner import RemotePruner

pytestmark = pytest.mark.slow

OPTIONS = ("--interval", "0.1", "--n-steps", "100000", "--no-ledger")


@pytest.fixture
def url() -> Iterator[sqlalchemy.URL]:
    """A new database on the PostgreSQL server."""
    with database(server(POSTGRES)) as made:
        yield sqlalchemy.make_url(made)


def shown(url: sqlalchemy.URL) -> str:
    return url.render_as_string(hide_password=False)


def begun(url: sqlalchemy.URL) -> tuple[Study, list[Any]]:
    """A study with eight running trials, better than the best all the time: no prune is right."""
    study = optuna.create_study(storage=shown(url), direction="maximize")
    study.add_trials(finished(reports(saturating(end / 2.0))) for end in GOOD_ENDS)
    return study, [running(study, [0.5, 0.5]) for _ in range(8)]


def carries_on(study: Study, trials: list[Any], serving: Serving, link: Any, notices: bool) -> None:
    """Cut the forecaster off, mend the link; each trial is judged, none twice and none wrongly.

    Args:
        study: The study, as the trainers see it.
        trials: Its running trials.
        serving: The forecaster.
        link: Can be cut and mended.
        notices: Whether it is told of the cut: the link is mended only after it said so.
    """
    trains(trials, lambda: len(serving.judged) > 16, serving)
    link.cut()
    before = at_rest(serving)
    cut_at = reported(study)
    trains(trials, lambda: reported(study) > cut_at + 40, serving)
    if notices:
        trains(trials, lambda: bool(complaints(serving)), serving)
    else:
        assert not complaints(serving)
    assert len(serving.judged) == before
    link.mend()
    trains(trials, lambda: len(serving.judged) > before + 16, serving)
    wait(
        lambda: all(
            verdict_of(study, trial).covers(study._storage.get_trial(trial._trial_id))
            for trial in trials
        ),
        lambda: serving.lines[-20:],
    )
    assert len(serving.judged) == len(set(serving.judged))
    assert not any(event["prune"] for event in serving.events("verdict"))
    assert {trial.state for trial in study.get_trials()[5:]} == {TrialState.RUNNING}
    assert serving.terminate() == 0


def reported(study: Study) -> int:
    return sum(len(trial.intermediate_values) for trial in study.get_trials(deepcopy=False))


def at_rest(serving: Serving) -> int:
    """Its verdicts, once what was on its way has arrived: none came for a second."""
    n, since, began = -1, 0.0, time.monotonic()
    while n != len(serving.judged) or time.monotonic() - since < 1.0:
        if n != len(serving.judged):
            n, since = len(serving.judged), time.monotonic()
        assert time.monotonic() - began < 20.0, serving.lines[-20:]
        time.sleep(0.05)
    return n


def complaints(serving: Serving) -> list[dict[str, Any]]:
    return serving.events("cannot_serve") + serving.events("storage_out_of_reach")


class Namespace:
    """A network namespace, joined to this one by a veth pair alone.

    Args:
        pid: A process in it.
        near: The name of this end of the pair.
        address: Its address.

    Attributes:
        address: As above.
        inside: The words before a command that run it there.
    """

    def __init__(self, pid: int, near: str, address: str) -> None:
        self.address = address
        self.inside = ("nsenter", "--net", f"--target={pid}")
        self._near = near

    def cut(self) -> None:
        """Set the link down: packets are lost, and nobody is told."""
        run("ip", "link", "set", self._near, "down")

    def mend(self) -> None:
        run("ip", "link", "set", self._near, "up")


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


# It goes when its last process does: with this one, however this one ends.
HOLDER = ("setpriv", "--pdeathsig=KILL", "unshare", "--net", "sh", "-c", "echo there; exec cat")


@contextmanager
def namespace() -> Iterator[Namespace]:
    """Inside it there is one; afterwards neither it nor its links are left."""
    missing = [
        tool for tool in ("ip", "nsenter", "setpriv", "unshare") if shutil.which(tool) is None
    ]
    if missing:
        pytest.skip(f"no network namespaces: there is no {' and no '.join(missing)}")
    near, far, net = f"lcp{os.getpid()}a", f"lcp{os.getpid()}b", f"10.213.{os.getpid() % 256}"
    pipe = subprocess.PIPE
    with subprocess.Popen(HOLDER, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stderr is not None
            if holder.stdout.readline() != "there\n":
                why = holder.stderr.read().strip()
                pytest.skip(f"no network namespaces, they take CAP_SYS_ADMIN: {why}")
            other = Namespace(holder.pid, near, f"{net}.1")
            peer = ("type", "veth", "peer", "name", far, "netns", str(holder.pid))
            try:
                run("ip", "link", "add", near, *peer)
            except subprocess.CalledProcessError as error:
                pytest.skip(f"no network links, they take CAP_NET_ADMIN: {error.stderr.strip()}")
            run("ip", "address", "add", f"{net}.1/30", "dev", near)
            run("ip", "link", "set", near, "up")
            run(*other.inside, "ip", "address", "add", f"{net}.2/30", "dev", far)
            run(*other.inside, "ip", "link", "set", far, "up")
            yield other
        finally:
            subprocess.run(["ip", "link", "delete", near], capture_output=True, check=False)
            holder.kill()


@pytest.mark.parametrize(
    "timeouts", [{}, {"connect_timeout": "2", "tcp_user_timeout": "2000"}], ids=["none", "libpq's"]
)
def test_a_link_that_is_set_down(url: sqlalchemy.URL, timeouts: dict[str, str]) -> None:
    """Without timeouts the forecaster stands still in its read until the link is back."""
    study, trials = begun(url)
    with (
        namespace() as other,
        Relay(url.host or "", url.port or 5432, at=other.address) as relay,
    ):
        through = url.set(host=other.address, port=relay.port).update_query_dict(timeouts)
        with Serving("--storage", shown(through), *OPTIONS, inside=other.inside) as serving:
            carries_on(study, trials, serving, other, notices=bool(timeouts))


def test_connections_that_are_reset(url: sqlalchemy.URL) -> None:
    study, trials = begun(url)
    with Relay(url.host or "", url.port or 5432) as relay:
        through = shown(url.set(host="127.0.0.1", port=relay.port))
        with Serving("--storage", through, *OPTIONS) as serving:
            carries_on(study, trials, serving, relay, notices=True)


def test_the_database_is_gone_for_ten_seconds(url: sqlalchemy.URL, warned: list[str]) -> None:
    """For the trainer and the forecaster at once; both go on as soon as it is back."""
    study = optuna.create_study(storage=shown(url), direction="maximize")
    study.add_trials(good_trials())
    with Relay(url.host or "", url.port or 5432) as relay:
        through = shown(url.set(host="127.0.0.1", port=relay.port))
        trainer = optuna.load_study(
            study_name=study.study_name,
            storage=through,
            pruner=RemotePruner(ledger=False),
        )
        trial = running(trainer, BAD[:2])
        options = ("--storage", through, "--interval", "0.1", "--n-steps", "20", "--no-ledger")
        with Serving(*options) as forecaster:
            forecaster.wait_for("verdict")
            relay.cut()
            forecaster.wait_for("cannot_serve")
            for _ in range(10):
                assert trial.should_prune() is False
                time.sleep(1.0)
            relay.mend()
            forecaster.wait_for("back")
            for step in range(2, 8):
                with suppress(StorageInternalError):  # Optuna's pool has dead connections left
                    trial.report(0.1, step)
            wait(trial.should_prune, lambda: f"{forecaster.lines}")
            assert len(forecaster.judged) == len(set(forecaster.judged))
            assert forecaster.terminate() == 0
        trainer._storage.remove_session()
    assert study.get_trials()[5].state == TrialState.RUNNING
    assert len(warned) == 1
    assert "could not decide, so the trial goes on" in warned[0]


class Relay:
    """Passes a port's bytes on to a server, until it is cut.

    Args:
        host: The server's.
        port: The server's.
        at: The address to listen at.
    """

    def __init__(self, host: str, port: int, at: str = "127.0.0.1") -> None:
        self._server = (host, port)
        self._listener = socket.create_server((at, 0))
        self.port = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._is_cut = False
        self._lock = threading.Lock()  # of the two above
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        with self._lock:
            self._is_cut = True
            for connection in self._open:
                hang_up(connection)
            self._open = []

    def mend(self) -> None:
        self._is_cut = False

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                if self._is_cut:
                    client.close()
                    continue
                server = socket.create_connection(self._server)
                self._open += [client, server]
            for one, other in ((client, server), (server, client)):
                threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    def _pass_on(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
        for side in (one, other):
            hang_up(side)


def hang_up(connection: socket.socket) -> None:
    """Close it for both ends, even while another thread reads: closing alone waits for that."""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
