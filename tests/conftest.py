"""Set-up for all tests: one thread, no network, and where the shared reference material lies."""

from __future__ import annotations

import fcntl
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # small tensors: a second thread makes tests many times slower
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["WANDB_MODE"] = "offline"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pytest
from hypothesis import settings

# No deadlines: a busy machine must not fail a test. Speed is measured in benchmarks/.
settings.register_profile("house", deadline=None)
settings.load_profile("house")

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("APPRAISER_SHARED", REPOSITORY.parent / "shared"))


def shared_folder(name: str) -> Path:
    """A folder of the reference material; the test is skipped, saying so, where it is absent."""
    folder = SHARED / name
    if not folder.exists():
        pytest.skip(f"reference material absent: {folder} (set APPRAISER_SHARED)")
    return folder


@pytest.fixture(scope="session")
def golden() -> Path:
    return shared_folder("golden")


@pytest.fixture(scope="session")
def phi3_tokenizer_folder() -> Path:
    return shared_folder("phi3_tokenizer")


@pytest.fixture(scope="session")
def outdoor_shop() -> Path:
    return shared_folder("real/outdoor_shop")


@pytest.fixture(scope="module")
def ray_alone() -> Iterator[None]:
    """One test process at a time has a Ray on this machine: two take each other's ports and tokens."""
    with (Path(tempfile.gettempdir()) / "appraiser-tests-ray.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@dataclass(frozen=True)
class Outcome:
    """What a command gave back."""

    code: int
    out: str
    err: str


@pytest.fixture
def appraiser(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run a command in this process, exactly as the console script does."""
    from appraiser import cli

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["appraiser", *map(str, arguments)])
        code: int | str = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
        captured = capsys.readouterr()
        return Outcome(int(code), captured.out, captured.err)

    return run
