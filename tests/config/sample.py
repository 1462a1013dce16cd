"""The real config.data that the tests work on, and a big one made of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import UUID

from ganeti_masterd.config.document import parse
from ganeti_masterd.config.snapshot import Snapshot
from tests.examples import examples

DATA = Path(__file__).parent.parent / "data"
CONTENT = (DATA / "config.data").read_bytes()

NODE1 = "386b2b1c-71fb-4ad4-ad61-319548fe11cf"
NODE2 = "cc5e57c2-6393-4193-99cd-134dc5b6230d"
NODE3 = "7080b68e-d157-429d-bcc1-1280269e9c1b"
GROUP = "57fa1966-631d-4f4d-be1d-86ddd7af0cc7"
INSTANCE1 = "fd014b66-5219-4f0c-a807-4f421bcabc4a"
CLUSTER = "f364ed65-1a20-4523-8f28-4065a3c209c5"

EXAMPLES = examples(60, 1000)


def sample() -> Snapshot:
    """Returns the real configuration: three nodes, eight instances, five disks."""
    return parse(CONTENT)


def document() -> dict[str, Any]:
    """Returns the real configuration as JSON types, to be changed at will."""
    plain: dict[str, Any] = json.loads(CONTENT)
    return plain


def dump(plain: Any) -> bytes:
    """Returns JSON bytes."""
    return json.dumps(plain, separators=(",", ":")).encode()


def uuid(number: int) -> str:
    """Returns a uuid that stands for a number."""
    return str(UUID(int=number))


def big(instances: int) -> bytes:
    """Returns a config.data with many instances of one disk and one NIC each."""
    plain = document()
    models = list(plain["instances"].values())
    disk = next(iter(plain["disks"].values()))
    nic = next(nic for model in models for nic in model["nics"])
    plain["instances"] = {}
    plain["disks"] = {}
    for number in range(instances):
        disk_id = uuid(2**64 + number)
        plain["disks"][disk_id] = {**disk, "uuid": disk_id}
        plain["instances"][uuid(number)] = {
            **models[number % len(models)],
            "uuid": uuid(number),
            "name": f"instance{number}.example.com",
            "disks": [disk_id],
            "nics": [{**nic, "mac": f"aa:00:01:{number.to_bytes(3, 'big').hex(':')}"}],
        }
    return dump(plain)
