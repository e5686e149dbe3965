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
        self.runs: dict[
            str, dict[str, Any]
        ] = {}  # by name: config, history, summary, exit code, what it was begun with
        self.files: dict[str, bytes] = {}  # by path: run/name, or artifact/name
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
        key = {"WANDB_API_KEY": "local-" + 40 * "a", "WANDB_ERROR_REPORTING": "false", "HOME": home}
        return {"WANDB_BASE_URL": self.url, **key, **places}

    # GraphQL: one method for each operation; what has none is answered with an empty object.

    def graphql(self, operation: str, v: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            self.asked.append(operation)
            answer = getattr(self, f"on_{operation}", None)
            return answer(v) if answer else {}

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
        bucket |= {
            "project": _project(v.get("project")),
            "historyLineCount": len(known["history"]),
            "sweepName": v.get("sweep"),
        }
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
        artifact = {"id": name, "state": "PENDING", "artifactSequence": {"id": "s", "latestArtifact": None}}
        return {"createArtifact": {"artifact": artifact}}

    def on_CreateArtifactManifest(self, v: dict[str, Any]) -> dict[str, Any]:
        given = v.get("input", v)
        name = given.get("artifactID")
        file = {"name": "manifest", "uploadUrl": f"{self.url}/put/{name}/manifest.json", "uploadHeaders": []}
        return {"createArtifactManifest": {"artifactManifest": {"id": f"m{name}", "file": {"id": "f"} | file}}}

    def on_CreateArtifactFiles(self, v: dict[str, Any]) -> dict[str, Any]:
        edges = []
        for spec in v.get("input", v).get("artifactFiles", v.get("artifactFiles", [])):
            name = spec["artifactID"]
            self.artifacts[name]["files"].append(spec["name"])
            url = f"{self.url}/put/{name}/{spec['name']}"
            node = {"id": spec["name"], "name": spec["name"], "displayName": spec["name"], "uploadUrl": url}
            node |= {
                "uploadHeaders": [],
                "storagePath": spec["name"],
                "uploadMultipartUrls": None,
                "artifact": {"id": name},
            }
            edges.append({"node": node})
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def on_CommitArtifact(self, v: dict[str, Any]) -> dict[str, Any]:
        name = v.get("artifactID") or v.get("input", {}).get("artifactID")
        self.artifacts[name]["state"] = "COMMITTED"
        return {"commitArtifact": {"artifact": {"id": name, "digest": ""}}}

    def on_UpsertSweep(self, v: dict[str, Any]) -> dict[str, Any]:
        name = f"sweep{len(self.sweeps)}"
        self.sweeps[name] = {"config": v.get("config"), "agents": 0, "runs": []}
        project = {"id": "p", "name": v.get("projectName"), "entity": {"id": "e", "name": ENTITY}}
        return {
            "upsertSweep": {"sweep": {"id": name, "name": name, "project": project}, "configValidationWarnings": []}
        }

    def on_SweepWithRuns(self, v: dict[str, Any]) -> dict[str, Any]:
        name = v.get("sweep") or v.get("sweepName")
        known = self.sweeps[name]
        sweep = {"id": name, "name": name, "method": "grid", "state": "RUNNING", "description": "", "controller": None}
        sweep |= {"config": known["config"], "scheduler": None, "runs": {"edges": []}, "bestLoss": None, "runCount": 0}
        return {"project": {"sweep": sweep}}

    def on_CreateAgent(self, v: dict[str, Any]) -> dict[str, Any]:
        self.sweeps[v["sweep"]]["agents"] += 1
        return {"createAgent": {"agent": {"id": v["sweep"]}}}

    def on_Heartbeat(self, v: dict[str, Any]) -> dict[str, Any]:
        """Hands out the sweep's draws (``draws``, filled by the test), one at a time, then tells the agent to exit."""
        sweep = self.sweeps[v["id"]]
        running = json.loads(v.get("runState") or "{}")
        commands: list[dict[str, Any]] = []
        if not any(running.values()):
            draws = sweep.setdefault("draws", list(self.draws))
            if draws:
                name = f"run{len(sweep['runs'])}"
                sweep["runs"].append(name)
                args = {key: {"value": value} for key, value in draws.pop(0).items()}
                commands = [{"type": "run", "run_id": name, "args": args, "program": "train.py"}]
            else:
                commands = [{"type": "exit"}]
        return {"agentHeartbeat": {"agent": {"id": v["id"]}, "commands": json.dumps(commands)}}

    draws: list[dict[str, Any]] = []  # noqa: RUF012

    def stream(self, run: str, content: dict[str, Any]) -> None:
        """A piece of a run's file stream."""
        with self._lock:
            known = self.runs[run]
            for name, part in (content.get("files") or {}).items():
                if name == "wandb-history.jsonl":
                    known["history"] += [json.loads(line) for line in part.get("content", [])]
                if name == "wandb-summary.json":
                    for line in part.get("content", []):
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
                self._answer({"exitcode": None, "limits": {}})
                return
            named = re.search(r"(?:query|mutation)\s+(\w+)", body.get("query", ""))
            operation = body.get("operationName") or (named[1] if named else "")
            self._answer({"data": server.graphql(operation, body.get("variables") or {})})

    return Handler
