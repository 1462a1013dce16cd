"""Rules for the whole package: plugin, scripts, imports, docstrings, names."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from unittest import TestCase

from twisted.application.service import IServiceMaker
from twisted.plugin import getPlugins
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

PROJECT = Path(__file__).resolve().parents[1]
PACKAGE = PROJECT / "ganeti_masterd"

#: Functions that make type variables, which aren't types themselves.
TYPE_VARIABLES = frozenset({"TypeVar", "ParamSpec"})


#: Tests that may sleep, and why; all others wait for something (tests/functional/waiting.py).
SLEEPERS = {
    "tests/functional/crashing.py": "a kill strikes at a random moment",
    "tests/functional/day.py": "a day lasts so long",
    "tests/functional/instance_kills.py": "looks for the next write all the time",
    "tests/functional/mixing.py": "the pace of a load",
    "tests/functional/waiting.py": "looks again after a while",
    "tests/simulation/test_contract.py": "the node daemon of others may not start at all",
    "tests/soak/test_failover.py": "so long a load lasts",
    "tests/soak/test_memory.py": "the pace of a load",
}

#: Imports every module in a new process and prints the side effects.
IMPORT_ALL = """
import json, pkgutil, sys, threading
from importlib import import_module
import ganeti_masterd

names = ["ganeti_masterd"] + [
    module.name
    for module in pkgutil.walk_packages(ganeti_masterd.__path__, "ganeti_masterd.")
    if not module.name.endswith("__main__")
]
reactors = []
for name in names:
    import_module(name)
    if not reactors and "twisted.internet.reactor" in sys.modules:
        reactors.append(name)
print(json.dumps({"names": names, "reactors": reactors, "threads": threading.active_count()}))
"""


def modules(*folders: Path) -> Iterator[Path]:
    """Yields every Python file below the folders, the package by default."""
    for folder in folders or (PACKAGE,):
        yield from sorted(folder.rglob("*.py"))


def names(paths: list[Path]) -> list[str]:
    """Returns the paths in the form for failure messages."""
    return [str(path.relative_to(PROJECT)) for path in paths]


def run_on_import(node: ast.AST) -> Iterator[ast.AST]:
    """Yields the nodes that run when a module is imported: all except functions' bodies."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        yield child
        yield from run_on_import(child)


def imports_reactor(node: ast.AST) -> bool:
    """Whether the node imports the global reactor."""
    match node:
        case ast.Import(names=aliases):
            return any(alias.name == "twisted.internet.reactor" for alias in aliases)
        case ast.ImportFrom(module="twisted.internet", names=aliases):
            return any(alias.name == "reactor" for alias in aliases)
        case ast.ImportFrom(module="twisted.internet.reactor"):
            return True
    return False


#: Names, by their last parts, that can fail a test besides unittest's assertions.
ASSERTING = frozenset(
    {
        "fail",
        "failureResultOf",
        "successResultOf",
        "raises",
        "run_state_machine_as_test",
        "verifyClass",
        "verifyObject",
    }
)


def called_in(function: ast.AST) -> set[str]:
    """Returns the last parts of the names that a function calls; "assert" for the statement."""
    found = set()
    for node in ast.walk(function):
        match node:
            case ast.Assert():
                found.add("assert")
            case ast.Call(func=ast.Attribute(attr=name) | ast.Name(id=name)):
                found.add(name)
    return found


def asserts_nothing(texts: Iterable[str]) -> list[str]:
    """Returns the names of the tests in modules' texts that assert nothing.

    The functions of these modules that they call, directly or not, assert nothing either.
    Functions are matched by name alone, so one without assertions may be missed if another
    function has the same name.
    """
    functions: dict[str, set[str]] = {}
    tests: list[tuple[str, set[str]]] = []
    for text in texts:
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                called = called_in(node)
                functions.setdefault(node.name, set()).update(called)
                if node.name.startswith("test"):
                    tests.append((f"{node.name}, line {node.lineno}", called))
    asserting = {
        name
        for called in functions.values()
        for name in called
        if name.startswith("assert") or name in ASSERTING
    }
    while more := {
        name for name, called in functions.items() if name not in asserting and called & asserting
    }:
        asserting |= more
    return [name for name, called in tests if not called & asserting]


class PluginTests(SynchronousTestCase):
    """The plugin and the scripts."""

    def test_twistd_finds_the_plugin(self) -> None:
        """Twistd lists exactly one gnt-masterd, with options that it can show."""
        found = [each for each in getPlugins(IServiceMaker) if each.tapname == "gnt-masterd"]
        self.assertEqual(len(found), 1)
        verifyObject(IServiceMaker, found[0])
        self.assertTrue(found[0].description)
        self.assertIn("simulate", found[0].options().getUsage())

    def test_plugin_folder_is_no_package(self) -> None:
        """An ``__init__.py`` there would hide twisted's own plugins."""
        self.assertEqual(list((PROJECT / "twisted").rglob("__init__.py")), [])

    def test_scripts_can_be_imported(self) -> None:
        """Each console script names a callable that exists."""
        with (PROJECT / "pyproject.toml").open("rb") as file:
            scripts = tomllib.load(file)["project"]["scripts"]
        for target in scripts.values():
            module, _, attribute = target.partition(":")
            self.assertTrue(callable(getattr(import_module(module), attribute)), target)


def public_names(tree: ast.Module) -> Iterator[str]:
    """Yields the public classes and aliases of types that a module defines."""
    for node in tree.body:
        match node:
            case ast.ClassDef(name=name):
                pass
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=value)
                | ast.AnnAssign(target=ast.Name(id=name), value=value)
            ):
                if isinstance(value, ast.Call) and ast.unparse(value.func) in TYPE_VARIABLES:
                    continue
            case _:
                continue
        if name[0].isupper() and not name.isupper():
            yield name


def sleeps(tree: ast.Module) -> bool:
    """Whether code may sleep, by ``time.sleep`` under whatever name."""
    return any(
        (isinstance(node, ast.Attribute) and ast.unparse(node) == "time.sleep")
        or (
            isinstance(node, ast.ImportFrom)
            and node.module == "time"
            and "sleep" in {alias.name for alias in node.names}
        )
        for node in ast.walk(tree)
    )


class ModuleTests(SynchronousTestCase):
    """Rules for every module."""

    def test_docstrings(self) -> None:
        """Every module has a docstring, including those of tests and tools."""
        folders = [PACKAGE, *(PROJECT / each for each in ("bench", "tests", "tools", "twisted"))]
        silent = [
            path
            for path in modules(*folders)
            if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        ]
        self.assertEqual(names(silent), [])

    def test_packages(self) -> None:
        """Every folder with modules is a package, so that the wheel has it."""
        bare = {path.parent for path in modules() if not (path.parent / "__init__.py").exists()}
        self.assertEqual(names(sorted(bare)), [])

    def test_no_reactor_at_the_top(self) -> None:
        """No module imports the reactor while it is itself imported."""
        found = [
            path
            for path in modules()
            if any(map(imports_reactor, run_on_import(ast.parse(path.read_text("utf-8")))))
        ]
        self.assertEqual(names(found), [])

    def test_reactor_imports_are_seen(self) -> None:
        """The check above finds each way to write the import, and allows it in functions."""
        for text, expected in [
            ("from twisted.internet import defer, reactor", True),
            ("import twisted.internet.reactor", True),
            ("from twisted.internet.reactor import callLater", True),
            ("if True:\n    from twisted.internet import reactor", True),
            ("class A:\n    from twisted.internet import reactor", True),
            ("def run():\n    from twisted.internet import reactor", False),
            ("from twisted.internet import defer", False),
        ]:
            seen = any(map(imports_reactor, run_on_import(ast.parse(text))))
            self.assertEqual(seen, expected, text)

    def test_tests_assert(self) -> None:
        """Every test asserts something, itself or in a function that it calls."""
        texts = [path.read_text("utf-8") for path in modules(PROJECT / "tests")]
        self.assertEqual(asserts_nothing(texts), [])

    def test_tests_that_assert_nothing_are_seen(self) -> None:
        """The check above finds each way to assert, also in a helper of another module."""
        helpers = (
            "def refused(self):\n    self.assertRaises(E, run)\n"
            "def indeed(self):\n    self.refused()\n"
        )
        for body, expected in [
            ("run()", False),
            ("with suppress(E):\n        run()", False),
            ("self.helper()", False),
            ("assert run()", True),
            ("self.assertTrue(run())", True),
            ("self.successResultOf(run())", True),
            ("with pytest.raises(E):\n        run()", True),
            ("self.refused()", True),
            ("self.indeed()", True),
            ("def inner():\n        self.fail()\n    run(inner)", True),
        ]:
            for kind in ("def", "async def"):
                found = asserts_nothing([helpers, f"{kind} test_it(self):\n    {body}\n"])
                self.assertEqual(found, [] if expected else ["test_it, line 1"], body)

    def test_tests_do_not_sleep(self) -> None:
        """Tests wait for what they need, and no longer: only few may sleep."""
        found = [
            path
            for path in modules(PROJECT / "tests")
            if sleeps(ast.parse(path.read_text("utf-8")))
        ]
        self.assertEqual(set(names(found)), set(SLEEPERS))

    def test_sleeps_are_seen(self) -> None:
        """The check above knows each way to write it, and that strings do nothing."""
        for text, expected in [
            ("import time\ntime.sleep(1)", True),
            ("from time import monotonic, sleep", True),
            ("import time\nrest = time.sleep", True),
            ("import time\ntime.monotonic()", False),
            ("CODE = 'time.sleep(60)'", False),
        ]:
            self.assertEqual(sleeps(ast.parse(text)), expected, text)

    def test_assertions_are_unittests(self) -> None:
        """No class of tests has a method named as one that assertions are made of.

        With a ``fail`` of its own, comparing two lists that differ would pass.
        """
        own = {name for name in dir(TestCase) if name.startswith(("assert", "_base", "fail"))}
        found = []
        for path in modules(PROJECT / "tests"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if not isinstance(node, ast.ClassDef):
                    continue
                bases = map(ast.unparse, node.bases)
                if any(base.endswith(("Case", "Tests", "Scene")) for base in bases):
                    found += [
                        f"{path.name}: {node.name}.{child.name}"
                        for child in node.body
                        if isinstance(child, ast.FunctionDef) and child.name in own
                    ]
        self.assertEqual(found, [])

    def test_names_are_unique(self) -> None:
        """The name of a public class or alias is unique in the whole package."""
        places: dict[str, list[str]] = {}
        for path in modules(PACKAGE):
            for name in public_names(ast.parse(path.read_text("utf-8"))):
                places.setdefault(name, []).append(str(path.relative_to(PROJECT)))
        self.assertEqual({name: found for name, found in places.items() if len(found) > 1}, {})

    def test_public_names_are_seen(self) -> None:
        """The check above finds classes and aliases, but not constants and type variables."""
        for text, expected in [
            ("class Answer:\n    class Inner: ...", ["Answer"]),
            ("Rows = list[int]", ["Rows"]),
            ("Rows: type = list[int]", ["Rows"]),
            ("LIMIT = 1\n_Own = int\nmakeService = 1", []),
            ("T = TypeVar('T')\nO_co = TypeVar('O_co')\nP = ParamSpec('P')", []),
        ]:
            self.assertEqual(list(public_names(ast.parse(text))), expected, text)

    def test_importing_does_nothing(self) -> None:
        """Importing every module installs no reactor, starts no thread and prints nothing."""
        done = subprocess.run(
            [sys.executable, "-W", "error::SyntaxWarning", "-c", IMPORT_ALL],
            cwd=PROJECT,
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stderr, "")
        told = json.loads(done.stdout)
        self.assertGreater(len(told["names"]), 5)
        self.assertEqual(told["reactors"], [])
        self.assertEqual(told["threads"], 1)
