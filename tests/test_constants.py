"""Constants of Ganeti's protocols, compared with Ganeti's own (3.0.2) by name.

``tests/data/constants.json`` has the names and values of Ganeti's constants, those
that are needed here. Sets are sorted lists there.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

import ganeti_masterd
from ganeti_masterd import constants, errors
from ganeti_masterd.allocation import document
from ganeti_masterd.cli import command
from ganeti_masterd.config import defaults, newcluster, reservations, ssconf, templates
from ganeti_masterd.config.parameters import devices, limits, merging, policy
from ganeti_masterd.logical_units.cluster import communication
from ganeti_masterd.logical_units.groups import declaring
from ganeti_masterd.logical_units.nodes import out_of_band, storage
from ganeti_masterd.opcodes import secrecy
from ganeti_masterd.rpc import declarations, https
from ganeti_masterd.startup import accounts, simulated_keys

FACTS: dict[str, Any] = json.loads(
    (Path(__file__).parent / "data" / "constants.json").read_text("utf-8")
)

#: Constants that have another name in ``ganeti_masterd.constants`` and ``errors``.
ALIASES = {
    **{
        f"STATUS_{each}": f"JOB_STATUS_{each}"
        for each in ("QUEUED", "WAITING", "CANCELING", "RUNNING", "CANCELED", "SUCCESS", "ERROR")
    },
    "STATUSES_FINALIZED": "JOBS_FINALIZED",
    "OS_API_VERSION": "OS_API_V20",
    **{name: f"ERRORS_{name}" for name in vars(errors) if name.startswith("ECODE_")},
}

#: Constants that Ganeti 3.0.2 doesn't have, and why.
OWN = {
    "CONFIG_VERSION_NEXT": "of 3.1",
    "WCONFD_SOCKET_PERMS": "seen; the daemon's umask makes it",
    "JOBS_PER_ARCHIVE_DIRECTORY": "a constant of another module of Ganeti",
    "VCS_VERSION": "as luxid tells it, with more words",
    "LUXI_EOM": "bytes, which the copy of the facts hasn't",
}

#: Constants in other modules than ``ganeti_masterd.constants``, with Ganeti's names.
ELSEWHERE: list[tuple[str, Any]] = [
    ("HVC_DEFAULTS", defaults.HVPARAMS),
    ("BEC_DEFAULTS", defaults.BEPARAMS),
    ("NICC_DEFAULTS", defaults.NICPARAMS),
    ("NDC_DEFAULTS", defaults.NDPARAMS),
    ("DISK_DT_DEFAULTS", defaults.DISKPARAMS),
    ("IPOLICY_DEFAULTS", defaults.IPOLICY),
    ("HVST_DEFAULTS", defaults.HV_STATE),
    ("DATA_COLLECTOR_NAMES", sorted(defaults.DATA_COLLECTORS)),
    ("HYPER_TYPES", merging.HYPERVISORS),
    ("HYPER_TYPES", ssconf.HYPERVISORS),
    ("DISK_TEMPLATES", policy.DISK_TEMPLATES),
    ("IPOLICY_ALL_KEYS", policy.KEYS),
    ("NIC_VALID_MODES", devices.NIC_MODES),
    ("UIDPOOL_UID_MIN", limits.UID_MIN),
    ("UIDPOOL_UID_MAX", limits.UID_MAX),
    ("MASTER_POOL_SIZE_DEFAULT", newcluster.CANDIDATE_POOL_SIZE),
    ("FIRST_DRBD_PORT", newcluster.HIGHEST_USED_PORT + 1),
    ("LAST_DRBD_PORT", reservations.LAST_DRBD_PORT),
    ("DISK_TEMPLATES", sorted(templates.TEMPLATES)),
    ("DTS_INT_MIRROR", templates.named_by(lambda template: template.internal)),
    ("DTS_EXT_MIRROR", templates.named_by(lambda template: template.external)),
    ("IALLOCATOR_VERSION", document.VERSION),
    ("INSTANCE_COMMUNICATION_MAC_PREFIX", communication.MAC_PREFIX),
    ("INSTANCE_COMMUNICATION_NETWORK_LINK", communication.LINK),
    ("INSTANCE_COMMUNICATION_NETWORK_LINK", declaring.COMMUNICATION_LINK),
    ("OOB_STATUSES", out_of_band.HEALTH),
    ("STS_REPORT_NODE_STORAGE", sorted(storage.REPORTED)),
    ("VALID_STORAGE_FIELDS", storage.FIELDS),
    ("VALID_STORAGE_OPERATIONS", {kind: ["fix-consistency"] for kind in storage.REPAIRABLE}),
    ("REDACTED", secrecy.REDACTED),
    ("RPC_TMO_URGENT", declarations.URGENT),
    ("RPC_TMO_FAST", declarations.FAST),
    ("RPC_TMO_NORMAL", declarations.NORMAL),
    ("RPC_TMO_SLOW", declarations.SLOW),
    ("RPC_TMO_4HRS", declarations.FOUR_HOURS),
    ("RPC_TMO_1DAY", declarations.DAY),
    ("DEFAULT_NODED_PORT", https.PORT),
    ("OP_PRIO_LOW", command.PRIORITIES["low"]),
    ("OP_PRIO_NORMAL", command.PRIORITIES["normal"]),
    ("OP_PRIO_HIGH", command.PRIORITIES["high"]),
    ("MASTERD_USER", accounts.USER),
    ("DAEMONS_GROUP", accounts.GROUP),
    ("CONFD_GROUP", accounts.READERS_GROUP),
    ("MASTERD_GROUP", accounts.OWN_GROUP),
    ("X509_CERT_CN", simulated_keys.COMMON_NAME),
    ("X509_CERT_DEFAULT_VALIDITY", simulated_keys.VALID_DAYS),
    ("RSA_KEY_BITS", simulated_keys.KEY_BITS),
]


def plain(value: Any) -> Any:
    """Returns a value in the form of the recorded facts."""
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, tuple):
        return list(value)
    return value


def named(module: Any) -> Iterator[tuple[str, Any]]:
    """Yields the constants of a module: numbers, strings and sets of these."""
    for name, value in vars(module).items():
        if name.isupper() and isinstance(value, (int, float, str, bytes, frozenset)):
            yield name, value


class ConstantsTests(SynchronousTestCase):
    """Constants equal Ganeti's."""

    def test_constants(self) -> None:
        """Each constant has Ganeti's value, or a reason why Ganeti doesn't have it."""
        for module in (constants, errors):
            for name, value in named(module):
                if name in OWN:
                    continue
                fact = ALIASES.get(name, name)
                self.assertIn(fact, FACTS, f"{name}: an alias, or a reason, or a fact is missing")
                self.assertEqual(plain(value), FACTS[fact], name)

    def test_own(self) -> None:
        """Constants without a counterpart have the observed values."""
        self.assertLess(set(OWN), set(vars(constants)))
        self.assertEqual(constants.LUXI_EOM, b"\3")
        self.assertTrue(constants.VCS_VERSION.endswith(FACTS["VCS_VERSION"]))
        self.assertEqual(constants.CONFIG_VERSION_NEXT, FACTS["CONFIG_VERSION"] + 10000)
        self.assertEqual(max(FACTS["OS_API_VERSIONS"]), constants.OS_API_VERSION)

    def test_elsewhere(self) -> None:
        """Constants in other modules have Ganeti's values too."""
        for name, value in ELSEWHERE:
            self.assertEqual(plain(value), FACTS[name], name)

    def test_no_other_of_that_name(self) -> None:
        """A constant in any module with the name of one of Ganeti's has its value."""
        checked = 0
        for found in pkgutil.walk_packages(ganeti_masterd.__path__, "ganeti_masterd."):
            for name, value in named(importlib.import_module(found.name)):
                if name in FACTS and name not in OWN:
                    self.assertEqual(plain(value), FACTS[name], f"{found.name}: {name}")
                    checked += 1
        self.assertGreater(checked, 100)
