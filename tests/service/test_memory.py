"""What the processes that stay hold in memory: no library that only reading, showing or another role needs.

Two workers and their supervisor are to take less than 100 MB together (docs/performance.md). Whatever is loaded counts
once in the supervisor, and what lies between the objects that a worker touches once more in each worker.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.source import ROOT

#: Modules that neither the supervisor nor a worker of the milter has loaded, with the reason why they are not needed.
NOT_LOADED = {
    "pydantic": "checks the settings, in the child that reads them: 10 MB with its compiled part and our models",
    "authmilter.config.load": "loads pydantic",
    "authmilter.config.model": "loads pydantic",
    "rich": "shows tables to people, who do not look at a service: 3 MB",
    "pygments": "rich's, through structlog's console form: 1 MB",
    "structlog": "writes lines for people; JSON needs none of it, and it loads rich",
    "grpc": "the other role's, which loads it after it was forked: 20 MB",
    "google.protobuf": "as grpc",
    "lxml": "reads BIMI's logos, where BIMI is on: 7 MB",
    "httpx": "fetches BIMI's logos, where BIMI is on",
    "cryptography.x509": "reads BIMI's certificates, where BIMI is on",
    "Milter": "libmilter's, for its engine only (and GPL)",
    "milter": "as Milter",
    "authmilter.bimi.vmc": "for BIMI only",
    "authmilter.client": "what asks a service, not what serves",
    "authmilter.rpc.server": "the other role's",
    "dkim": "the oracle of the tests",
    "unittest": "nobody tests here",
    "multiprocessing": "processes are forked by us",
    "sqlite3": "there is no database",
    "xml.dom": "nobody reads XML but lxml",
    "http.client": "nobody speaks HTTP but httpx",
}

#: As `authmilter run` does, up to the first connection: the command line, the supervisor, a worker, a reload.
_CODE = """
import json, sys
import authmilter.cli.main, authmilter.cli.run, authmilter.supervisor
from authmilter import worker
from authmilter.dmarc import psl
from authmilter.supervise.reading import look
worker.preload()
listed = psl._load.cache_info().currsize
work = worker.Worker(look(sys.argv[1]))
work.reload(look(sys.argv[1]))
print(json.dumps({"modules": sorted(sys.modules), "listed": listed}))
"""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What is loaded in a process that did all that a supervisor and a worker do before the first connection."""
    settings = tmp_path_factory.mktemp("memory") / "authmilter.yaml"
    settings.write_text("dns: {nameservers: ['127.0.0.1:53']}\nmilter: {listen: [inet:8891@127.0.0.1]}\n")
    ran = subprocess.run(
        [sys.executable, "-c", _CODE, str(settings)], capture_output=True, text=True, check=True, cwd=ROOT
    )
    found: dict[str, object] = json.loads(ran.stdout)
    return found


def test_what_stays_loads_nothing_that_only_others_need(service: dict[str, object]) -> None:
    modules = service["modules"]
    assert isinstance(modules, list)
    assert "authmilter.engine" in modules
    loaded = {name: why for name, why in NOT_LOADED.items() if name in modules}
    assert not loaded, "\n".join(f"{name} is loaded in every worker: {why}" for name, why in loaded.items())


def test_the_public_suffix_list_is_read_before_the_workers_are_forked(service: dict[str, object]) -> None:
    # In each worker it would take 2 MB, and 30 ms of the first message.
    assert service["listed"] == 1


def test_what_must_not_be_loaded_is_named_as_it_is_imported() -> None:
    # A module that was renamed would be looked for in vain.
    ours = [name for name in NOT_LOADED if name.startswith("authmilter.")]
    assert ours
    for name in ours:
        path = Path(ROOT, *name.split("."))
        assert path.with_suffix(".py").is_file() or path.is_dir(), name
