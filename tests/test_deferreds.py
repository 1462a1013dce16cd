"""Checks that code which adds callbacks to a Deferred also handles its failures."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from twisted.trial.unittest import SynchronousTestCase

from tests.test_packaging import PROJECT, modules

#: Methods that handle failures, including those of earlier callbacks.
TAKES = frozenset({"addErrback", "addBoth"})
ADDS = frozenset({"addCallback", "addCallbacks", "chainDeferred", *TAKES})

#: Methods that return a Deferred which may fail, by what they are called on.
FALLIBLE = {
    "journal": {"commit", "effect", "settle", "close"},
    "_journal": {"commit", "effect", "settle", "close"},
    "queue": {"commit", "commit_surely", "archive", "archived", "archived_ids", "enter"},
    "_queue": {"commit", "commit_surely", "archive", "archived", "archived_ids", "enter"},
    "store": {"apply", "change", "remove"},
    "nodes": {"call", "close"},
    "_nodes": {"call", "close"},
    "submission": {"submit"},
    "_executor": {"in_thread", "run_in_thread"},
}

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


def chain(call: ast.expr) -> tuple[ast.expr, list[str]]:
    """Splits ``base.addX(...).addY(...)`` into the base and the added calls, in order."""
    added: list[str] = []
    while (
        isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr in ADDS
    ):
        added.insert(0, call.func.attr)
        call = call.func.value
    return call, added


def is_taken(added: list[str]) -> bool:
    """Whether failures of a Deferred and of each of its callbacks are handled at the end."""
    return added[-1] in TAKES or "chainDeferred" in added or added == ["addCallbacks"]


def passed_on(function: ast.AST) -> Iterator[str]:
    """Yields names of Deferreds that a function passes on or whose failures it handles."""
    for node in ast.walk(function):
        match node:
            case ast.Return(value=ast.Name(id=name)):
                yield name
            case ast.Await(value=ast.Name(id=name)) | ast.Yield(value=ast.Name(id=name)):
                yield name
            case ast.Expr(value=ast.Call() as call):
                base, added = chain(call)
                if isinstance(base, ast.Name) and added and is_taken(added):
                    yield base.id


def is_fallible(call: ast.expr) -> bool:
    """Whether the call returns a Deferred that may fail."""
    match call:
        case ast.Call(func=ast.Attribute(attr=method, value=ast.Attribute(attr=owner))):
            return method in FALLIBLE.get(owner, ())
        case ast.Call(func=ast.Attribute(attr=method, value=ast.Name(id=owner))):
            return method in FALLIBLE.get(owner, ())
    return False


def left_alone(tree: ast.AST) -> Iterator[ast.Expr]:
    """Yields the statements that leave a Deferred's failure unhandled."""
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        known = set(passed_on(function))
        for node in ast.walk(function):
            if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
                continue
            base, added = chain(node.value)
            if isinstance(base, ast.Name) and base.id in known:
                continue
            if is_taken(added) if added else not is_fallible(node.value):
                continue
            yield node


class DeferredTests(SynchronousTestCase):
    def test_package(self) -> None:
        """In the package every failure is handled or passed on."""
        found = {
            f"{path.relative_to(PROJECT)}:{node.lineno}"
            for path in modules()
            for node in left_alone(ast.parse(path.read_text("utf-8")))
        }
        self.assertEqual(sorted(found), [])

    def test_what_is_seen(self) -> None:
        """The check recognises which statements leave failures unhandled, and which don't."""
        for text, expected in [
            ("self.call().addCallback(f)", True),
            ("self.call().addErrback(g).addCallback(f)", True),
            ("self.call().addCallbacks(f, g).addCallback(f)", True),
            ("done = self.call()\n    done.addCallback(f)", True),
            ("self._queue.commit([job])", True),
            ("queue.commit_surely([job])", True),
            ("self._nodes.call([target], 'version')", True),
            ("self.call().addCallback(f).addErrback(g)", False),
            ("self.call().addCallback(f).addBoth(g)", False),
            ("self.call().addCallbacks(f, g)", False),
            ("self.call().chainDeferred(done)", False),
            ("done = self.call()\n    done.addCallback(f)\n    done.addErrback(g)", False),
            ("done = self.call()\n    done.addCallback(f)\n    return done", False),
            ("done = self.call()\n    done.addCallback(f)\n    yield done", False),
            ("return self.call().addCallback(f)", False),
            ("yield self._queue.commit([job])", False),
            ("self.commit([job])", False),
            ("self.files.close()", False),
        ]:
            tree = ast.parse(f"def function(self):\n    {text}\n")
            self.assertEqual(bool(list(left_alone(tree))), expected, text)
