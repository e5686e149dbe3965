"""A loopback server that answers W&B's protocol as far as runs, files, artifacts and sweeps need it, and keeps it all."""

from __future__ import annotations

import gzip
import json
import re
import threading
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ENTITY = "tester"


class WandbServer:
    """``with WandbServer() as server``: what arrived stands in ``runs``, ``files``, ``artifacts`` and ``sweeps``."""

    def __init__(self) -> None:
        # Runs by name: config, history, summary, exit code, what each was begun with; files by run/name or artifact/name.
        self.runs: dict[str, dict[str, Any]] = {}
        self.files: dict[str, bytes] = {}
        self.artifacts: dict[str, dict[str, Any]] = {}
        self.sweeps: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> WandbServer:
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def environment(self, home: str) -> dict[str, str]:
        """What a process needs to speak to this server and to nobody else."""
        places = {f"WANDB_{name}_DIR": home for name in ("DATA", "CACHE", "CONFIG")}
        key = {
            "WANDB_SILENT": "false",
            "WANDB_API_KEY": "local-" + 40 * "a",
            "WANDB_ERROR_REPORTING": "false",
            "HOME": home,
        }
        return {"WANDB_BASE_URL": self.url, **key, **places}

    # GraphQL: one method for each operation; what has none is answered with an empty object.

    def graphql(self, operation: str, v: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            self.asked.append(operation)
            return getattr(self, f"on_{operation}", lambda _: {})(v)

    def on_Viewer(self, v: dict[str, Any]) -> dict[str, Any]:
        user = {"id": "u", "entity": ENTITY, "username": ENTITY, "flags": "{}", "teams": {"edges": []}}
        return {"viewer": user | {"apiKeys": {"edges": []}, "email": "", "admin": False}}

    def on_ServerFeaturesQuery(self, v: dict[str, Any]) -> dict[str, Any]:
        return {"serverInfo": {"features": []}}

    def on_UpsertBucket(self, v: dict[str, Any]) -> dict[str, Any]:
        name = v.get("name") or v.get("id")
        known = self.runs.setdefault(name, {"history": [], "summary": {}, "begun": [], "exit": None, "config": {}})
        known["begun"].append(v)
        known["config"] |= json.loads(v["config"]) if v.get("config") else {}
        known |= {key: v[key] for key in ("groupName", "jobType", "tags", "displayName", "sweep") if v.get(key)}
        bucket = {"id": name, "name": name, "displayName": v.get("displayName"), "description": "", "config": "{}"}
        bucket |= {"project": _project(v.get("project")), "sweepName": v.get("sweep")}
        bucket["historyLineCount"] = len(known["history"])
        return {"upsertBucket": {"bucket": bucket, "inserted": len(known["begun"]) == 1}}

    def on_RunResumeStatus(self, v: dict[str, Any]) -> dict[str, Any]:
        known = self.runs.get(v.get("name"))
        bucket = None
        if known:
            lines = len(known["history"])
            tail = json.dumps([json.dumps(known["history"][-1])] if lines else [])
            bucket = {
                "id": v["name"], "name": v["name"], "displayName": "", "config": json.dumps(known["config"]),
                "summaryMetrics": json.dumps(known["summary"]), "historyLineCount": lines, "eventsLineCount": 0,
                "logLineCount": 0, "historyTail": tail, "eventsTail": "[]", "tags": [], "wandbConfig": "{}",
            }  # fmt: skip
        project = _project(v.get("project")) | {"bucket": bucket}
        return {"model": project, "project": project}

    def on_CreateRunFiles(self, v: dict[str, Any]) -> dict[str, Any]:
        given = v.get("input", v)
        run = given.get("run") or given.get("runName")
        files = [{"name": n, "uploadUrl": f"{self.url}/put/{run}/{n}"} for n in given["files"]]
        return {"createRunFiles": {"runID": run, "uploadHeaders": [], "files": files}}

    def on_ArtifactType(self, v: dict[str, Any]) -> dict[str, Any]:
        return {"project": None}

    def on_CreateArtifact(self, v: dict[str, Any]) -> dict[str, Any]:
        given = v.get("input", v)
        name = f"artifact{len(self.artifacts)}"
        self.artifacts[name] = {"given": given, "files": [], "state": "PENDING", "manifest": None}
        sequence = {"id": "s", "latestArtifact": None}
        return {"createArtifact": {"artifact": {"id": name, "state": "PENDING", "artifactSequence": sequence}}}

    def on_CreateArtifactManifest(self, v: dict[str, Any]) -> dict[str, Any]:
        given = v.get("input", v)
        name = given.get("artifactID")
        url = f"{self.url}/put/{name}/manifest.json"
        file = {"id": "f", "name": "manifest", "uploadUrl": url, "uploadHeaders": []}
        return {"createArtifactManifest": {"artifactManifest": {"id": f"m{name}", "file": file}}}

    def on_CreateArtifactFiles(self, v: dict[str, Any]) -> dict[str, Any]:
        edges = []
        for spec in v.get("input", v).get("artifactFiles", v.get("artifactFiles", [])):
            name = spec["artifactID"]
            self.artifacts[name]["files"].append(spec["name"])
            url = f"{self.url}/put/{name}/{spec['name']}"
            node = dict.fromkeys(("id", "name", "displayName", "storagePath"), spec["name"]) | {"uploadUrl": url}
            edges.append({"node": node | {"uploadHeaders": [], "uploadMultipartUrls": None, "artifact": {"id": name}}})
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def on_CommitArtifact(self, v: dict[str, Any]) -> dict[str, Any]:
        name = v.get("artifactID") or v.get("input", {}).get("artifactID")
        self.artifacts[name]["state"] = "COMMITTED"
        return {"commitArtifact": {"artifact": {"id": name, "digest": ""}}}

    def on_UpsertSweep(self, v: dict[str, Any]) -> dict[str, Any]:
        name = f"sweep{len(self.sweeps)}"
        self.sweeps[name] = {"config": v.get("config"), "agents": 0, "runs": []}
        sweep = {"id": name, "name": name, "project": _project(v.get("projectName"))}
        return {"upsertSweep": {"sweep": sweep, "configValidationWarnings": []}}

    def on_SweepWithRuns(self, v: dict[str, Any]) -> dict[str, Any]:
        name = v.get("sweep") or v.get("sweepName")
        sweep = {"id": name, "name": name, "method": "grid", "state": "RUNNING", "description": "", "runCount": 0}
        sweep |= dict.fromkeys(("controller", "scheduler", "bestLoss")) | {"config": self.sweeps[name]["config"]}
        return {"project": {"sweep": sweep | {"runs": {"edges": []}}}}

    def on_CreateAgent(self, v: dict[str, Any]) -> dict[str, Any]:
        self.sweeps[v["sweep"]]["agents"] += 1
        return {"createAgent": {"agent": {"id": v["sweep"]}}}

    def on_Heartbeat(self, v: dict[str, Any]) -> dict[str, Any]:
        """Hands out the sweep's draws (``draws``, filled by the test), one at a time, then tells the agent to exit."""
        sweep = self.sweeps[v["id"]]
        running = json.loads(v.get("runState") or "{}")
        draws = sweep.setdefault("draws", list(self.draws))
        commands: list[dict[str, Any]] = [] if draws or any(running.values()) else [{"type": "exit"}]
        if draws and not any(running.values()):
            sweep["runs"].append(f"run{len(sweep['runs'])}")
            args = {key: {"value": value} for key, value in draws.pop(0).items()}
            commands = [{"type": "run", "run_id": sweep["runs"][-1], "args": args, "program": "train.py"}]
        return {"agentHeartbeat": {"agent": {"id": v["id"]}, "commands": json.dumps(commands)}}

    draws: list[dict[str, Any]] = []  # noqa: RUF012

    def stream(self, run: str, content: dict[str, Any]) -> None:
        """A piece of a run's file stream."""
        with self._lock:
            known = self.runs[run]
            files = {name: part.get("content", []) for name, part in (content.get("files") or {}).items()}
            known["history"] += [json.loads(line) for line in files.get("wandb-history.jsonl", [])]
            for line in files.get("wandb-summary.json", []):
                known["summary"] |= json.loads(line)
            if content.get("complete"):
                known["exit"] = content.get("exitcode")


def _project(name: str | None) -> dict[str, Any]:
    return {"id": "p", "name": name or "p", "entity": {"id": "e", "name": ENTITY}}


def _handler(server: WandbServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def _body(self) -> bytes:
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            kind = self.headers.get("Content-Encoding")
            return gzip.decompress(data) if kind == "gzip" else zlib.decompress(data) if kind == "deflate" else data

        def _answer(self, content: Any) -> None:
            data = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            self._answer({})

        def do_PUT(self) -> None:
            server.files[self.path.removeprefix("/put/")] = self._body()
            self._answer({})

        def do_POST(self) -> None:
            body = json.loads(self._body() or b"{}")
            if self.path.endswith("/file_stream"):
                server.stream(self.path.split("/")[-2], body)
            named = re.search(r"(?:query|mutation)\s+(\w+)", body.get("query", ""))
            name = body.get("operationName") or (named[1] if named else "")
            self._answer({"data": server.graphql(name, body.get("variables") or {}), "limits": {}})

    return Handler
