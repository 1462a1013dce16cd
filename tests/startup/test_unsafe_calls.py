"""No code that may run as root, or in a folder of others, opens or changes files by their paths."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import ganeti_masterd

PACKAGE = Path(ganeti_masterd.__file__).parent

#: Functions of ``os`` that follow links in a path, unless they get a folder's descriptor.
BY_PATH = {
    *("chmod", "chown", "lchown", "link", "makedirs", "mkdir", "mkfifo", "open", "rename"),
    *("removedirs", "renames", "replace", "symlink", "truncate", "utime", "walk"),
}
FOLDER_OPTIONS = {"dir_fd", "src_dir_fd", "dst_dir_fd"}
#: Methods of ``pathlib.Path`` that write.
OF_PATHS = {"touch", "write_bytes", "write_text"}

#: What may stay, by module and call, and why.
ALLOWED = {
    ("startup/installation.py", "os.open"): "only looks, as the daemon's account",
    ("startup/rehearsal.py", "shutil.copytree"): "copies plain files out, into a folder of its own",
    ("startup/rehearsal.py", "shutil.copy"): "copies plain files out, into a folder of its own",
    ("startup/rehearsal.py", "os.makedirs"): "in a new temporary folder",
    ("cli/daemon.py", "open"): "the demo's log, in the user's own folder",
    ("cli/demo.py", "os.makedirs"): "the demo's root, of the user's own",
    ("cli/demo.py", "os.mkdir"): "the demo's root, of the user's own",
    ("cli/demo.py", "shutil.rmtree"): "the demo's root, of the user's own",
    ("cli/command.py", "os.open"): "the null device",
}


def unsafe(source: str) -> Iterator[str]:
    """Yields the names of the calls in a module that go by a path."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        given = {keyword.arg for keyword in node.keywords}
        whose, _, function = name.rpartition(".")
        if whose == "os" and function in BY_PATH:
            if not given & FOLDER_OPTIONS:
                yield name
        elif whose == "shutil" or (whose and function in OF_PATHS):
            yield name
        elif name == "open":
            mode = next((each.value for each in node.keywords if each.arg == "mode"), None)
            mode = node.args[1] if len(node.args) > 1 else mode
            plain = isinstance(node.args[0], ast.Name) and node.args[0].id == "descriptor"
            text = mode.value if isinstance(mode, ast.Constant) else "r" if mode is None else "w"
            if not plain and set(str(text)) & set("wax+"):
                yield name


class UnsafeCallTests(SynchronousTestCase):
    """The packages in which root may be at work."""

    def test_none_comes_back(self) -> None:
        """Every call by path in startup, cli and failover is on the list, and none is in vain."""
        found = {
            (f"{folder}/{path.name}", name)
            for folder in ("startup", "cli", "failover")
            for path in (PACKAGE / folder).glob("*.py")
            for name in unsafe(path.read_text("utf-8"))
        }
        self.assertEqual(found - set(ALLOWED), set(), "use ganeti_masterd.safely")
        self.assertEqual(set(ALLOWED) - found, set(), "no longer there")

    def test_scan(self) -> None:
        """The scan tells calls by path from those by descriptor."""
        for source, names in (
            ("os.chmod(path, 0o600)", ["os.chmod"]),
            ("os.chmod('q', 0o600, dir_fd=folder)", []),
            ("os.fchmod(descriptor, 0o600)", []),
            ("open(path)", []),
            ("open(path, 'rb')", []),
            ("open(path, 'w')", ["open"]),
            ("open(path, mode='ab')", ["open"]),
            ("open(path, mode)", ["open"]),
            ("open(descriptor, 'a')", []),
            ("Path(path).write_text(text)", ["Path(path).write_text"]),
            ("shutil.rmtree(path)", ["shutil.rmtree"]),
        ):
            self.assertEqual(list(unsafe(source)), names, source)
