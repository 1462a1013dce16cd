"""Constants of the protocol and the cluster, by their Ganeti names (3.0.2)."""

from __future__ import annotations

from typing import Final

# Versions
RELEASE_VERSION: Final = "3.0.2"
VCS_VERSION: Final = "(ganeti) version 3.0.2-3"
CONFIG_VERSION: Final = 3000000
CONFIG_VERSION_NEXT: Final = 3010000
PROTOCOL_VERSION: Final = 3000000
OS_API_VERSION: Final = 20
EXPORT_VERSION: Final = 0

# LUXI
LUXI_VERSION: Final = 3000000
LUXI_EOM: Final = b"\x03"
LUXI_SOCKET_PERMS: Final = 0o660
#: The socket of wconfd (real wconfd 3.0.2).
WCONFD_SOCKET_PERMS: Final = 0o600
LUXI_DEF_RWTO: Final = 180
LUXI_WFJC_TIMEOUT: Final = 89

# Exit codes
EXIT_SUCCESS: Final = 0
EXIT_FAILURE: Final = 1
EXIT_NOTMASTER: Final = 11
EXIT_NODESETUP_ERROR: Final = 12

# Status of opcodes and jobs
STATUS_QUEUED: Final = "queued"
STATUS_WAITING: Final = "waiting"
STATUS_CANCELING: Final = "canceling"
STATUS_RUNNING: Final = "running"
STATUS_CANCELED: Final = "canceled"
STATUS_SUCCESS: Final = "success"
STATUS_ERROR: Final = "error"
STATUSES_FINALIZED: Final = frozenset({STATUS_CANCELED, STATUS_SUCCESS, STATUS_ERROR})

# Priorities
OP_PRIO_LOWEST: Final = 19
OP_PRIO_LOW: Final = 10
OP_PRIO_NORMAL: Final = 0
OP_PRIO_HIGH: Final = -10
OP_PRIO_HIGHEST: Final = -20
OP_PRIO_SUBMIT_VALID: Final = frozenset({OP_PRIO_LOW, OP_PRIO_NORMAL, OP_PRIO_HIGH})

# The queue
JOB_QUEUE_FILES_PERMS: Final = 0o640
JOBS_PER_ARCHIVE_DIRECTORY: Final = 10000
JOB_NOTCHANGED: Final = "nochange"

# Locks
LOCK_ATTEMPTS_TIMEOUT: Final = 1800

# Instances
DEFAULT_SHUTDOWN_TIMEOUT: Final = 120
HELPER_VM_STARTUP: Final = 300
HELPER_VM_SHUTDOWN: Final = 7200
ZEROING_TIMEOUT_PER_MIB: Final = 0.05

# Log entries of opcodes
ELOG_MESSAGE: Final = "message"
ELOG_JQUEUE_TEST: Final = "jqueue-test"
ELOG_DELAY_TEST: Final = "delay-test"

# Tags
TAG_CLUSTER: Final = "cluster"
TAG_NODEGROUP: Final = "nodegroup"
TAG_NODE: Final = "node"
TAG_INSTANCE: Final = "instance"
TAG_NETWORK: Final = "network"
MAX_TAG_LEN: Final = 128
MAX_TAGS_PER_OBJ: Final = 4096

# Hooks
HOOKS_VERSION: Final = 2
HKR_FAIL: Final = 1
HOOKS_PHASE_PRE: Final = "pre"
HOOKS_PHASE_POST: Final = "post"
HOOKS_NAME_CFGUPDATE: Final = "config-update"
HOOKS_PATH: Final = "/sbin:/bin:/usr/sbin:/usr/bin"
HKR_SKIP: Final = 0
HKR_SUCCESS: Final = 2

# Operating systems
OS_API_V20: Final = 20

# Statuses of values in queries
RS_NORMAL: Final = 0
RS_UNKNOWN: Final = 1
RS_NODATA: Final = 2
RS_UNAVAIL: Final = 3
RS_OFFLINE: Final = 4

# Calls to nodes, seconds
RPC_TMO_URGENT: Final = 60.0
RPC_TMO_FAST: Final = 300.0
RPC_TMO_NORMAL: Final = 900.0
RPC_TMO_SLOW: Final = 3600.0
RPC_TMO_4HRS: Final = 14400.0
RPC_TMO_1DAY: Final = 86400.0
DEFAULT_NODED_PORT: Final = 1811
NODE_MAX_CLOCK_SKEW: Final = 150

# Disks: a local disk's status, sizes in MiB, ports
LDS_OKAY: Final = 1
LDS_SYNC: Final = 2
LDS_UNKNOWN: Final = 3
LDS_FAULTY: Final = 4
MIN_VG_SIZE: Final = 20480
LAST_DRBD_PORT: Final = 14999
CLASSIC_DRBD_SYNC_SPEED: Final = 61440
DRBD_META_SIZE: Final = 128
DISK_REMOVE_RETRY_INTERVAL: Final = 3
DISK_REMOVE_RETRY_TIMEOUT: Final = 30
PART_MARGIN: Final = 0.01
PART_RESERVED: Final = 0.02

# Migrations
HV_MIGRATION_ACTIVE: Final = "active"
HV_MIGRATION_COMPLETED: Final = "completed"
HV_MIGRATION_FAILED: Final = "failed"
HV_MIGRATION_CANCELLED: Final = "cancelled"
HV_KVM_MIGRATION_POSTCOPY_ACTIVE: Final = "postcopy-active"

# Imports and exports
DISK_TRANSFER_CONNECT_TIMEOUT: Final = 60
EXPORT_CONF_FILE: Final = "config.ini"
IEIO_FILE: Final = "file"
IEIO_RAW_DISK: Final = "raw"
IEIO_SCRIPT: Final = "script"
IEM_EXPORT: Final = "export"
IEM_IMPORT: Final = "import"
RIE_CONNECT_RETRIES: Final = 10
