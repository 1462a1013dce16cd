"""How to reach the console of a simulated instance, as each hypervisor says it. Pure.

The forms are those of noded 3.0.2 with Debian's paths; nothing listens there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from shlex import quote
from typing import Any

#: Where node daemons have their tools and their sockets.
TOOLS = "/usr/lib/ganeti/tools"
CONTROL = "/var/run/ganeti/kvm-hypervisor/ctrl"
CHROOTS = "/var/run/ganeti/chroot-hypervisor"

#: VNC's displays are numbered from this port on.
VNC_BASE_PORT = 5900


def console(about: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a console; ``about`` is what ``instance_console_info`` gets of one instance."""
    instance = about["instance"]
    kind = _KINDS.get(instance["hypervisor"], _none)
    return {"instance": instance["name"], **kind(about)}


def _none(about: Mapping[str, Any]) -> dict[str, Any]:
    hypervisor = about["instance"]["hypervisor"]
    return {"kind": "msg", "message": f"Console not available for {hypervisor} hypervisor"}


def _ssh(about: Mapping[str, Any], command: list[str]) -> dict[str, Any]:
    parameters = {**about["group"].get("ndparams", {}), **about["node"].get("ndparams", {})}
    return {
        "kind": "ssh",
        "host": about["node"]["name"],
        "port": parameters.get("ssh_port"),
        "user": "root",
        "command": command,
    }


def _kvm(about: Mapping[str, Any]) -> dict[str, Any]:
    name, params = about["instance"]["name"], about["hvParams"]
    port = about["instance"].get("network_port")
    if params.get("serial_console"):
        socket = f"{CONTROL}/{name}"
        wrapper = [
            f"{TOOLS}/kvm-console-wrapper",
            "/usr/bin/socat",
            quote(name),
            quote(f"{socket}.monitor"),
            "STDIO,raw,echo=0,escape=0x1d",
            f"UNIX-CONNECT:{socket}.serial",
        ]
        return _ssh(about, wrapper)
    if params.get("vnc_bind_address") and port and port > VNC_BASE_PORT:
        return {
            "kind": "vnc",
            "host": params["vnc_bind_address"],
            "port": port,
            "display": port - VNC_BASE_PORT,
        }
    if params.get("spice_bind"):
        return {"kind": "spice", "host": params["spice_bind"], "port": port}
    return {"kind": "msg", "message": f"No serial shell for instance {name}"}


def _xen(about: Mapping[str, Any]) -> dict[str, Any]:
    command = about["hvParams"].get("xen_cmd") or "xl"
    return _ssh(about, [f"{TOOLS}/xen-console-wrapper", command, about["instance"]["name"]])


def _lxc(about: Mapping[str, Any]) -> dict[str, Any]:
    return _ssh(about, ["lxc-console", "-n", about["instance"]["name"]])


def _chroot(about: Mapping[str, Any]) -> dict[str, Any]:
    return _ssh(about, ["chroot", f"{CHROOTS}/{about['instance']['name']}"])


_KINDS: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "chroot": _chroot,
    "kvm": _kvm,
    "lxc": _lxc,
    "xen-hvm": _xen,
    "xen-pvm": _xen,
}
