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
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import kodmobi_async

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(kodmobi_async.__file__).parent
REPOSITORY = Path(__file__).parents[1]

# The rooms by kind, and the modules in them: each imports only from those above it.
ROOMS = {
    "_values": (
        "redaction",
        "assumptions",
        "channel",
        "pydantic_schema",
        "plain",
        "errors",
        "models",
        "addresses",
        "shared_limits",
        "settings",
        "hooks",
        "header_hooks",
    ),
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
    "_shared": ("operations", "keys", "reservation", "backlog", "loop_bound", "store", "tracker"),
    "_io": ("pool", "transport"),
    "_calls": (
        "gates",
        "engine",
        "lifecycle",
        "slots",
        "login",
        "send",
        "create",
        "fallback",
        "countdown",
        "source",
        "postponed",
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


def test_a_module_of_more_than_300_lines_says_why() -> None:
    for path in PACKAGE.rglob("*.py"):
        source = path.read_text("utf-8")
        if source.count("\n") > 300:
            assert "\nAbove 300 lines: " in (ast.get_docstring(ast.parse(source)) or ""), path.relative_to(PACKAGE)


def test_only_the_transport_and_its_pool_know_aiohttp() -> None:
    doors = ("emulator", "integrations")
    assert {name for name in importers("aiohttp") if name.partition(".")[0] not in doors} == {
        "_io.pool",
        "_io.transport",
        "cli._web_demo",  # a web service of its own, imported when it is asked for
    }


def test_the_command_line_is_a_user_like_any_other() -> None:
    for name, imports in modules().items():
        if comes_from(name, "cli"):
            private = {each for each in imports if re.match(r"kodmobi_async\.(_|[a-z_]+\._)", each)}
            foreign = {each for each in private if not comes_from(each, "kodmobi_async.cli")}
            assert {each for each in foreign if not comes_from(each, "kodmobi_async._version")} == set(), name


def test_doors_are_opened_by_their_names_alone() -> None:
    rooms = [f"kodmobi_async.{room}" for room in ROOMS]
    for name, imports in modules().items():
        door = f"kodmobi_async.{name.partition('.')[0]}"
        for each in imports:
            if not re.match(r"kodmobi_async\.[a-z]+\._", each) or any(comes_from(each, room) for room in rooms):
                continue
            assert comes_from(each, door), f"{name} imports {each}"


def test_only_what_pydantic_asks_for_knows_pydantic() -> None:
    knowing = importers("pydantic") | importers("pydantic_core")
    assert {name for name in knowing if name.partition(".")[0] != "integrations"} == {"_values.pydantic_schema"}
    assert importers("kodmobi_async._values.pydantic_schema") == {"_values.plain", "_values.errors"}


def test_only_the_retry_policy_knows_tenacity() -> None:
    assert importers("tenacity") == {"_rules.retry"}


def test_the_emulator_shares_nothing_with_the_client() -> None:
    for name, imports in modules().items():
        if comes_from(name, "emulator"):
            ours = {each for each in imports if comes_from(each, "kodmobi_async")}
            assert {each for each in ours if not comes_from(each, "kodmobi_async.emulator")} == set(), name


def listed_for_type_checkers() -> set[str]:
    """Return the public names by module, as type checkers see the package's opening."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text("utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    assert len(imports) == len(block.body)
    return {f"{node.module}.{name.name}" for node in imports for name in node.names}


def test_the_public_names_are_sorted_and_complete() -> None:
    names = {name.rpartition(".")[2] for name in listed_for_type_checkers()}
    assert list(kodmobi_async.__all__) == sorted({*names, "__version__"})


def test_the_public_names_stand_where_type_checkers_see_them() -> None:
    for name in listed_for_type_checkers():
        module, _, value = name.rpartition(".")
        assert getattr(kodmobi_async, value) is getattr(import_module(module), value)
    assert set(kodmobi_async.__all__) <= set(dir(kodmobi_async))


def test_the_package_has_no_other_names() -> None:
    with pytest.raises(AttributeError, match="module 'kodmobi_async' has no attribute 'Kodmobi'"):
        _ = kodmobi_async.Kodmobi  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue] that is it


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


def loaded_by(code: str) -> list[str]:
    """Return the modules that a fresh interpreter has loaded after it has run the code."""
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    command = [sys.executable, "-c", f"import sys; {code}; print(*sys.modules, sep='\\n')"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=True, env=environment, timeout=60)
    return done.stdout.split()


def test_importing_the_client_opens_no_door() -> None:
    loaded = loaded_by("from kodmobi_async import *")
    assert "kodmobi_async._calls.client" in loaded
    doors = (
        "typer",
        "click",
        "rich",
        "redis",
        "pytest",
        "aiohttp.web",
        "fastapi",
        "starlette",
        "pydantic",
        "pydantic_core",
        "opentelemetry",
        "prometheus_client",
        "taskiq",
    )
    ours = ("cli", "emulator", "integrations", "redis", "testing", "pytest_plugin")
    closed = (*doors, *(f"kodmobi_async.{door}" for door in ours))
    assert [name for name in loaded if any(comes_from(name, door) for door in closed)] == []


def test_importing_the_package_imports_nothing_else() -> None:
    loaded = loaded_by("import kodmobi_async")
    assert {name for name in loaded if comes_from(name, "kodmobi_async")} == {"kodmobi_async", "kodmobi_async._version"}
    assert "aiohttp" not in loaded


def test_type_checkers_are_told_that_the_package_is_typed() -> None:
    assert (PACKAGE / "py.typed").is_file()


def test_the_lowest_dependencies_tested_are_the_lowest_allowed() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    allowed = {re.sub(r">=([0-9.]+).*", r"==\1", dependency) for dependency in project["dependencies"]}
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(REPOSITORY / "tox.ini", "utf-8")
    assert set(tox["testenv:lowest"]["deps"].split()) == allowed


def test_the_lowest_extras_tested_are_the_lowest_allowed() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    allowed = {each.replace(">=", "==") for extra in project["optional-dependencies"].values() for each in extra}
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(REPOSITORY / "tox.ini", "utf-8")
    assert set(tox["testenv:lowest-extras"]["deps"].split()) == allowed | {"opentelemetry-sdk==1.30"}


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
