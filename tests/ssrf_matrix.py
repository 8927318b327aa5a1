"""Every form of an address that must not be asked, by every way in; and servers that notice when one is asked.

    shop       the allowed server, at its own name and port; it redirects as it is told
    canary     listens where nobody may come
    PUBLIC     stands for the public internet: name servers answer with it first

`python -m ssrf_matrix FOLDER` runs the matrix in a network of its own (`unshare -n`), in which every address there is
leads to the canary, so that a guard that fails cannot be saved by a missing route.
"""

from __future__ import annotations

import csv
import json
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq
from network import Names, watched_connections
from shop_server import ShopServer

from appraiser.data.building.build import build_dataset
from appraiser.data.fetch import FetchPolicy

PUBLIC = "93.184.215.14"
REDIRECTS = (301, 302, 303, 307, 308)
KNOWN_PORTS = (22, 25, 80, 443, 6379, 9200)

ADDRESSES = """
    0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.100.100.200 127.0.0.1 127.0.0.2 127.255.255.254 168.63.129.16
    169.254.169.254 169.254.170.2 172.16.0.1 172.31.255.255 192.0.0.1 192.0.0.192 192.0.2.1 192.88.99.1 192.168.0.1
    198.18.0.1 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.250 240.0.0.1 255.255.255.255
    :: ::1 ::127.0.0.1 ::10.0.0.1 ::ffff:127.0.0.1 ::ffff:a9fe:a9fe ::ffff:10.0.0.1 ::ffff:0:7f00:1 64:ff9b::7f00:1
    64:ff9b::a9fe:a9fe 64:ff9b:1::a00:1 2002:7f00:1:: 2002:a9fe:a9fe::1 2001:0:7f00:1:: 2001:1::1 2001:10::1 2001:20::1
    2001:db8::1 3fff::1 5f00::1 100::1 4000::1 fc00::1 fd00:ec2::254 fd20:ce::254 fe80::1 fe80::a9fe:a9fe fec0::1
    ff02::1 ff05::1:3 ff0e::1
""".split()
"""As name servers and URLs write them."""

SPELLINGS: dict[str, tuple[str, ...]] = {
    "blocked_address": (
        "2130706433", "2852039166", "0x7f000001", "0x7F000001", "0X7f.1", "0x7f.0x0.0x0.0x1", "0xa9fea9fe",
        "017700000001", "00000177.1", "127.1", "127.0.1", "10.1", "169.254.43518", "0", "0.0", "0x0",
        "127。0。0。1", "127．0．0．1", "127｡0｡0｡1", "localhost", "LOCALHOST", "LocalHost", "ip6-localhost",
        "[fe80::1%251]", "[0000:0000:0000:0000:0000:0000:0000:0001]", "[0:0:0:0:0:ffff:7f00:1]", "[::FFFF:7F00:1]",
        "[::0001]", "[::ffff:169.254.169.254]",
    ),
    "bad_url": (
        "0177.0.0.1", "0177.0.0.01", "0251.0376.0251.0376", "127.000.000.001", "0127.0.0.1", "256.0.0.1",
        "①②⑦.⓪.⓪.①", "１２７.０.０.１", "١٢٧.٠.٠.١", "𝟭𝟮𝟳.𝟬.𝟬.𝟭", "127.0.0\u00ad.1", "127.0.0.1\u200b",
        "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ", "ｌｏｃａｌｈｏｓｔ", "loc\u00adalhost", "ℒocalhost", "[::ffff:127.1]", "[::ffff:0x7f.0.0.1]",
        "[127.0.0.1]", "[v1.fe80::1]", "[::1].", "::1",
    ),
    "dns": (
        "127.0.0.1.", "0x7f.1.", "localhost.", "4294967297", "0xffffffff7f000001", "1.2.3.4.5", "127.0.0.1%00",
        "127.0.0.1%00.shop.test", "%31%32%37.0.0.1", "127%2e0%2e0%2e1", "-127.0.0.1", "127,0,0,1", "127.0.0.1;",
        "[::1%25lo]", "[::ffff:127.0.0.1%25lo]",
    ),
}  # fmt: skip
"""Other ways to write an address into a URL, by what becomes of them: none of them may lead anywhere."""


@dataclass(frozen=True)
class Case:
    """One row of the table.

    Args:
        reason: why it must be left out; None where its picture comes all the same, from the shop.
    """

    way: str
    form: str
    url: str
    reason: str | None


@dataclass
class Matrix:
    """All cases, and what shop and name server have to say for them."""

    shop_port: int
    port: int
    """Of the canary."""
    addresses: Sequence[str]
    cases: list[Case] = field(default_factory=list)
    answers: dict[str, list[list[str]]] = field(default_factory=dict)
    targets: list[str] = field(default_factory=list)
    robots: dict[str, tuple[int, bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._add("nothing is wrong", "shop.test", f"http://{self._shop()}/picture/0", None)
        for address in self.addresses:
            self._add_address(address, f"[{address}]" if ":" in address else address)
        for reason, hosts in SPELLINGS.items():
            for host in hosts:
                self._add("written otherwise", host, f"http://{host}:{self.port}/", reason)
                redirect = self._redirect(302, f"http://{host}:{self.port}/")
                self._add("redirect, written otherwise", host, redirect, reason)
        self._add_confusions()

    def _add(self, way: str, form: str, url: str, reason: str | None) -> None:
        self.cases.append(Case(way, form, url, reason))

    def _add_address(self, address: str, host: str) -> None:
        there = f"http://{host}:{self.port}/picture/1"
        blocked = "blocked_address"
        self._add("literal", host, there, blocked)
        self._add("literal, TLS", host, f"https://{host}:{self.port}/", blocked)
        self._add("literal, known port", host, f"http://{host}:{KNOWN_PORTS[len(self.cases) % 6]}/latest", blocked)
        self._add("credentials", host, f"http://shop.test:{self.shop_port}@{host}:{self.port}/", "bad_url")
        named = {
            "name": [[address]],
            "name, mixed answer": [[PUBLIC, address]],
            "name, mixed answer, private first": [[address, PUBLIC]],
            "rebinding": [[PUBLIC], [address]],
        }
        for way, answers in named.items():
            self._add(way, host, f"http://{self._name(answers)}:{self.port}/picture/1", blocked)
        for code in REDIRECTS:
            self._add(f"redirect {code}", host, self._redirect(code, there), blocked)
        to_name = f"http://{self._name([[address]])}:{self.port}/"
        self._add("redirect to a name", host, self._redirect(302, to_name), blocked)
        self._add("redirect without a scheme", host, self._redirect(302, f"//{host}:{self.port}/"), blocked)
        self._add("redirect in two steps", host, self._redirect(301, self._redirect(307, there)), blocked)
        asks = self._name([["127.0.0.1"]])
        self.robots[asks] = (302, there.encode())
        self._add("robots.txt", host, f"http://{asks}:{self.shop_port}/picture/{len(self.cases)}", None)

    def _add_confusions(self) -> None:
        """URLs in which readers disagree about the host, and schemes that are none of ours."""
        shop, canary = self._shop(), f"127.0.0.1:{self.port}"
        for url, reason in (
            (f"http://{canary}\\@{shop}/", "bad_url"),
            (f"http://{shop}\\@{canary}/", "bad_url"),
            (f"http://{shop}#@{canary}/", "http_4xx"),
            (f"http://{shop}?@{canary}/", "http_4xx"),
            (f"http://{shop}/@{canary}/", "http_4xx"),
            (f"http://{shop};@{canary}/", "bad_url"),
            (f"http://{shop}&@{canary}/", "bad_url"),
            (f"http://{shop}%40{canary}/", "bad_url"),
            (f"http://{canary}:80/", "bad_url"),
            (f"http:///{canary}/", "bad_url"),
            (f"http://{canary}\t/", "bad_url"),
            (f"http://{canary}\n/", "bad_url"),
            (f"http://\u202e{canary}/", "bad_url"),
            (f"http://@{canary}/", "blocked_address"),
            (f"http://:@{canary}/", "bad_url"),
            (f"http://127.0.0.1:{self.shop_port}/picture/0", "blocked_address"),  # allowed by its name, not by this one
            (f"http://127.0.0.1:{self.port}0000/", "bad_url"),
            ("http://127.0.0.1:0/", "bad_url"),
            (f"HTTP://{canary}/", "blocked_address"),
        ):
            self._add("confusion", url, url, reason)
        for scheme in "file ftp gopher dict ldap tftp ws wss http+unix jar:http netdoc h2".split():
            self._add("scheme", scheme, f"{scheme}://{canary}/etc/passwd", "bad_url")
            self._add("scheme, redirect", scheme, self._redirect(302, f"{scheme}://{canary}/etc/passwd"), "bad_url")
        for target, reason in (
            (f"\\\\{canary}\\x", "http_4xx"),
            (f"/\\{canary}/x", "http_4xx"),
            (f"///{canary}/x", "http_4xx"),
            (f"%2F%2F{canary}/x", "http_4xx"),
            (f"@{canary}/", "http_4xx"),
            (f"http:{canary}/", "http_4xx"),
            (f"ht\ttp://{canary}/", "blocked_address"),
            (f"http:/\t/{canary}/", "blocked_address"),
            (f"http:////{canary}/", "http_4xx"),
            (f"?next=http://{canary}/", "http_4xx"),
        ):
            self._add("odd redirect", target, self._redirect(302, target), reason)

    def _shop(self) -> str:
        self.answers["shop.test"] = [["127.0.0.1"]]
        return f"shop.test:{self.shop_port}"

    def _name(self, answers: list[list[str]]) -> str:
        name = f"name{len(self.answers)}.test"
        self.answers[name] = answers
        return name

    def _redirect(self, code: int, target: str) -> str:
        self.targets.append(target)
        return f"http://{self._shop()}/to/{code}/{len(self.targets) - 1}"


@dataclass(frozen=True)
class Outcome:
    """What a run of the matrix gave.

    Args:
        wrong: cases that ended otherwise than they must.
        intruders: what the canary noticed: address -> connections.
        strays: addresses that a connection was tried to, though nobody allowed it.
    """

    num_cases: int
    ways: dict[str, int]
    reasons: dict[str, int]
    wrong: list[str]
    intruders: dict[str, int]
    strays: list[str]
    seconds: float


def run_matrix(folder: Path, addresses: Sequence[str] = ADDRESSES, *, alone: bool = False) -> Outcome:
    """Build a data set from a table that holds all cases.

    Args:
        alone: in a network of our own, where every address leads here: canaries listen at all of them.
    """
    everywhere = ("0.0.0.0", "::") if alone else ("127.0.0.1", "::1")
    with ExitStack() as stack:
        shop = stack.enter_context(ShopServer("127.0.0.1"))
        canaries = [stack.enter_context(ShopServer(*everywhere))]
        if alone:
            canaries += [stack.enter_context(ShopServer(*everywhere, port=port)) for port in KNOWN_PORTS]
        matrix = Matrix(shop.port, canaries[0].port, addresses)
        shop.targets, shop.robots = matrix.targets, matrix.robots
        policy = FetchPolicy(
            frozenset(f"{name}:{shop.port}" for name in matrix.answers if name == "shop.test" or name in matrix.robots),
            deadline_s=20.0,
            connect_timeout_s=1.0,
            num_parallel_per_host=16,
            max_host_faults=None,
        )
        began = time.monotonic()
        with Names(matrix.answers).instead(), watched_connections(refuses=not alone) as connected:
            manifest = build_dataset(_table(folder, matrix), folder / "out", fetch=policy, max_quarantined=1.0)
        seconds = time.monotonic() - began
    rows = pq.read_table(folder / "out" / "quarantine.parquet").to_pylist()
    found: dict[int, str] = {row["row"]: row["reason"] for row in rows}
    wrong = [
        f"{case.way}: {case.form}: {case.reason} expected, {found.get(row)} found"
        for row, case in enumerate(matrix.cases, start=1)
        if found.get(row) != case.reason
    ]
    if manifest.rows_in != len(matrix.cases):
        wrong.append(f"{manifest.rows_in} rows of {len(matrix.cases)}")
    allowed = {("127.0.0.1", shop.port), (PUBLIC, matrix.port)}
    return Outcome(
        num_cases=len(matrix.cases),
        ways=dict(Counter(case.way for case in matrix.cases)),
        reasons=dict(Counter(case.reason or "kept" for case in matrix.cases)),
        wrong=wrong,
        intruders={address: n for canary in canaries for address, n in canary.reached_at.items() if address != PUBLIC},
        strays=sorted({f"{address} {port}" for address, port in connected if (address, port) not in allowed}),
        seconds=seconds,
    )


def _table(folder: Path, matrix: Matrix) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "products.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "title", "image"])
        writer.writerows([number, case.way, case.url] for number, case in enumerate(matrix.cases))
    return path


def _lead_everything_here() -> None:
    """Make all addresses there are this machine's own; only in a network that holds nothing else."""
    links = subprocess.run(["ip", "-o", "link"], check=True, capture_output=True, text=True).stdout.splitlines()
    if len(links) != 1:
        raise SystemExit("not in a network of its own: start it with unshare -n")
    for command in ("link set lo up", "route add local 0.0.0.0/0 dev lo", "-6 route add local ::/0 dev lo"):
        subprocess.run(["ip", *command.split()], check=True)


def _can_be_reached(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=2).close()
    except OSError:
        return False
    return True


def main() -> None:
    """Run the matrix alone in a network; print what came of it, and which addresses a plain client reaches there."""
    _lead_everything_here()
    with ShopServer("0.0.0.0", "::") as canary:
        reachable = [address for address in (*ADDRESSES, PUBLIC) if _can_be_reached(address, canary.port)]
    outcome = run_matrix(Path(sys.argv[1]), alone=True)
    print(json.dumps({"reachable": reachable, **vars(outcome)}))


if __name__ == "__main__":
    main()
