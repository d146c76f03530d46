"""A server on this machine that answers what W&B's clients ask when they save views or upload runs."""

import gzip
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = "0123456789abcdef0123456789abcdef01234567"  # of nobody


class WandbServer(ThreadingHTTPServer):
    """Keeps what it is given.

    Args:
        project: whether it knows the project that views are to be saved in.

    Attributes:
        views: variables of each view saved.
        runs: by id, the variables that described each run.
        files: by name, the content of each file uploaded.
        keys: what clients authorised themselves with.
    """

    def __init__(self, project=True):
        super().__init__(("127.0.0.1", 0), Handler)
        self.project, self.views, self.runs, self.files, self.keys = project, [], {}, {}, set()
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def __exit__(self, *error):
        self.shutdown()
        super().__exit__(*error)

    def environment(self, home):
        """What makes a process use this server."""
        return {"HOME": str(home), "WANDB_API_KEY": KEY, "WANDB_BASE_URL": self.url}

    def answer(self, query, given):
        project = {"id": "1", "name": "videopool", "entity": {"name": "somebody"}}
        if "upsertView" in query:
            self.views.append(given)
            view = {key: given[key] for key in ("type", "name", "displayName", "description", "spec")}
            of = {"id": "1", "name": given["projectName"], "entityName": given["entityName"]}
            return {"upsertView": {"view": {"id": "Vm1", "project": of, **view}, "inserted": True}}
        if "upsertBucket" in query:
            told = {key: value for key, value in given.items() if value is not None}
            run = self.runs.setdefault(given.get("name"), told)
            run |= told
            bucket = {"id": "1", "name": given["name"], "displayName": run.get("displayName"), "project": project}
            return {"upsertBucket": {"bucket": {**bucket, "historyLineCount": 0}, "inserted": True}}
        if "createRunFiles" in query:
            files = [{"name": name, "uploadUrl": f"{self.url}/upload/{name}"} for name in given["files"]]
            return {"createRunFiles": {"runID": "1", "uploadHeaders": [], "files": files}}
        if "createArtifact" in query:
            artifact = {"id": "1", "state": "COMMITTED", "artifactSequence": {"id": "1", "latestArtifact": None}}
            return {"createArtifact": {"artifact": artifact}}
        if "ProjectInternalId" in query:
            return {"project": {"id": "1", "internalId": "UHJvamVjdDox"} if self.project else None}
        if "viewer" in query:
            return {"viewer": {"id": "1", "entity": "somebody", "username": "somebody", "teams": {"edges": []}}}
        if "GetProjects" in query:
            user = {"id": "1", "name": "n", "username": "somebody", "email": "", "admin": False, "flags": "{}"}
            user |= {"entity": "somebody", "deletedAt": None, "apiKeys": {"edges": []}, "teams": {"edges": []}}
            node = {"id": "1", "name": "videopool", "entityName": "somebody", "isBenchmark": False, "user": user}
            node |= {"createdAt": "2026-01-01T00:00:00Z", "__typename": "Project"}
            page = {"endCursor": None, "hasNextPage": False, "__typename": "PageInfo"}
            return {"models": {"edges": [{"node": node}], "pageInfo": page}}
        return {}


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        answer = {}
        if self.path == "/graphql":
            self.server.keys.add(self.headers.get("Authorization", ""))
            asked = json.loads(body)
            answer = {"data": self.server.answer(asked["query"], asked.get("variables"))}
        elif self.path.startswith("/upload/"):
            self.server.files[self.path.removeprefix("/upload/")] = body
        text = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_PUT = do_POST

    def log_message(self, *_):
        pass
