"""A Slurm of one node on the loopback, for tests: its own key, ports, state and logs in one folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "squeue", "scancel")
_CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
AuthType=auth/munge
AuthInfo=socket={place}/munge.socket
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd.pid
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool
SlurmctldLogFile={place}/slurmctld.log
SlurmdLogFile={place}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
SlurmdTimeout=20
KillWait=5
MpiDefault=none
SchedulerParameters=requeue_delay=0,sched_interval=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} CoresPerSocket={cpus} ThreadsPerCore=1 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str | None:
    """Why there can be no node here; None where there can be one."""
    lacking = [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]
    if lacking:
        return f"Slurm is not installed ({', '.join(lacking)}): apt-get install slurmctld slurmd slurm-client munge"
    return None if os.geteuid() == 0 else "this Slurm is started by root only"


def _path() -> str:
    return os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextlib.contextmanager
def node(place: Path) -> Iterator[dict[str, str]]:
    """Starts the three daemons in an empty folder; yields the environment in which sbatch and the others find them."""
    place.mkdir(parents=True, exist_ok=True)
    for name in ("state", "spool"):
        (place / name).mkdir()
    place.chmod(0o755)
    key = place / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    host = socket.gethostname().split(".")[0]
    ports = [_free_port(), _free_port()]
    (place / "slurm.conf").write_text(_CONF.format(host=host, place=place, ports=ports, cpus=os.cpu_count()))
    env = {**os.environ, "PATH": _path(), "SLURM_CONF": str(place / "slurm.conf")}
    started: list[subprocess.Popen] = []

    def start(*words: str) -> None:
        with open(place / f"{words[0]}.out", "wb") as log:
            started.append(subprocess.Popen(words, env=env, stdout=log, stderr=log))

    try:
        munge = [f"--key-file={key}", f"--socket={place}/munge.socket", f"--pid-file={place}/munged.pid"]
        start("munged", "-F", "--force", *munge, f"--log-file={place}/munged.log", f"--seed-file={place}/munge.seed")
        _until(lambda: (place / "munge.socket").exists(), "munged", place)
        start("slurmctld", "-D", "-i")
        start("slurmd", "-D")
        _until(lambda: "idle" in _said(env, "sinfo", "-h", "-o", "%T"), "slurmd", place)
        yield env
    finally:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            subprocess.run(["scancel", "--user=root"], env=env, timeout=10, capture_output=True)
        end = time.monotonic() + 15.0  # no job outlives its node
        while _said(env, "squeue", "-h").strip() and time.monotonic() < end:
            time.sleep(0.5)
        for one in reversed(started):
            one.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                one.wait(10)
            one.kill()
            one.wait()


def _said(env: dict[str, str], *words: str) -> str:
    return subprocess.run(words, env=env, capture_output=True, text=True).stdout


def _until(true, what: str, place: Path, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            logs = "\n".join(
                p.read_text(errors="replace")[-2000:] for p in [*place.glob("*.log"), *place.glob("*.out")]
            )
            raise RuntimeError(f"{what} did not start:\n{logs}")
        time.sleep(0.1)
