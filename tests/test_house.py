"""The rules of the house: who imports whom, what is public, and that no file knows its author's machine."""

from __future__ import annotations

import ast
import configparser
import inspect
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

import kodmobi_async

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(kodmobi_async.__file__).parent
REPOSITORY = Path(__file__).parents[1]

# The rooms by kind, and the modules in them: each imports only from those above it.
ROOMS = {
    "_values": ("redaction", "assumptions", "channel", "plain", "errors", "models", "addresses", "settings", "hooks"),
    "_rules": (
        "exchange",
        "http_dates",
        "normalize",
        "requests",
        "fields",
        "responses",
        "refusals",
        "clock",
        "deadlines",
        "waiters",
        "cooldown",
        "pacing",
        "call",
        "verdicts",
        "retry",
    ),
    "_io": ("pool", "transport"),
    "_calls": (
        "engine",
        "lifecycle",
        "slots",
        "login",
        "send",
        "create",
        "fallback",
        "countdown",
        "source",
        "run",
        "bulk",
        "client",
    ),
}
MODULES = ("_version", *(f"{room}.{module}" for room, modules in ROOMS.items() for module in modules))


def imported(source: str, package: str) -> set[str]:
    """Return what the source imports when it runs, wherever in it: modules, and names out of modules, in full.

    What only type checkers see does not count.
    """
    found: set[str] = set()
    nodes: list[ast.AST] = [ast.parse(source)]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            nodes += node.orelse
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            module = ".".join([*above, *filter(None, [node.module])])
            found |= {f"{module}.{name.name}" for name in node.names}
        else:
            nodes += ast.iter_child_nodes(node)
    return found


def modules() -> dict[str, set[str]]:
    """Return every module of the package, by its name below the package, and what it imports when it runs."""
    return {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts): imported(
            path.read_text("utf-8"), ".".join(("kodmobi_async", *path.relative_to(PACKAGE).parent.parts))
        )
        for path in PACKAGE.rglob("*.py")
    }


def comes_from(name: str, module: str) -> bool:
    return name == module or name.startswith(f"{module}.")


def importers(module: str) -> set[str]:
    return {name for name, imports in modules().items() if any(comes_from(each, module) for each in imports)}


def test_only_what_runs_counts_as_an_import() -> None:
    source = """
import os.path, sys as system
from a.b import c as d
from . import e
from .f import g
if TYPE_CHECKING:
    import unseen
else:
    import seen
def later():
    try:
        from h import *
    except ImportError:
        import i
"""
    assert imported(source, "k.l") == {"os.path", "sys", "a.b.c", "k.l.e", "k.l.f.g", "seen", "h.*", "i"}
    assert imported("from .. import x\nfrom ..y import z", "k.l") == {"k.x", "k.y.z"}


def test_every_module_has_its_room() -> None:
    private = {name for name in modules() if re.fullmatch(r"_[a-z]+(\.[a-z_]+)?", name) and name != "__main__"}
    assert {name for name in private if not name.endswith(".__init__")} == set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_upwards_only(module: str) -> None:
    above = [f"kodmobi_async.{other}" for other in MODULES[: MODULES.index(module)]]
    ours = {name for name in modules()[module] if comes_from(name, "kodmobi_async")}
    assert {name for name in ours if not any(comes_from(name, other) for other in above)} == set()


def test_only_the_transport_and_its_pool_know_aiohttp() -> None:
    doors = ("emulator", "integrations")
    assert {name for name in importers("aiohttp") if name.partition(".")[0] not in doors} == {
        "_io.pool",
        "_io.transport",
    }


def test_only_the_retry_policy_knows_tenacity() -> None:
    assert importers("tenacity") == {"_rules.retry"}


def test_the_emulator_shares_nothing_with_the_client() -> None:
    for name, imports in modules().items():
        if comes_from(name, "emulator"):
            ours = {each for each in imports if comes_from(each, "kodmobi_async")}
            assert {each for each in ours if not comes_from(each, "kodmobi_async.emulator")} == set(), name


def test_the_public_names_are_sorted_and_complete() -> None:
    public = {
        name for name, value in vars(kodmobi_async).items() if name[0] != "_" and not isinstance(value, ModuleType)
    }
    public.discard("annotations")  # the __future__ import
    assert list(kodmobi_async.__all__) == sorted({*public, "__version__"})


def test_the_packages_opening_imports_no_more_than_it_lists() -> None:
    taken = {name.rpartition(".")[2] for name in modules()["__init__"] if comes_from(name, "kodmobi_async")}
    assert taken == set(kodmobi_async.__all__)


def public_objects() -> Iterator[tuple[str, object]]:
    """Yield every public class and function, and the methods and properties that the classes bring themselves."""
    for name in kodmobi_async.__all__:
        value = getattr(kodmobi_async, name)
        if not (inspect.isclass(value) or inspect.isroutine(value)):
            continue
        yield name, value
        for member, what in vars(value).items() if inspect.isclass(value) else ():
            if member[0] != "_" and (inspect.isroutine(what) or isinstance(what, property)):
                yield f"{name}.{member}", what


@pytest.mark.parametrize(("name", "value"), [pytest.param(name, value, id=name) for name, value in public_objects()])
def test_everything_public_is_documented(name: str, value: object) -> None:
    text = value.__doc__
    assert text, name
    assert text.strip()
    # what attrs or an enum writes for those who write nothing
    assert not text.startswith((f"{name}(", "Method generated by attrs", "Enum where members"))


def test_every_module_says_what_it_is_for() -> None:
    for path in PACKAGE.rglob("*.py"):
        assert ast.get_docstring(ast.parse(path.read_text("utf-8"))), path


def test_importing_the_package_opens_no_door() -> None:
    code = "import sys, kodmobi_async; print(*sys.modules, sep='\\n')"
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True, env=environment, timeout=60
    )
    loaded = done.stdout.split()
    assert "kodmobi_async._calls.client" in loaded
    doors = ("typer", "click", "rich", "redis", "pytest", "aiohttp.web", "fastapi", "starlette")
    ours = ("cli", "emulator", "integrations", "redis", "testing")
    closed = (*doors, *(f"kodmobi_async.{door}" for door in ours))
    assert [name for name in loaded if any(comes_from(name, door) for door in closed)] == []


def test_type_checkers_are_told_that_the_package_is_typed() -> None:
    assert (PACKAGE / "py.typed").is_file()


def test_the_lowest_dependencies_tested_are_the_lowest_allowed() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    allowed = {re.sub(r">=([0-9.]+).*", r"==\1", dependency) for dependency in project["dependencies"]}
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(REPOSITORY / "tox.ini", "utf-8")
    assert set(tox["testenv:lowest"]["deps"].split()) == allowed


# An absolute path into somebody's home or workplace; an address's path does not count.
MACHINE = re.compile(r"(?<![\w.:/~}-])/(?:home|root|Users|work)/\w|[A-Z]:\\Users\\")


def files() -> Iterator[Path]:
    """Yield the repository's files, without what tools have left there."""
    for folder, folders, names in os.walk(REPOSITORY):
        folders[:] = [
            name
            for name in folders
            if name not in {".git", "__pycache__", "build", "dist", "htmlcov", "node_modules"}
            and not (name.startswith(".") and name not in {".ci", ".github"})
            and not (Path(folder) / name / "pyvenv.cfg").exists()
            and not name.endswith(".egg-info")
        ]
        yield from (Path(folder) / name for name in names if not name.startswith(".coverage") and name != ".git")


def test_no_file_knows_the_machine_it_was_written_on() -> None:
    assert MACHINE.search('open("/' + 'home/me/x")')
    assert not MACHINE.search("https://example.org/home/me")
    seen = 0
    for path in files():
        seen += 1
        assert not MACHINE.search(path.read_bytes().decode("utf-8", "replace")), path.relative_to(REPOSITORY)
    assert seen > 20
