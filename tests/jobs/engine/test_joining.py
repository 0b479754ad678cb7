"""A cluster that will not do is told in words, within seconds, and before anything is done."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from darkroom.errors import DatasetError, OutputError, RecipeError, RunError
from darkroom.jobs.engine import cluster as clusters
from darkroom.jobs.engine import nodes, open_engine
from darkroom.jobs.engine.cluster import Cluster
from support.works import Squares, ray_here, with_ray


@contextmanager
def answering(reply: bytes) -> Iterator[str]:
    """A server of something else."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with server.accept()[0] as there:
                there.recv(100)
                there.sendall(reply)

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("text", ["rya", "", "spark", "ray:", "ray://head", "s3://bucket"])
def test_an_unknown_engine_is_told(text: str) -> None:
    with pytest.raises(RecipeError, match=r"there is no such engine\..*Known: local, ray, and the address of a cluster"):
        open_engine(text)


def test_fewer_workers_than_none_are_refused() -> None:
    with pytest.raises(RecipeError, match="--workers -1"):
        open_engine("local", -1)


def test_without_ray_there_is_a_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RecipeError, match=r"ray is not installed. `pip install sdxl-darkroom\[scale\]`"):
        open_engine("ray")


@pytest.mark.parametrize("scheme", ["ray://", ""])
def test_a_cluster_that_is_not_there_is_told_at_once(scheme: str) -> None:
    with_ray()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    begun = time.monotonic()
    with pytest.raises(RunError, match=f"--engine {scheme}127.0.0.1:{port}: cannot be reached: .*[Rr]efused.*Is the cluster up"):
        open_engine(f"{scheme}127.0.0.1:{port}")
    assert time.monotonic() - begun < 20, "ray itself waits for a minute"


@pytest.mark.parametrize("scheme", ["ray://", ""])
@pytest.mark.parametrize("reply", [b"HTTP/1.1 505 HTTP Version Not Supported\r\n\r\n", b""])
def test_something_else_behind_the_port_is_told(scheme: str, reply: bytes) -> None:
    with_ray()
    with answering(reply) as address, pytest.raises(RunError, match="something answers there that is no Ray cluster"):
        open_engine(scheme + address)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with ray_here(1) as engine:
        assert isinstance(engine, Cluster)
        yield engine


class TestWithRay:
    """One Ray for all of them."""

    def test_it_listens_on_this_machine_alone_and_sends_nothing(self, cluster: Cluster) -> None:
        import psutil

        assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
        sockets = []
        for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
            with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
                sockets += [one for one in process.net_connections() if one.status in ("LISTEN", "ESTABLISHED")]
        ours = [one.laddr.ip.removeprefix("::ffff:") for one in sockets if one.laddr]
        theirs = [one.raddr.ip.removeprefix("::ffff:") for one in sockets if one.raddr]
        assert ours and {*ours, *theirs} <= {"127.0.0.1", "::1"}

    def test_more_workers_than_cpus_are_refused(self, cluster: Cluster) -> None:
        with pytest.raises(RecipeError, match="--workers 5: the cluster has 1 CPUs"):
            open_engine("ray", 5)
        assert list(cluster.each(Squares(), range(3))) == [0, 1, 4], "the refusal left what was there alone"

    def test_another_darkroom_is_told_by_node(self, cluster: Cluster) -> None:
        mine = nodes.code_here()
        nodes.same_code(cluster.ray, mine, "ray")
        other = {"version": "0.0.9", "digest": "0123456789ab"}
        with pytest.raises(
            RunError, match=rf"1 of 1 nodes have another Darkroom than this machine .0.0.9, source 0123456789ab.:\n  127.0.0.1 .*: {mine['version']}, source"
        ):
            nodes.same_code(cluster.ray, other, "ray://head:1")

    def test_a_node_without_darkroom_can_say_so(self, cluster: Cluster) -> None:
        """The question travels as code: it must not need what it asks for."""
        from ray import cloudpickle

        script = "import sys; sys.path = [path for path in sys.path if 'main/src' not in path]; sys.modules['darkroom'] = None\n"
        script += "import json; from ray import cloudpickle; print(json.dumps(cloudpickle.loads(sys.stdin.buffer.read())()))"
        done = subprocess.run([sys.executable, "-c", script], input=cloudpickle.dumps(nodes._code()), capture_output=True, check=True)
        assert json.loads(done.stdout) == {"version": "", "digest": ""}

    def test_a_worker_that_comes_with_other_code_is_not_used(self, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cluster, "address", "ray://head:1")
        monkeypatch.setattr(cluster, "code", {"version": "0.0.9", "digest": "0123456789ab"})
        cluster._dismiss()
        with pytest.raises(RunError, match="a node has come with another Darkroom"):
            list(cluster.each(Squares(), range(3)))

    def test_a_folder_that_nodes_do_not_see_is_told(self, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        nodes.same_folder(cluster.ray, tmp_path, "ray")
        assert not list(tmp_path.iterdir()), "the probe is taken away"
        seen = nodes._seen
        monkeypatch.setattr(nodes, "_seen", lambda probe: seen(probe.replace(str(tmp_path), str(tmp_path / "elsewhere"))))
        with pytest.raises(DatasetError, match=r"1 of 1 nodes of ray do not see this folder:\n  127.0.0.1 .*: no such folder there\n.*mount the folder"):
            nodes.same_folder(cluster.ray, tmp_path, "ray")
        with pytest.raises(OutputError, match="cannot be written"):
            nodes.same_folder(cluster.ray, tmp_path / "not there", "ray")

    def test_a_cluster_without_anybody_left_is_given_up(self, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
        """No node is left that could start a worker: the engine asks for a GPU that nobody has, and nodes are gone."""
        monkeypatch.setattr(clusters, "STARVED", 0.1)
        monkeypatch.setattr(cluster, "room", lambda kind: 0)
        cluster._dismiss()
        cluster.actors = clusters.Actors(cluster, 1, holds=False, gpus=True)
        with pytest.raises(RunError, match=r"has lost all its workers' nodes\. What was finished is kept"):
            cluster.actors.gpus = False
            list(cluster.each(Squares(), range(3)))
        cluster._dismiss()

    def test_a_head_that_is_gone_is_told_before_ray_ends_the_program(self, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        monkeypatch.setattr(clusters, "SILENT", 0.1)
        monkeypatch.setattr(cluster, "head", f"127.0.0.1:{port}")
        with pytest.raises(RunError, match=rf"the cluster's head .127.0.0.1:{port}. is gone\. What was finished is kept"):
            list(cluster.each(Squares(pause=30.0), range(3)))
        cluster.gone = False  # so that it is ended after all
