"""Claims of the documentation, compared with the code."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.interface import InterfaceClass

from ganeti_masterd.cli.main import program
from ganeti_masterd.config.kinds import SECTIONS
from ganeti_masterd.config.reservations import RESERVED
from ganeti_masterd.constants import STATUSES_FINALIZED
from ganeti_masterd.execution.phases import TABLE as PHASES
from ganeti_masterd.jobs.model import STEPS
from ganeti_masterd.journal.journal import _Stage
from ganeti_masterd.logical_units.base import LogicalUnit
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.registry import UNITS
from ganeti_masterd.luxi.clientstates import TABLE as CLIENT
from ganeti_masterd.luxi.serverstates import TABLE as CONNECTION
from ganeti_masterd.opcodes import OPCODES
from ganeti_masterd.options import Options
from ganeti_masterd.query.resources import RESOURCES
from ganeti_masterd.requests.registry import METHODS
from ganeti_masterd.requests.wconfd import WCONFD_METHODS
from ganeti_masterd.rpc.calls import CALLS
from ganeti_masterd.startup.shutdown import TABLE as SHUTDOWN
from ganeti_masterd.startup.shutdown import ShutdownState
from tools.doc_tables import TABLES
from tools.log_lines import MEANINGS, log_lines

PROJECT = Path(__file__).resolve().parents[1]
DOCS = PROJECT / "docs"

#: A name of the code in a document: ``:class:`~package.module.Name```, or with a title.
ROLE = re.compile(r":(?:mod|class|meth|func|data|attr):`(?:[^`<]*<)?~?(ganeti_masterd[\w.]*)>?`")

#: A page of the protocol that the code cites, and the section after the comma.
CITATION = re.compile(r"(protocol/\w+\.rst), (?=(.{,60}))")


def text(name: str) -> str:
    """Returns a document's text."""
    return (DOCS / name).read_text(encoding="utf-8")


def rows(document: str) -> list[list[str]]:
    """Returns the rows of all list-tables, each cell on one line."""
    found: list[list[str]] = []
    for line in document.splitlines():
        cell = re.fullmatch(r"   (\* -|  -) (.*)", line)
        if cell is None:
            if found and line.startswith("       ") and line.strip():
                found[-1][-1] += " " + line.strip()
        elif cell[1] == "* -":
            found.append([cell[2]])
        else:
            found[-1].append(cell[2])
    return found


def quoted(cell: str) -> list[str]:
    """Returns the literals in a cell."""
    return re.findall(r"``(\w+)``", cell)


def resolve(name: str) -> object:
    """Returns the object of a dotted name; raises ``ImportError`` or ``AttributeError``."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found: Any = import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            found = found[part] if isinstance(found, InterfaceClass) else getattr(found, part)
        return found
    raise ImportError(name)


def section(document: str, title: str, end: str | None = None) -> str:
    """Returns the part of a document from one title up to another."""
    rest = document[document.index(f"\n{title}\n") :]
    return rest if end is None else rest[: rest.index(f"\n{end}\n")]


class TablesFromCodeTests(SynchronousTestCase):
    """Tables that are generated from the code."""

    def test_are_used(self) -> None:
        """Each table is used in a document, and each that a document names exists."""
        named = {
            name
            for path in DOCS.glob("*.rst")
            for name in re.findall(r"^\.\. from-code:: (\w+)$", path.read_text(), re.MULTILINE)
        }
        self.assertEqual(named, set(TABLES))
        reference = text("reference.rst")
        for name in ("options", "methods", "wconfd", "units", "resources", "log"):
            self.assertIn(f".. from-code:: {name}\n", reference)

    def test_options(self) -> None:
        """Every option of the daemon is shown with its text."""
        shown = TABLES["options"]()
        for name, _, help_text in Options.optFlags:
            self.assertIn(f"``--{name}``", shown)
            self.assertIn(help_text, shown)
        for parameter in Options.optParameters:
            self.assertIn(f"``--{parameter[0]}=``", shown)
            self.assertIn(parameter[3], shown)

    def test_options_are_explained(self) -> None:
        """Every option of the daemon has a paragraph in the guide."""
        guide = text("configure.rst")
        for name, *_ in [*Options.optFlags, *Options.optParameters]:
            self.assertRegex(guide, rf"(?m)^``.*--{name}\b")

    def test_methods(self) -> None:
        """Every method of LUXI and of wconfd is shown with each of its arguments."""
        for table, methods in (("methods", METHODS), ("wconfd", WCONFD_METHODS)):
            shown = {quoted(row[0])[0]: row[1] for row in rows(TABLES[table]())[1:]}
            self.assertEqual(set(shown), set(methods))
            for name, method in methods.items():
                for argument in method.arguments:
                    where = f"``{argument.name.rstrip('_')}``: {argument.expected}"
                    self.assertIn(where, shown[name])

    def test_opcodes(self) -> None:
        """Every opcode of Ganeti has a logical unit, and is shown with it."""
        built = {quoted(row[0])[0]: row for row in rows(TABLES["units"]())[1:]}
        self.assertEqual(set(built), set(UNITS))
        self.assertEqual(set(OPCODES), set(UNITS))
        for op_id, row in built.items():
            (name,) = ROLE.findall(row[1])
            self.assertIs(resolve(name), UNITS[op_id])
            self.assertTrue(row[2], f"{op_id} has no text")

    def test_resources(self) -> None:
        """Every resource that can be queried is named."""
        self.assertEqual(set(quoted(TABLES["resources"]())), set(RESOURCES))

    def test_log_lines(self) -> None:
        """Exactly the lines that the code may log are explained."""
        kinds = {line.text for line in log_lines()}
        self.assertEqual(kinds - set(MEANINGS), set(), "explain these in tools/log_lines.py")
        self.assertEqual(set(MEANINGS) - kinds, set(), "nothing logs these any more")
        self.assertEqual(len(rows(TABLES["log"]())) - 1, len(log_lines()))

    def test_log_lines_are_found(self) -> None:
        """Each way to log is found; a text that isn't a literal is an error."""
        package = Path(self.mktemp())
        package.mkdir()
        module = package / "some.py"
        module.write_text('log.warn("a {b}", b=1)\nlog.failure("c")\nlog.emit(level, "d")\n')
        self.assertEqual(
            {(line.level, line.text) for line in log_lines(package)},
            {("warn", "a {b}"), ("critical", "c"), ("any", "d")},
        )
        module.write_text("log.info(text)\n")
        self.assertRaises(ValueError, log_lines, package)

    def test_steps(self) -> None:
        """The table of states has exactly the transitions of a job."""
        shown = {quoted(row[0])[0]: set(quoted(row[1])) for row in rows(TABLES["steps"]())[1:]}
        self.assertEqual(shown, {status: set(following) for status, following in STEPS.items()})
        for row in rows(TABLES["steps"]())[1:]:
            ended = quoted(row[0])[0] in STATUSES_FINALIZED
            self.assertEqual("it has ended" in row[1], ended)

    def test_machines(self) -> None:
        """The tables of phases and connections have exactly the steps that the code allows."""
        machines: dict[str, Mapping[Any, tuple[str, frozenset[Any]]]] = {
            "phases": PHASES,
            "connection": CONNECTION,
            "client": CLIENT,
        }
        for name, machine in machines.items():
            shown = {quoted(row[0])[0]: set(quoted(row[2])) for row in rows(TABLES[name]())[1:]}
            steps = {
                state.name: {each.name for each in following}
                for state, (_, following) in machine.items()
            }
            self.assertEqual(shown, steps)
            self.assertIn(f".. from-code:: {name}\n", text("architecture.rst"))

    def test_shutdown(self) -> None:
        """The table of a shutdown has every state and every transition."""
        shown = rows(TABLES["shutdown"]())[1:]
        self.assertEqual(len(shown), len(SHUTDOWN))
        seen = {name for row in shown for name in quoted(row[0]) + quoted(row[2])}
        self.assertEqual(seen, {state.name for state in ShutdownState})


class ArchitectureTests(SynchronousTestCase):
    """The architecture document."""

    def test_layers(self) -> None:
        """Its layers are those of the import contract, in the same order."""
        with (PROJECT / "pyproject.toml").open("rb") as file:
            contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
        contract = next(each for each in contracts if each.get("containers") == ["ganeti_masterd"])
        held = [sorted(re.findall(r"\w+", layer)) for layer in contract["layers"]]
        table = rows(section(text("architecture.rst"), "The layers", "How a request travels"))
        self.assertEqual([sorted(quoted(row[0])) for row in table[1:]], held)

    def test_phases(self) -> None:
        """It names every phase of a job under way, and every stage of the journal."""
        table = rows(
            section(text("architecture.rst"), "States", "Where building differed from the plan")
        )
        stages = [(quoted(row[0])[0], row[1]) for row in table if len(row) == 2 and "``" in row[0]]
        self.assertEqual(stages, [(stage.name, stage.value) for stage in _Stage])

    def test_walk(self) -> None:
        """The opcodes on paper use only what exists, and call missing only what doesn't."""
        title = "What the walk found"
        walk = section(text("architecture.rst"), "Six large opcodes on paper", title)
        for name in re.findall(r"ctx\.(\w+)", walk):
            self.assertTrue(hasattr(Context, name), f"ctx.{name}")
        for name in re.findall(r'"([a-z_]+)"', walk):
            self.assertIn(name, set(SECTIONS) | set(RESERVED))
        calls = re.findall(r"ctx\.call\((?:\[[^]]*\]|\w+),\s+(\w+)", walk)
        self.assertEqual(len(calls), walk.count("ctx.call("))
        for name in [*calls, *re.findall(r"``((?!OP_|BGL)[A-Z0-9_]+)``", walk)]:
            self.assertIn(name.lower(), CALLS)
        for row in rows(section(text("architecture.rst"), title))[1:]:
            for name in re.findall(r"Missing: an? ``ctx\.(\w+)|Missing: ``ctx\.(\w+)", row[1]):
                self.assertFalse(hasattr(Context, "".join(name)), f"{name} is not missing any more")
            for name in re.findall(r"^``ctx\.(\w+)", row[1]):
                self.assertTrue(hasattr(Context, name), f"ctx.{name}")
            for name in re.findall(r"``LogicalUnit\.(\w+)``", row[1]):
                unit: LogicalUnit[Any] = LogicalUnit(None)  # type: ignore[arg-type]
                self.assertTrue(hasattr(unit, name), name)


class NamesTests(SynchronousTestCase):
    """Names of the code and of commands in documents."""

    def test_code(self) -> None:
        """Every module, class and function that a document names exists."""
        count = 0
        for path in [*DOCS.glob("*.rst"), PROJECT / "README.md"]:
            for name in ROLE.findall(" ".join(path.read_text(encoding="utf-8").split())):
                count += 1
                try:
                    resolve(name)
                except (ImportError, AttributeError, KeyError) as error:
                    self.fail(f"{path.name}: {name}: {error!r}")
        self.assertGreater(count, 50)

    def test_citations(self) -> None:
        """Every section of the protocol's pages that the code cites exists."""
        titles = {
            page: re.findall(r"^(.+)\n[-=]{3,}$", text(page), re.MULTILINE)
            for page in (f"protocol/{path.name}" for path in DOCS.glob("protocol/*.rst"))
        }
        count = 0
        for path in (PROJECT / "ganeti_masterd").rglob("*.py"):
            code = re.sub(r"\s+(#:? )?", " ", path.read_text(encoding="utf-8"))
            for page, cited in CITATION.findall(code):
                count += 1
                if not any(re.match(re.escape(title) + r"\W", cited) for title in titles[page]):
                    self.fail(f"{path.relative_to(PROJECT)}: {page}, {cited}")
        self.assertGreater(count, 40)

    def test_excerpts(self) -> None:
        """The reading guide has eight steps, and its excerpts exist in the files."""
        guide = text("reading.rst")
        steps = [int(number) for number in re.findall(r"^(\d+)\. ", guide, re.MULTILINE)]
        self.assertEqual(steps, list(range(1, 9)))
        shown = re.findall(r"literalinclude:: (\S+)\n.*\n   :pyobject: (\S+)", guide)
        self.assertEqual(len({file for file, _ in shown}), 8)
        for file, name in shown:
            body: Any = ast.parse((DOCS / file).resolve().read_text(encoding="utf-8"))
            for part in name.split("."):
                found = [node for node in body.body if getattr(node, "name", None) == part]
                self.assertEqual(len(found), 1, f"{file}: {name}")
                (body,) = found

    def test_make(self) -> None:
        """Every target of make that a document names exists."""
        makefile = (PROJECT / "Makefile").read_text(encoding="utf-8")
        targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
        for path in [*DOCS.glob("*.rst"), *PROJECT.glob("*.md")]:
            document = path.read_text(encoding="utf-8")
            for target in re.findall(r"(?:^ *|`)make ([a-z-]+)", document, re.MULTILINE):
                self.assertIn(target, targets, path.name)

    def test_readme_leads(self) -> None:
        """The README begins with the two commands for a fresh machine."""
        readme = (PROJECT / "README.md").read_text(encoding="utf-8")
        self.assertEqual(re.findall(r"^    make (\w+)", readme, re.MULTILINE)[:2], ["demo", "test"])
        self.assertLess(readme.index("    make demo"), 600)

    def test_gnt_luxi(self) -> None:
        """Every command and every global option of gnt-luxi is described."""
        described = text("gnt-luxi.rst")
        entries = {
            name
            for line in re.findall(r"^``[a-z].*", described, re.MULTILINE)
            for name in re.findall(r"``([a-z-]+)", line)
        }
        self.assertEqual(set(program.commands) - entries, set())
        for option in program.params:
            self.assertIn(option.opts[-1], described)
