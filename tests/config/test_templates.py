"""The table of disk templates, compared with opcodes and parameters."""

from typing import get_args

from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.config.defaults import DISKPARAMS
from ganeti_masterd.config.objects import Cluster, Disk
from ganeti_masterd.config.templates import TEMPLATES, named_by, summary_name, template_named
from ganeti_masterd.opcodes.types import DiskTemplateName, StorageType


class TemplatesTests(SynchronousTestCase):
    """One entry for each template that Ganeti has."""

    def test_complete(self) -> None:
        """Opcodes, disk parameters and the table know the same templates."""
        self.assertEqual(set(TEMPLATES), set(get_args(DiskTemplateName)))
        self.assertEqual(set(TEMPLATES), set(DISKPARAMS))

    def test_storage(self) -> None:
        """Each template's storage type is one that node daemons know."""
        self.assertLessEqual({t.storage for t in TEMPLATES.values()}, set(get_args(StorageType)))

    def test_directories(self) -> None:
        """The directories that it names are cluster parameters."""
        named = {t.directory for t in TEMPLATES.values()} - {None}
        self.assertLessEqual(named, set(Cluster.__struct_fields__))

    def test_access(self) -> None:
        """``access`` is true for exactly the templates that have the parameter."""
        with_access = {name for name, params in DISKPARAMS.items() if "access" in params}
        self.assertEqual(named_by(lambda template: template.access), with_access)

    def test_sets(self) -> None:
        """The sets of templates with each property are those of 3.0.2."""
        self.assertEqual(named_by(lambda t: t.lvm), {"plain", "drbd"})
        self.assertEqual(named_by(lambda t: t.internal), {"drbd"})
        self.assertEqual(
            named_by(lambda t: t.external),
            {"blockdev", "diskless", "ext", "gluster", "rbd", "sharedfile"},
        )
        self.assertEqual(named_by(lambda t: not t.mirrored), {"plain", "file"})
        self.assertEqual(named_by(lambda t: t.copies), {"plain", "file"})
        self.assertEqual(named_by(lambda t: t.snapshots), {"plain", "drbd", "ext"})
        self.assertEqual(named_by(lambda t: t.adopts), {"plain", "blockdev"})
        self.assertEqual(named_by(lambda t: not t.grows), {"blockdev", "diskless"})
        self.assertEqual(named_by(lambda t: not t.converts_to), {"blockdev", "diskless"})
        self.assertEqual(named_by(lambda t: not t.converts_from), {"diskless"})

    def test_room(self) -> None:
        """DRBD also takes space for metadata; adopted devices take none."""
        self.assertEqual(template_named("drbd").room(1000), 1128)
        self.assertEqual(template_named("plain").room(1000), 1000)
        self.assertEqual(template_named("blockdev").room(1000), 0)

    def test_unknown(self) -> None:
        """An unknown template has no features, but the space of its disks is counted."""
        found = template_named("drbd8")
        self.assertEqual((found.name, found.storage), ("drbd8", "drbd8"))
        self.assertFalse(found.mirrored or found.lvm or found.grows or found.converts_to)
        self.assertEqual(found.room(10), 10)

    def test_summary(self) -> None:
        """An instance's template is that of its disks."""
        self.assertEqual(summary_name([]), "diskless")
        self.assertEqual(summary_name(["plain", "plain"]), "plain")
        self.assertEqual(summary_name(["plain", "drbd"]), "mixed")


class DisksTests(SynchronousTestCase):
    """Properties of a disk that depend on its template."""

    def test_volume(self) -> None:
        """Only a disk that is itself a logical volume has one."""
        data = Disk(uuid="a", dev_type="plain", size=1, logical_id=("vg", "lv"))
        mirror = Disk(
            uuid="b",
            dev_type="drbd",
            size=1,
            logical_id=("n1", "n2", 11000, 0, 1, "s"),
            children=(data,),
        )
        file = Disk(uuid="c", dev_type="file", size=1, logical_id=("loop", "/path"))
        self.assertEqual([d.volume for d in (data, mirror, file)], ["vg/lv", None, None])
        self.assertIsNone(Disk(uuid="d", dev_type="plain", size=1).volume)
        self.assertEqual(mirror.all_nodes(), ("n1", "n2"))
