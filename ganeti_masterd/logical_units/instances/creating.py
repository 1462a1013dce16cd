"""OP_INSTANCE_CREATE: an instance is made, or planned, or made as it was planned.

Texts are those of real daemon 3.0.2; where ours differs, docs/differences.rst says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ganeti_masterd.errors import JobQueueError, OpExecError, RemoteError
from ganeti_masterd.jobs.devices import Fate, NotedDevice
from ganeti_masterd.locking.levels import Level
from ganeti_masterd.logical_units.context import Context, JobKilled
from ganeti_masterd.logical_units.disks.activating import (
    current,
    mark_disks,
    shut_disks,
    start_disks,
)
from ganeti_masterd.logical_units.disks.making import create_disks
from ganeti_masterd.logical_units.disks.noting import instance_in_the_making
from ganeti_masterd.logical_units.disks.syncing import wait_for_sync, wipe_disks
from ganeti_masterd.logical_units.instances import adopting, importing, setting_up, untrusted
from ganeti_masterd.logical_units.instances.preparing import CheckedCreation
from ganeti_masterd.logical_units.instances.publishing import changes_between
from ganeti_masterd.logical_units.steps.undo import UndoStack
from ganeti_masterd.logical_units.steps.wording import size_text
from ganeti_masterd.opcodes.instances import InstanceCreate


class CreateInstance(CheckedCreation, runs=InstanceCreate):
    """Makes an instance; until its operating system is installed, all of it or nothing.

    The nodes are held exclusively, and shared as resources, until the disks are in the
    configuration: nobody waits for these to be wiped or synchronized.
    """

    #: What is noted of it while it isn't complete.
    _noted: NotedDevice | None = None

    def dry_result(self, ctx: Context) -> list[str]:
        """Returns the names of the nodes."""
        return self._names(ctx)

    def exec(self, ctx: Context) -> list[str]:
        """Makes it; returns the names of its nodes, the primary first."""
        with UndoStack(ctx) as undo:
            self._make(ctx, undo)
            self._publish(ctx, undo)
            if self.op.forthcoming:
                undo.keep()
                ctx.feedback("Instance is forthcoming; not creating the actual instance")
                return self._names(ctx)
            ctx.release(Level.NODE, self.source_nodes)
            if self.source_nodes:
                # Others may read the export, too, but nobody may take it away.
                ctx.downgrade(Level.NODE, self.source_nodes)
            ctx.release(Level.NODE_RES)
            in_sync = self._fill(ctx)
            before = self._import(ctx)
            # Another cluster removes what it has sent: nobody must take it away from here on.
            undo.keep()
        if before is not None:
            self._finish_import(ctx, before)
        if self.source_nodes:
            ctx.release(Level.NODE)
        self._set_up(ctx)
        self._start(ctx, in_sync)
        return self._names(ctx)

    def _names(self, ctx: Context) -> list[str]:
        snapshot = ctx.snapshot()
        return [snapshot.nodes[uuid].name for uuid in self.nodes]

    def _make(self, ctx: Context, undo: UndoStack) -> None:
        """Makes the devices, or gives those that are adopted their names."""
        instance, disks = self.whole.instance, self.whole.disks
        for index, disk in enumerate(disks):
            if not disk.template.internal:
                ctx.feedback(f"* disk {index}, size {size_text(disk.size)}")
        if self.op.forthcoming:
            ctx.feedback("Instance is forthcoming, not creating disks")
        elif self.adopts:
            adopting.rename_volumes(ctx, undo, instance, disks, self.wanted.disks)
        else:
            ctx.feedback("* creating instance disks...")
            try:
                self._noted = self._in_the_making(ctx)
                create_disks(ctx, undo, instance, disks, also=[self._noted])
            except JobKilled:
                raise
            except OpExecError:
                ctx.warning("Device creation failed")
                raise

    def _publish(self, ctx: Context, undo: UndoStack) -> None:
        """Adds the instance with all that it has to the configuration, in one transaction."""
        ctx.feedback(f"adding instance {self.name} to cluster config")
        ctx.feedback("adding disks to cluster config")
        cluster = ctx.snapshot().cluster
        undo.push(
            f"take instance {self.name} out of the configuration", lambda: self._take_back(ctx)
        )
        if self.planned is None:
            ctx.add_lock(Level.INSTANCE, self.name)
        ctx.change_all(changes_between(self.planned, self.whole, cluster))

    def _in_the_making(self, ctx: Context) -> NotedDevice:
        """Returns what is noted of the instance while it isn't complete."""
        instance, indices = self.whole.instance, range(len(self.whole.disks))
        if self.source is not None:
            found = [at for at in indices if self.source.image(at) is not None]
            return instance_in_the_making(ctx, instance, Fate.IMPORT, found)
        if self.sender is not None:
            return instance_in_the_making(ctx, instance, Fate.RECEIPT, indices)
        return instance_in_the_making(ctx, instance, Fate.CREATION)

    def _take_back(self, ctx: Context) -> None:
        """Makes the configuration as it was; what is there already is left."""
        there = ctx.snapshot().instances.get(self.uuid)
        if self._is_whole(there):
            ctx.change_all(changes_between(self.whole, self.planned, ctx.snapshot().cluster))
        if self.planned is None:
            ctx.remove_lock(Level.INSTANCE, self.name)

    def _fill(self, ctx: Context) -> bool:
        """Wipes the disks, writes the image, waits for mirrors; returns whether it waited.

        Raises ``OpExecError`` that says what failed.
        """
        instance, disks = current(ctx, self.whole.instance), self.whole.disks
        if self.adopts or not disks:
            return True
        if ctx.snapshot().cluster.prealloc_wipe_disks:
            ctx.feedback("* wiping instance disks...")
            with self._named(ctx, "Wiping"):
                wipe_disks(ctx, instance, [(index, disk, 0) for index, disk in enumerate(disks)])
        if self.wanted.image is not None and not self.imports:
            with self._named(ctx, "Imaging"):
                setting_up.image_disk(ctx, instance, disks[0], self.wanted.image)
        wait = self.op.wait_for_sync
        if not wait and self.wanted.template.internal:
            ctx.feedback("* checking mirrors status")
        try:
            good = wait_for_sync(ctx, instance, once=not wait)
        except RemoteError as error:
            raise OpExecError(f"Instance {self.name} is not made: {error.args[0]}")
        if not good:
            raise OpExecError(f"Instance {self.name} is not made: some of its disks are degraded")
        return wait or not self.wanted.template.internal

    def _import(self, ctx: Context) -> str | None:
        """Fills the disks from an export, or with what another cluster sends.

        Returns the name that the instance had there; None if it isn't imported.
        """
        instance, disks = current(ctx, self.whole.instance), self.whole.disks
        parameters = self.wanted.os_parameters
        with parameters.kept_from_errors():
            if self.source is not None:
                importing.import_disks(
                    ctx,
                    instance,
                    disks,
                    self.source,
                    compress=self.op.compress,
                    osparams=parameters.secret,
                )
                return self.source.document.name
            if self.sender is not None:
                importing.receive_disks(
                    ctx,
                    instance,
                    disks,
                    self.sender,
                    compress=self.op.compress,
                    shutdown_timeout=self.op.source_shutdown_timeout,
                    osparams=parameters.secret,
                )
                return self.sender.instance
        return None

    def _finish_import(self, ctx: Context, before: str) -> None:
        """Forgets that the disks were being filled, and runs the rename script.

        ``before`` is the name that the instance had.
        """
        if self._noted is not None:
            try:
                with ctx.shielded():
                    ctx.forget_devices([self._noted])
            except JobQueueError as error:
                ctx.warning(
                    f"Could not record that the disks of instance {self.name} are complete: "
                    f"{error.args[0]}",
                    "If the master daemon stops uncleanly before the job ends, the instance may "
                    f"be marked offline: 'gnt-instance modify --online {self.name}' makes it "
                    "usable",
                )
        instance = current(ctx, self.whole.instance)
        state = (
            "is in the cluster with all its data, marked to be down, and its rename script may "
            "not have run"
        )
        with setting_up.staying(ctx, instance, state):
            importing.run_rename_script(ctx, instance, before, debug=self.op.debug_level or 0)

    @contextmanager
    def _named(self, ctx: Context, doing: str) -> Iterator[None]:
        """Says in a warning and in the error what failed."""
        try:
            yield
        except JobKilled:
            raise
        except OpExecError as error:
            ctx.warning(f"{doing} instance disks failed ({error.args[0]})")
            raise OpExecError(
                f"Instance {self.name} is not made: {doing.lower()} its disks failed: "
                f"{error.args[0]}"
            )

    def _set_up(self, ctx: Context) -> None:
        """Installs the operating system, and tells the metadata daemon."""
        instance = current(ctx, self.whole.instance)
        parameters = self.wanted.os_parameters
        secret = parameters.secret
        state = "is in the cluster, marked to be down, and its operating system is not installed"
        with setting_up.staying(ctx, instance, state), parameters.kept_from_errors():
            if self.helper is not None:
                untrusted.install(
                    ctx,
                    instance,
                    self.helper,
                    secret,
                    reason=self.op.reason,
                    boots_in=self.op.helper_startup_timeout,
                    ends_in=self.op.helper_shutdown_timeout,
                )
            elif self.installs:
                mirrors = self.whole.disks if self.wanted.template.internal else ()
                setting_up.run_create_scripts(
                    ctx,
                    instance,
                    secret,
                    debug=self.op.debug_level or 0,
                    pause=() if self.op.wait_for_sync else mirrors,
                )
        state = "is in the cluster, marked to be down"
        with setting_up.staying(ctx, instance, state):
            setting_up.tell_metadata(ctx, instance, secret)

    def _start(self, ctx: Context, in_sync: bool) -> None:
        """Starts it; or shuts its disks down, unless they are still synchronizing."""
        instance = current(ctx, self.whole.instance)
        if self.starts:
            if self.adopts:
                with setting_up.staying(ctx, instance, "is in the cluster, marked to be down"):
                    start_disks(ctx, instance)
            setting_up.start_first(ctx, instance, self.op.reason)
        elif not self.whole.disks:
            return
        elif in_sync:
            with ctx.shielded():
                shut_disks(ctx, instance)
        else:
            with ctx.shielded():
                mark_disks(ctx, instance, active=True)
