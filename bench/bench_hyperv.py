"""Discovering 500 machines on 20 simulated Hyper-V hosts, against the waiting that the latency of requests costs.

``python -m bench.bench_hyperv [MACHINES HOSTS]``. The hosts are a process of their own, which holds every request for
50 ms; the client is the product: inventory, sessions, pywinrm over TLS with NTLM logins.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import IO, NamedTuple

from adapters.hyperv.discovery import discover
from adapters.hyperv.fabrics import HyperVFabrics
from adapters.hyperv.facts import VirtualDisk
from adapters.hyperv.states import ReplicationMode, ReplicationState
from bench.measuring import Result, record, scratch
from simulation.free_ports import free_ports
from simulation.hyperv.hosts import Hosts, certificate_path
from simulation.hyperv.state import Host, Replication
from vault.loading import load_inventory

LATENCY_S = 0.05
CALLS_PER_HOST = 2
OVERHEAD_S = 20.0
"""The goal: seconds beside the waiting."""
SITE, USER, PASSWORD = "east", "LAB\\bench", "bench-of-discovery"


class Served(NamedTuple):
    """What the hosts were asked: the most operations and requests that one of them got."""

    operations: int
    requests: int


def main(machines: int = 500, hosts: int = 20) -> None:
    with scratch() as folder:
        vault = _vault(folder, hosts)
        with subprocess.Popen(
            [sys.executable, "-m", "bench.bench_hyperv", "serve", str(folder), str(machines)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as server:
            assert server.stdin is not None
            assert server.stdout is not None
            ready = server.stdout.readline()
            if ready != "ready\n":
                raise SystemExit("the simulated hosts did not start")
            began = time.perf_counter()
            found = discover(HyperVFabrics(load_inventory(vault)).hypervisor(SITE).hosts)
            took = time.perf_counter() - began
            served = _told(server.stdin, server.stdout)
        discovered = sum(len(host.machines) for host in found)
        trouble = [host.trouble for host in found if host.trouble]
        if discovered != machines or trouble:
            raise SystemExit(f"{discovered} of {machines} machines were discovered: {trouble}")
        if served.operations > CALLS_PER_HOST:
            raise SystemExit(f"a host was called {served.operations} times, more than {CALLS_PER_HOST}")
        waiting = served.requests * LATENCY_S
        peer = f"limit: {served.requests} requests of {LATENCY_S * 1000:.0f} ms"
        record([Result(f"discovery-{machines}", peer, took, waiting, waiting / (waiting + OVERHEAD_S))])
        print(f"{hosts} hosts, {served.operations} calls each; {took - waiting:.2f} s beside the waiting")


def _told(ask: IO[str], answer: IO[str]) -> Served:
    ask.write("how many?\n")
    ask.flush()
    return Served(**json.loads(answer.readline()))


def _vault(folder: Path, hosts: int) -> Path:
    (folder / "password").write_text(PASSWORD)
    site = {
        "fabric": "hyperv",
        "credentials": f"file:{folder / 'password'}",
        "hyperv": {
            "hosts": [f"127.0.0.1:{port}" for port in free_ports(hosts)],
            "authentication": "ntlm",
            "user": USER,
            "ca": str(certificate_path(folder)),
        },
        "networks": {"production": {}, "isolated": {"kind": "isolated"}},
    }
    vault = folder / "leeward.yaml"
    vault.write_text(json.dumps({"version": 1, "sites": {SITE: site}, "policies": {"gold": {"frequency": "30s"}}}))
    return vault


# --- the hosts ----------------------------------------------------------------------------------------------------


def serve(folder: Path, machines: int) -> None:
    with Hosts(folder, load_inventory(folder / "leeward.yaml"), latency_s=LATENCY_S) as hosts:
        states = list(hosts.fabric.state.hosts.values())
        for number in range(machines):
            _add_machine(hosts, states[number % len(states)], number)
        print("ready", flush=True)
        sys.stdin.readline()
        served = Served(
            operations=max(Counter(host for host, _ in hosts.dispatch.asked).values()),
            requests=max(len(server.verbs) for server in hosts.servers.values()),
        )
        print(json.dumps(served._asdict()), flush=True)
        sys.stdin.readline()


def _add_machine(hosts: Hosts, host: Host, number: int) -> None:
    """With two disks; every second one is a replica."""
    name = f"machine-{number:04d}"
    vm = hosts.fabric.new_vm(name, name)
    vm.disks = [
        VirtualDisk(
            path=f"D:\\VMs\\{name}\\{disk}.vhdx", size=2**37, kind="Dynamic", format="VHDX", controller="SCSI 0:0"
        )
        for disk in ("system", "data")
    ]
    if number % 2:
        vm.replication = Replication(
            mode=ReplicationMode.REPLICA,
            state=ReplicationState.REPLICATING,
            primary_server="west-hv1.hyperv.example",
            replica_server=host.full_name,
        )
    host.vms[vm.id] = vm


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        main(*(int(argument) for argument in sys.argv[1:3]))
