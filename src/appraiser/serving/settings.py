"""How a service is to run. Ceilings are the server's: a client may ask for less, never for more."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from appraiser.errors import ConfigError

MIN_KEY_LENGTH = 16
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True)
class ServiceSettings:
    """Limits and access.

    Args:
        model_name: what clients call the model.
        key_hashes: SHA-256 of every key that opens the service; none: no key is asked for, which only a service on
            loopback may do.
        hosts: names that requests may be addressed to; none: any. Keeps a web page elsewhere from reaching a service
            on loopback under a name of its own.
        num_places: requests that are served or wait at a time; the next one gets 429.
        max_rows: requests that the model answers together.
        max_body_bytes: of one request; base64 takes a third more than the pictures.
        max_bytes_in_memory: of all bodies that are being read or decoded; the next one gets 429.
        max_prompt_tokens: of a chat, pictures included.
        max_answer_tokens: of a chat's answer.
        deadline_s: from the first byte to the last.
        body_timeout_s: to send a body.
        grace_s: for what was accepted, when the service is told to end.
        allow_urls: fetch pictures from the public internet for clients; `allow_private` names own servers, host:port.
    """

    model_name: str = "appraiser"
    key_hashes: tuple[bytes, ...] = ()
    hosts: frozenset[str] = frozenset()
    num_places: int = 64
    max_rows: int = 16
    max_pictures: int = 8
    max_body_bytes: int = 48 << 20
    max_bytes_in_memory: int = 512 << 20
    max_prompt_tokens: int = 8192
    max_answer_tokens: int = 512
    deadline_s: float = 30.0
    body_timeout_s: float = 10.0
    grace_s: float = 20.0
    allow_urls: bool = False
    allow_private: frozenset[str] = field(default_factory=frozenset)


def key_hash(key: str) -> bytes:
    """What is kept of a key."""
    return hashlib.sha256(key.encode()).digest()


def check_bind(host: str, settings: ServiceSettings) -> None:
    """Refuse to serve the network without a key.

    Raises:
        ConfigError: as said.
    """
    if host not in LOOPBACK and not settings.key_hashes:
        raise ConfigError(
            f"the service would answer anybody who reaches {host}, as it has no key",
            fix="give it keys: --key-file FILE, one a line (openssl rand -hex 24 > FILE); or serve this machine alone: "
            "--host 127.0.0.1",
        )
