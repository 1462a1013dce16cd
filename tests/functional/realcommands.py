"""Commands of Ganeti's own tools that say the same on the same cluster, whoever is its master.

Those that change something are followed by what undoes it.
"""

from __future__ import annotations

import re

from tests.functional.realcluster import RealCluster

#: What an opcode of the instances' needs; without, what it would be about.
INSTANCE = (
    "gnt-instance add --no-ip-check --no-name-check -t diskless -n node2 -o noop --no-nics"
    " instance1"
)

_NODE_FIELDS = "name,role,pip,sip,master_candidate,drained,offline,vm_capable,group,tags"

QUICK = [
    "gnt-cluster version",
    "gnt-cluster getmaster",
    "gnt-cluster info",
    "gnt-cluster add-tags red",
    "gnt-cluster search-tags r.d",
    "gnt-cluster remove-tags red",
    "gnt-cluster queue info",
    "gnt-node list",
    "gnt-node list -o name,role,bootid,cnodes,csockets,ctotal,pinst_list",
    "gnt-node info node2",
    "gnt-node modify -D yes node3",
    "gnt-node list -o name,role -F 'drained'",
    "gnt-node modify -D no node3",
    "gnt-node modify -C no node1",
    "gnt-instance list",
    "gnt-instance console --show-cmd instance1",
    "gnt-os diagnose",
    "gnt-job list 1 2 3",
    "gnt-job info 2",
    "gnt-debug delay -n node2 -n node3 0.1",
    "gnt-debug delay -n nosuch 0.1",
    "gnt-debug locks",
    "gnt-group info",
    "gnt-backup list",
]

#: The rest, of the same kind.
LONG = [
    "gnt-cluster list-tags",
    "gnt-cluster watcher info",
    "gnt-cluster watcher pause 1h",
    "gnt-cluster watcher continue",
    "gnt-cluster queue drain",
    "gnt-debug delay 0.1",
    "gnt-cluster queue undrain",
    "gnt-cluster verify-disks",
    "gnt-cluster redist-conf",
    "gnt-cluster repair-disk-sizes",
    "gnt-cluster command -n node2 true",
    f"gnt-node list -o {_NODE_FIELDS}",
    "gnt-node list -F 'name =~ m/^node[12]$/'",
    "gnt-node list -o name,nosuch",
    "gnt-node list -F '|('",
    "gnt-node list nosuch",
    "gnt-node info",
    "gnt-node info nosuch",
    "gnt-node add-tags node2 alpha beta",
    "gnt-node list-tags node2",
    "gnt-node remove-tags node2 alpha beta",
    "gnt-node remove-tags node2 alpha",
    "gnt-node add-tags node2 'bad tag!'",
    "gnt-node modify -O yes node3",
    "gnt-node list",
    "gnt-node list -v",
    "gnt-node modify -O no node3",
    "gnt-node list -o name,role,offline",
    "gnt-node modify -C yes node3",
    "gnt-node modify --vm-capable no node3",
    "gnt-node modify --vm-capable yes node3",
    "gnt-node modify node2",
    "gnt-node list-storage --storage-type file",
    "gnt-node volumes",
    "gnt-node health",
    "gnt-node power status",
    "gnt-node remove node1",
    "gnt-node add --no-ssh-key-check node2",
    "gnt-os list",
    "gnt-os info",
    "gnt-os info nosuch",
    "gnt-os modify --hidden=yes noop",
    "gnt-os list",
    "gnt-os modify --hidden=no noop",
    "gnt-storage diagnose",
    "gnt-job list -F 'status == \"error\" and id < 4'",
    "gnt-job list abc",
    "gnt-job list 999999",
    "gnt-job list -o id,nosuch 1",
    "gnt-job info 1",
    "gnt-job cancel 1",
    "gnt-job watch 2",
    "gnt-job change-priority --priority=high 1",
    "gnt-debug delay 0",
    "gnt-debug delay --no-master -n node1 -n node2 0.2",
    "gnt-debug delay -r 3 0.1",
    "gnt-debug delay --dry-run 0.1",
    "gnt-debug delay --priority=high 0.1",
    "gnt-debug delay --reason 'why not' 0.1",
    "gnt-debug delay abc",
    "gnt-debug delay -- -3",
    "gnt-debug locks -o name,mode,owner,pending",
    "gnt-group list",
    "gnt-group add extra",
    "gnt-group rename extra other",
    "gnt-group remove other",
    "gnt-network add --network=198.18.0.0/24 lab",
    "gnt-network list -o name,network,gateway,group_cnt,inst_cnt",
    "gnt-network remove lab",
    "gnt-filter list",
    "gnt-instance list -o name,pnode,status,admin_state,oper_state,oper_ram,be/memory,os",
    "gnt-instance list -F 'pnode == \"node2\"'",
    "gnt-instance list nosuch",
    "gnt-instance add-tags instance1 web",
    "gnt-instance list-tags instance1",
    "gnt-instance remove-tags instance1 web",
]

_ADD = "gnt-instance add --no-ip-check -o noop "

#: The life of two instances, from their creation to their removal.
LIFE = [
    f"{_ADD}-t file -n node2 --disk 0:size=16M --disk 1:size=8M,name=data "
    "--net 0:ip=192.0.2.150 -B memory=256 --tags red instance2",
    f"{_ADD}-t diskless -n node3 --no-nics --no-start instance3",
    f"{_ADD}-t file -n node2 -s 16M --no-nics instance2",
    f"{_ADD}-t diskless -n node2 -B memory=900G --no-nics instance5",
    f"{_ADD}-t diskless -n nosuch --no-nics instance5",
    "gnt-instance list -o name,status,pnode,disk_template,disk.sizes,nic.ips,be/maxmem,tags",
    "gnt-instance info instance2 instance3",
    "gnt-instance start instance3",
    "gnt-instance reboot instance2 instance3",
    "gnt-instance console --show-cmd instance2",
    "gnt-instance stop --timeout=0 instance2",
    "gnt-instance modify -B memory=128 instance2",
    "gnt-instance modify --net add:ip=192.0.2.151 instance2",
    "gnt-instance modify --net 1:remove instance2",
    "gnt-instance modify --disk add:size=8M instance2",
    "gnt-instance modify --disk 2:remove instance2",
    "gnt-instance grow-disk instance2 0 8M",
    "gnt-instance activate-disks instance2",
    "gnt-instance deactivate-disks instance2",
    "gnt-instance reinstall -f instance2",
    "gnt-instance rename -f --no-ip-check instance2 instance4",
    "gnt-instance start instance4",
    "gnt-instance recreate-disks instance4",
    "gnt-instance info instance4",
    "gnt-instance list",
    "gnt-cluster verify-disks",
    "gnt-node list -o name,pinst_list",
    "gnt-instance remove -f --shutdown-timeout=0 instance4",
    "gnt-instance remove -f --shutdown-timeout=0 instance3",
    "gnt-instance remove -f instance3",
    "gnt-instance list",
]

#: What differs from one moment to the next, and what is said in its place.
_MOMENTARY = [
    (r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "UUID"),
    (r"\b([0-9a-f]{2}:){5}[0-9a-f]{2}\b", "MAC"),
    # Not said, or only here (docs/differences.rst).
    (r"(?m)^.* - INFO: Waiting for instance .* to sync disks\n", ""),
    (r"(?m)^.* - INFO: Instance .*'s disks are in sync\n", ""),
    (r"(?m)^.* - INFO: Instance OS create scripts have finished after .*\n", ""),
    (r"(?m)^.* - INFO: Running instance OS rename script...\n", ""),
    (r"\b\w{3} \w{3} +\d+ \d\d:\d\d:\d\d \d{4}\b", "TIME"),
    (r"\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+|,\d+)?", "TIME"),
    (r"\b\d+(\.\d+)?[MGT]\b", "SIZE"),
    (r"\b(jobs?|JobID:?|Job) \d+(, \d+)*", r"\1 ID"),
    (r"(?i)(serial[ _]number): \d+", r"\1: N"),
    (r"\b(Modification time|mtime): .*", r"\1: TIME"),
    (r" +", " "),
    (r"-{3,}", "---"),
]

#: What the real daemons say in no certain order.
_UNORDERED = re.compile(r"gnt-cluster (info|verify)$|gnt-group info|gnt-node list-storage")


def outcome(cluster: RealCluster, command: str) -> tuple[str, int, list[str], list[str]]:
    """Returns the command, its exit code and what it printed, but for what is of the moment."""
    ran = cluster.run(command)
    return command, ran.code, _lines(command, ran.out), _lines(command, ran.err)


def _lines(command: str, text: str) -> list[str]:
    for pattern, instead in _MOMENTARY:
        text = re.sub(pattern, instead, text)
    lines = [line.rstrip() for line in text.splitlines()]
    if not _UNORDERED.search(command):
        return lines
    return sorted(line.lstrip(" -") for line in lines)  # the first of a list has a dash
