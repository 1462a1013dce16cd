"""Every line that the daemon may log: found in the code, explained here.

A line's kind is its text before values are put in, as ``log.info("...")`` has it
and as ``--json-log`` writes it. ``tests/test_docs.py`` holds that each kind in
the code is explained and that nothing else is.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

PACKAGE = Path(__file__).resolve().parents[1] / "ganeti_masterd"

#: Methods of a logger that log at the level of their name; ``failure`` adds a traceback.
_LEVELS = ("debug", "info", "warn", "error", "critical", "failure")


class LogLine(Struct, frozen=True, order=True):
    """A kind of line: the module that logs it, its level, its text."""

    module: str
    level: str
    text: str


def log_lines(package: Path = PACKAGE) -> list[LogLine]:
    """Returns every kind of line, by module.

    Raises ``ValueError`` for a line whose text isn't written where it is logged.
    """
    found: set[LogLine] = set()
    for path in package.rglob("*.py"):
        module = ".".join(path.relative_to(package.parent).with_suffix("").parts)
        for level, text in _calls(ast.parse(path.read_text(encoding="utf-8")), module):
            found.add(LogLine(module, level, text))
    return sorted(found)


def _calls(tree: ast.Module, module: str) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        match node.func:
            case ast.Attribute(value=ast.Name(id="log"), attr=level) if level in _LEVELS:
                yield "critical" if level == "failure" else level, _text(node, 0, module)
            case ast.Attribute(value=ast.Name(id="log"), attr="emit"):
                yield "any", _text(node, 1, module)
            case _:
                continue


def _text(call: ast.Call, position: int, module: str) -> str:
    match call.args[position]:
        case ast.Constant(value=str(text)):
            return text
    raise ValueError(f"{module}, line {call.lineno}: a log line without a text of its own")


#: What each kind means, and what to do where something is to be done.
MEANINGS = {
    # start and stop
    "Master daemon of cluster {cluster} is up on {path}: {jobs} jobs, {nodes} nodes, "
    "{seconds:.2f} s": "It serves clients. The jobs are those in the queue, ended ones too.",
    "{text}": "What the start had to say: how the vote ended, and whether the master's address is "
    "up.",
    "The daemon can't start: {message}": "The start ends with exit code 1, for this reason.",
    "The daemon can't start: {error}": "As above, when it was up already: its jobs could not be "
    "recorded, or the monitoring endpoint not be opened.",
    "A part of the daemon can't be started": "A fault of the daemon; the start ends with exit "
    "code 1.",
    "The configuration could not be checked": "A fault of the daemon: the metric of the "
    "configuration's faults is missing until the next check, a minute later.",
    "Nodes could not be asked what they have": "A fault of the daemon: the metrics of "
    "``--monitoring-nodes`` are missing until the next round.",
    "The configuration has a fault: {fault}": "config.data contradicts itself. The daemon works "
    "with it; mend what it names.",
    "This process may open {hard} files at most (RLIMIT_NOFILE, LimitNOFILE= of the unit), and "
    "--max-connections={asked} needs {wanted}: each socket takes {places} clients": "Raise the "
    "limit, or lower the option.",
    "The process for job files did not answer for {seconds} s and was killed; the daemon writes "
    "them itself for now": "It was stopped (SIGSTOP), or its disk hangs. Nothing is lost; another "
    "is started after a while.",
    "Monitoring is on {name}": "The endpoint of --monitoring answers.",
    "Received {signal}": "SIGTERM or SIGINT: the daemon is to stop.",
    "The log file was opened again": "SIGHUP, after a rotation.",
    "The log file can't be opened again: {error}": "The log goes on in the old file. Mend the "
    "folder and send SIGHUP again.",
    "The socket {path} was gone: it is there again": "Someone removed the socket's file, or put "
    "something else in its place.",
    "The socket {path} can't be made again: {error}": "Someone removed the socket's file. Mend its "
    "folder: the daemon tries again every 5 seconds.",
    "The master daemon stops": "No further job starts, and no new one is taken.",
    "Waiting for {jobs} running jobs to end": "Each 5 seconds while it stops and jobs still run.",
    "No job runs any more; {clients} clients have {seconds:g} s to collect results": "The stop "
    "goes on by itself.",
    "Asked to stop once more: it stops at once": "A second signal. Running jobs end in error.",
    "Giving up {jobs} running jobs": "After a second signal or --stop-timeout; they end in error.",
    "Jobs whose thread is stuck: {ids}": "These did not notice in time that they are given up. "
    "They are recorded as after a crash.",
    "Not every part could be ended in order": "A fault of the daemon. What was acknowledged is in "
    "the journal; start it again.",
    "At the stop, {part} could not be ended in order": "A fault of the daemon. All other parts "
    "were ended.",
    "A socket could not be closed": "A fault of the daemon, while it stops.",
    "The last steps hang: the process ends without them": "As above; a disk may not answer.",
    "The master daemon has stopped": "The last line of a stop in order.",
    "{error}": "While it stops: the files could not be brought up to date. The journal keeps the "
    "rest for the next start.",
    # for wconfd's socket alone
    "The configuration of cluster {cluster} can be changed by tools on {path}; no jobs run": "A "
    "tool of Ganeti's has had it started for wconfd's socket alone.",
    "A journal from a time when this node was the master is now {path}": "This node becomes the "
    "master again. What that journal holds never reached the masters since.",
    "A node wasn't told of the change: {fault}": "The change is in the file here. The master "
    "daemon brings the node up to date once it answers.",
    "{node} has changed the configuration until it was stopped: that is kept": "The old master "
    "went on until the fail-over stopped it. This node goes on with its last configuration.",
    "The daemon for wconfd's socket has stopped": "The last line of its stop in order.",
    # clients
    "{client} has died and left the configuration locked: it is free again": "A tool was killed. "
    "What it had not written is not changed.",
    "The configuration was locked by {holders} while {count} changes waited for it: "
    "the lock is taken back": "A tool hangs, or is very slow. It is told so when it writes, and "
    "nothing of it is written: run it again.",
    "{method} from connection {peer.connection}, uid {peer.uid}, pid {peer.pid}": "A client asked "
    "for a change. uid and pid are the client's own, as the kernel has them.",
    "LUXI protocol error of connection {peer.connection} (pid {peer.pid}, uid {peer.uid}): "
    "{error}": "What a client sent is no request. It was told so and disconnected.",
    "Answering connection {connection} failed": "A fault of the daemon. The client has an error "
    "for an answer; the daemon goes on.",
    "Connection {number} gave up badly": "A fault of the daemon, as it closed a connection.",
    "What an opcode waits for can't be cancelled": "A fault of the daemon, while it stops.",
    "An answer could not be cancelled": "A fault of the daemon, after a client went away.",
    "Request {method} on connection {peer.connection} (uid {peer.uid}, pid {peer.pid}): {how} "
    "after {took:.4f} s": "With --debug: each request.",
    "Monitoring: {method} {uri} {code}": "With --debug: each page asked for, and its HTTP status.",
    "Nodes could not be asked for the live page: {reason}": "The page says so too; they are asked "
    "again within a minute, while someone looks.",
    "A password could not be checked": "The request was answered with 500. The traceback says why, "
    "such as a lack of memory.",
    # jobs
    "Job {event.job_id}: {before} -> {event.after}": "With --debug: each step of a job.",
    "Job {job} was {before} when the daemon stopped, it is {after} now": "A start after a stop: "
    "what waited is queued again, what ran ends in error.",
    "The history of the configuration can't be read ({error}): it is kept as {path}, and another "
    "one begins": "The file of versions is damaged, or another cluster's. The configuration itself "
    "is not concerned.",
    "The configuration's changes aren't recorded: {fault}": "The file of versions can't be "
    "written. Once it can, what changed meanwhile is one version without an author.",
    "The history of the configuration could not be written": "As above, by a fault of the daemon.",
    "The history of the configuration can be written again": "The trouble above is over.",
    "A backup was not fetched to its end, and is forgotten": "`gnt-luxi backup` ended early ten "
    "minutes ago.",
    "The queue is {state}": "A client set or removed the drain flag.",
    "{path} holds no time ({error}); the watcher is not paused": "Someone else wrote the watcher's "
    "pause file. `gnt-cluster watcher continue` removes it.",
    "Job {job_id} can't be read: {error}": "An archived job's file is damaged; it is left as it "
    "is.",
    "{path} holds {text!r}, not a number; it is not relied upon": "The serial file is damaged. Ids "
    "go on above every id that was ever seen.",
    "Job file {job_id} can't be understood ({fault}); it is kept as {target}": "A damaged job file "
    "was moved out of the queue. Its job is lost; the file is for whoever looks into it.",
    "{path} has the name of a job's file and is none; it is left alone": "A folder, a pipe or a "
    "link that leads nowhere. Its number isn't given to a job.",
    "Filter rule {uuid} makes no sense and decides nothing: {fault}": "A rule that another daemon "
    "made. `gnt-filter delete` or `replace` it.",
    "Filter rule {rule} rejects job {job}": "The job is cancelled.",
    "The end of job {job} is decided anew after a restart: {error}": "The journal did not take the "
    "end of a job that was rejected or whose dependency failed.",
    "Job {job}: its wait could not be shown: {error}": "The journal did not take what came before "
    "it. The job goes on, unless its submission was refused.",
    "{what} job {job} can't be recorded, trying again in {retry} s: {error}": "The journal can't "
    "be written: see the line that says why. Where it is the end of the job, its locks are free.",
    "Some jobs of a submission could not be made": "A fault of the daemon. The client is told "
    "which jobs of its request are not there.",
    "The start of job {job} can't be recorded, it waits {pause} s: {error}": "As above. A job runs "
    "only once that is durable.",
    "A log line of job {job} is lost: {error}": "As above.",
    "Opcode {index} of job {job} failed in an unforeseen way": "A fault of the daemon, in the "
    "opcode. The job ends in error.",
    "Opcode {index} of job {job} could not be begun": "As above, before it ran.",
    "{device} of job {job} is in use": "After a crash: a disk has this device, "
    "which the job had noted. It is left alone.",
    "Job {job} ends: {text}": "A job that was cut off by a crash ends: what it left "
    "on nodes was cleared away, or is named.",
    "The end of job {job} is recorded at the next start": "The daemon stops before this "
    "job, which a crash had cut off, could be ended.",
    "What job {job} left on nodes can't be cleared away": "A fault of the daemon. The job's result "
    "names what it may have left after a crash, with the commands that remove it.",
    "Job {job} is stuck": "A fault of the daemon: the job can't go on. It ends in error at the "
    "next start.",
    "A thread for opcodes can't be made: {error}": "The system lets this process have no more "
    "threads: jobs share those that there are. See ``ulimit -u`` and ``TasksMax``.",
    "The end of a call in an opcode's thread can't be told": "A fault of the daemon: the job is "
    "stuck.",
    "The new priority of job {job} was lost": "A fault of the daemon; the job waits on with the "
    "priority that it had.",
    # journal and files
    "The journal holds {rows} rows: the files take them": "A start after a crash.",
    "Job {job_id} has log lines but no file: they are dropped": "A start after a crash: the job's "
    "file was removed by someone else.",
    "Log lines don't fit into the file of job {job_id}: they are dropped": "A start after a crash: "
    "the job's file was changed by someone else. It stays as it is.",
    "{path} can't be removed ({error}); it is left alone": "A folder with the name of a file that "
    "a crash left half written.",
    "{place} is damaged: whether the journal {path} lost its end is not known": "A start. Damage "
    "to the end of SQLite's log would not be noticed this time.",
    "The journal's mark {path} can't be written: {error}": "Changes are taken all the same. After "
    "a crash, damage to the end of SQLite's log may not be noticed.",
    "The journal's mark {path} can't be synced: {error}": "As above, while the daemon stops.",
    "The files are written without the journal: {error}": "A file of the journal was taken away: "
    "what was acknowledged before goes into Ganeti's files.",
    "The disk does not answer: {hang}": "A write or a sync takes suspiciously long. Nothing is "
    "acknowledged until it ends; see :ref:`hanging-disk`.",
    "The disk answers again: {doing} took {seconds} s": "What hung has ended.",
    "The disk does not answer, the daemon stops without that: {hang}": "The stop waits no longer "
    "for a disk that has hung for a minute: jobs that run are given up, then the process ends.",
    "Commits fail: {fault}": "The journal can't be written: the disk is full or out of order. "
    "Changes are refused until it can. Once for each reason.",
    "The journal can be written again": "The end of the above.",
    "The journal could not take a batch": "A fault of the daemon; the changes were refused.",
    "What publishes a commit failed: {function}": "A fault of the daemon. The change is durable.",
    "The next round of the files can't be planned": "A fault of the daemon. The change is durable, "
    "and the files follow after the next one.",
    "What follows a change of jobs failed: {function}": "A fault of the daemon. What was committed "
    "is durable.",
    "The last job id is not known: serial stays as it is": "A fault of the daemon while it stops. "
    "Ids go on above those reserved.",
    "The files are not complete, {fault}": "While it stops: the journal keeps what the files "
    "lack, for the next start.",
    "The journal's store could not be closed": "While it stops. What was acknowledged is in it.",
    "The files can't follow the journal, which holds {rows} rows: {fault}": "The disk takes the "
    "journal but not Ganeti's files. Nothing is lost; when too many rows wait, submissions are "
    "refused. Once for each reason.",
    "The files follow the journal again": "The end of the above.",
    "No process for job files can be had, the daemon writes them itself: {error}": "The system "
    "lets this process start no other. Nothing is lost, a loaded daemon is slower. Once for each "
    "reason.",
    "The process for job files ended with {code}; the daemon writes them itself for now": "It was "
    "killed, or failed. Nothing is lost; the next large round starts another, after a minute if "
    "this one never did anything: then see whether the daemon's user may read the installation.",
    "The configuration can't be had for config.data": "A fault of the daemon; it tries again.",
    # nodes
    "What job {job} waited for as it was killed came late: {result}": "With --debug: an answer "
    "that a killed job doesn't get any more.",
    "Call {call} of job {job} to node {node} failed: {error}": "Hooks after a change of the "
    "configuration, for which a killed job didn't wait.",
    "Call {call} of job {job} failed on this side": "A fault of the daemon; nobody waited for it.",
    "Node {node} answers {call} when nobody waits for it any more": "With --debug: a simulated "
    "node's late answer; the job was killed, or the call's time is over.",
    "Call {event.procedure} to {event.node} took {event.seconds:.4f} s: {how}": "With --debug: "
    "each call to a node daemon.",
    "Call {call} to node {node} could not be sent, or its answer not read: {kind}": "A fault of "
    "the daemon, or an answer that no noded gives. The call counts as failed.",
    "Call {procedure} to node {node} failed on this side": "A fault of the daemon. The call counts "
    "as failed, and is tried again.",
    "What node {node} answered could not be noted": "A fault of the daemon.",
    "Node {node} holds the queue and the configuration{again}": "A master candidate is up to date.",
    "A flush of the configuration no longer waits for nodes {nodes}": "Candidates took too long, "
    "and the command that asked for it went on. They get the files; see their load.",
    "Node {node} is slow: {count} files behind; jobs no longer wait for it": "A candidate takes "
    "files later than jobs come. It gets them; see its load.",
    "Node {node} does not get the queue and the configuration any more: {fault} (call "
    "{procedure}); it is out of date until that is over": "Until the line that it holds them "
    "again, don't fail over to it.",
    "Node {node} holds job {job}, which nobody knows here: it goes to its archive": "Left by an "
    "earlier master.",
    "Node {node} got {count} files late from a daemon that ended before this one began: they are "
    "put right": "Nothing to do.",
    "Node {node} can't be sent anything": "A fault of the daemon; it tries again.",
    "Node {node} is {count} files behind as the daemon stops": "It is brought up to date by the "
    "next start; until then don't fail over to it.",
    "Jobs wait for a majority of the master candidates (--ack=majority)": "Too few can be "
    "reached: bring them up, or take them out of the candidates.",
    "Node {node} did not take {procedure}, which is tried again: {error}": "ssconf or the "
    "watcher's pause did not reach it.",
    "Node {node} takes {procedure} again": "The end of the above.",
    "Node {node} can't tell of {what}: {error}": "Asked for its disks, for a verification.",
    # simulated nodes
    "Bug in the simulation of {call} on {node}": "A simulated node's own code failed: the caller"
    " gets an error that names the bug, and no node is to blame.",
    "Must never be: {what}": "With --simulate: an instance runs twice, or a mirror is primary at "
    "both ends. A fault of the daemon, unless somebody insisted.",
    "Bug in the switch {command}": "A command that disturbs simulated nodes failed by a fault of"
    " its own; whoever sent it is told so.",
    "Switch of the simulation: {command}": "A command for simulated nodes was carried out.",
    "{count} faults from {path}": "With --simulate: the rules of faults.json hold now.",
    "The faults can't be read: {error}": "With --simulate: the rules stay as they were.",
    "The faults in {path} make no sense: {error}": "With --simulate: the rules stay as they were.",
    "Simulated nodes can't be written: {error}": "With --simulate: the disk doesn't take their "
    "state; it is tried again.",
    "A simulated node's answer can't be given": "With --simulate: a fault of the daemon.",
    # the rest
    "{observer} failed, called for {what}": "A fault of the daemon. After a commit that failed, "
    "restart it: what is durable is right, what is in memory may not be. Otherwise nothing else "
    "suffers.",
    "A delayed call failed: {function}": "A fault of the daemon. Nothing else suffers.",
    "A call from another thread failed: {function}": "A fault of the daemon. Nothing else suffers.",
}
