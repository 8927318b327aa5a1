"""No way of writing an address and no way of getting it asked for leads behind the guard (tests/ssrf_matrix.py)."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from ssrf_matrix import ADDRESSES, PUBLIC, Outcome, run_matrix

from appraiser.data import fetch as fetch_module

METADATA = {"169.254.169.254", "100.100.100.200", "192.0.0.192", "168.63.129.16", "fd00:ec2::254", "fd20:ce::254"}


def check(outcome: Outcome) -> None:
    print(f"\n{outcome.num_cases} cases in {outcome.seconds:.1f} s: {outcome.reasons}")
    print(f"by way: {outcome.ways}")
    assert outcome.wrong == []
    assert outcome.intruders == {}
    assert outcome.strays == []
    assert outcome.num_cases >= 1000


def test_no_case_of_the_matrix_reaches_anything_on_loopback(tmp_path):
    check(run_matrix(tmp_path / "matrix"))


def test_no_case_of_the_matrix_reaches_anything_where_every_address_leads_to_a_canary(tmp_path):
    tools = shutil.which("ip") and shutil.which("unshare")
    if not tools or subprocess.run(["unshare", "-n", "true"], capture_output=True).returncode:
        pytest.skip("needs root, unshare and ip to make a network of its own")
    command = ["unshare", "-n", sys.executable, "-m", "ssrf_matrix", str(tmp_path / "matrix")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300, env=environment)
    found = json.loads(done.stdout)
    reachable = set(found.pop("reachable"))
    print(f"\na plain client reaches {len(reachable)} of {len(ADDRESSES) + 1} addresses there")
    assert METADATA | {PUBLIC, "127.0.0.1", "10.0.0.1", "::1", "64:ff9b::a9fe:a9fe"} <= reachable
    check(Outcome(**found))


def test_the_matrix_notices_a_guard_that_is_off(tmp_path, monkeypatch):
    monkeypatch.setattr(fetch_module, "is_public", lambda address: True)
    outcome = run_matrix(tmp_path / "matrix", ["127.0.0.1", "::1", "10.0.0.1"])
    assert outcome.intruders["127.0.0.1"] > 10
    assert outcome.intruders["::1"] > 10
    assert any(stray.startswith("10.0.0.1 ") for stray in outcome.strays)
    assert outcome.wrong
