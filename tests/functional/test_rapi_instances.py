"""Instances by the real remote API and its own client: made, changed, stopped, renamed, removed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ganeti_masterd.testing.daemon import DaemonProcess
from tests.functional.conftest import require
from tests.functional.remoteapi import RapiClient, may_connect, remote_api
from tests.rpc import pki

USERS = "tester secret write\nguest secret read\n"

#: What all instances here have in common.
ALIKE: dict[str, Any] = {"os": "noop", "name_check": False, "ip_check": False}


@pytest.fixture(scope="module")
def port(module_folder: Path) -> Iterator[int]:
    """The remote API of a new cluster of three simulated nodes."""
    require("ganeti-rapi", "ganeti-3.0")
    module_folder.chmod(0o755)  # the remote API runs as another user
    with DaemonProcess(module_folder / "node1", *may_connect()) as daemon:
        certificate = module_folder / "rapi.pem"
        pki.identity("rapi").write(str(certificate))
        certificate.chmod(0o644)
        with remote_api(
            daemon, USERS, f"--ssl-key={certificate}", f"--ssl-cert={certificate}"
        ) as it:
            yield it


@pytest.fixture
def rapi(port: int) -> RapiClient:
    """The client, as a user who may write."""
    return RapiClient(port, "tester", "secret")


def create(name: str, template: str = "diskless", **more: Any) -> tuple[str, list[Any], Any]:
    """Returns the call that makes an instance on node1."""
    disks = more.pop("disks", [])
    options = {**ALIKE, "pnode": "node1", **more}
    return "CreateInstance", ["create", name, template, disks, []], options


def succeeded(answer: Any, summary: str) -> Any:
    """Returns the result of a job that must have succeeded."""
    assert (answer["status"], answer["summary"]) == ("success", [summary]), answer
    return answer["opresult"][0]


def test_life_of_an_instance(rapi: RapiClient) -> None:
    """One instance from its creation to its removal, as the client sees it."""
    made, shown = rapi.calls(
        create("web", "drbd", disks=[{"size": 64}], snode="node2", beparams={"memory": 256}),
        ("GetInstance", ["web"], {}),
    )
    assert succeeded(made, "INSTANCE_CREATE(web)") == ["node1", "node2"]
    assert (shown["status"], shown["pnode"], shown["snodes"]) == ("running", "node1", ["node2"])
    assert (shown["disk.sizes"], shown["beparams"]["maxmem"]) == ([64], 256)

    stopped, down, modified, grown, started, rebooted, up = rapi.calls(
        ("ShutdownInstance", ["web"], {"timeout": 0}),
        ("GetInstance", ["web"], {}),
        ("ModifyInstance", ["web"], {"beparams": {"vcpus": 2}, "nics": [["add", -1, {}]]}),
        ("GrowInstanceDisk", ["web", 0, 64], {}),
        ("StartupInstance", ["web"], {}),
        ("RebootInstance", ["web"], {"reboot_type": "full"}),
        ("GetInstance", ["web"], {}),
    )
    succeeded(stopped, "INSTANCE_SHUTDOWN(web)")
    assert (down["status"], down["admin_state"]) == ("ADMIN_down", "down")
    changed = succeeded(modified, "INSTANCE_SET_PARAMS(web)")
    assert ["be/vcpus", 2] in changed
    succeeded(grown, "INSTANCE_GROW_DISK(web)")
    succeeded(started, "INSTANCE_STARTUP(web)")
    succeeded(rebooted, "INSTANCE_REBOOT(web)")
    assert (up["status"], up["disk.sizes"], up["oper_vcpus"]) == ("running", [128], 2)
    assert len(up["nic.macs"]) == 1

    stopped, renamed, reinstalled, tagged, info, removed, left, gone = rapi.calls(
        ("ShutdownInstance", ["web"], {"timeout": 0}),
        ("RenameInstance", ["web", "shop"], {"ip_check": False, "name_check": False}),
        ("ReinstallInstance", ["shop"], {"no_startup": True}),
        ("AddInstanceTags", ["shop", ["prod"]], {}),
        ("GetInstanceInfo", ["shop"], {}),
        ("DeleteInstance", ["shop"], {}),
        ("GetInstances", [], {}),
        ("GetInstance", ["shop"], {}),
    )
    assert succeeded(renamed, "INSTANCE_RENAME") == "shop"
    assert reinstalled["status"] == "success", reinstalled
    succeeded(tagged, "TAGS_SET")
    assert info["opresult"][0]["shop"]["pnode"] == "node1"
    succeeded(removed, "INSTANCE_REMOVE(shop)")
    assert left == []
    assert gone["code"] == 404


def test_many_at_once(rapi: RapiClient) -> None:
    """One request makes two instances, each by a job of its own."""
    inner = [
        {
            "mode": "create",
            "instance_name": name,
            "disk_template": "plain",
            "disks": [{"size": 32}],
            "nics": [],
            "pnode": node,
            "os_type": "noop",
            "name_check": False,
            "ip_check": False,
        }
        for name, node in (("one", "node2"), ("two", "node3"))
    ]
    (made,) = rapi.calls(("InstancesMultiAlloc", [inner], {}))
    result = succeeded(made, "INSTANCE_MULTI_ALLOC")
    jobs = [job for accepted, job in result["jobs"] if accepted]
    assert len(jobs) == 2
    waited = [("WaitForJobCompletion", [job], {"period": 0.05}) for job in jobs]
    *ended, shown, first, second = rapi.calls(
        *waited,
        ("GetInstances", [], {"bulk": True}),
        ("DeleteInstance", ["one"], {}),
        ("DeleteInstance", ["two"], {}),
    )
    assert ended == [True, True]
    assert [(one["name"], one["pnode"], one["status"]) for one in shown] == [
        ("one", "node2", "running"),
        ("two", "node3", "running"),
    ]
    succeeded(first, "INSTANCE_REMOVE(one)")
    succeeded(second, "INSTANCE_REMOVE(two)")


def test_refusals(rapi: RapiClient, port: int) -> None:
    """What can't be is refused by the job or at once, and nothing comes of it."""
    twice, unknown, wrong, missing, left = rapi.calls(
        create("web", pnode="nowhere"),
        create("web", "nonsense"),
        create("web", hypervisor="nonsense"),
        ("StartupInstance", ["web"], {}),
        ("GetInstances", [], {}),
    )
    assert twice["status"] == "error"
    assert twice["opresult"][0][1][1] == "unknown_entity"
    for answer in (unknown, wrong):
        assert answer.get("code") in (400, 500) or answer["status"] == "error", answer
    assert missing["status"] == "error" or missing["code"] == 404
    assert left == []
    refused = RapiClient(port, "guest", "secret")(*create("web")[:1], *create("web")[1], **ALIKE)
    assert refused["code"] == 403
