"""How Sphinx builds these pages: ``tox -e docs``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective
from typer.main import get_command

from kodmobi_async import __version__
from kodmobi_async.cli._app import _app

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "kodmobi_async"
author = "The kodmobi_async authors"
copyright = author  # noqa: A001 Sphinx calls it so
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
nitpicky = True

default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_use_legacy_class_based = False
autodoc_default_options = {"members": True}
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = f"kodmobi_async {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False

_PYTHON = "https://docs.python.org/3/library/"
_AIOHTTP = "https://docs.aiohttp.org/en/stable/"
_FASTAPI = "https://fastapi.tiangolo.com/reference/"
_OTEL = "https://opentelemetry-python.readthedocs.io/en/latest/api/"
_REDIS = "https://redis.readthedocs.io/en/stable/"

# Names of other projects, as they stand in signatures and docstrings, and where they are explained. No inventory is
# fetched: the pages are built without a network.
OUTSIDE = {
    "APIRouter": f"{_FASTAPI}apirouter/",
    "AbstractAsyncContextManager": f"{_PYTHON}contextlib.html#contextlib.AbstractAsyncContextManager",
    "AsyncBroker": "https://taskiq-python.github.io/guide/architecture-overview.html",
    "Executor": f"{_PYTHON}concurrent.futures.html#concurrent.futures.Executor",
    "FastAPI": f"{_FASTAPI}fastapi/",
    "Handler": f"{_AIOHTTP}web_quickstart.html#handler",
    "MeterProvider": f"{_OTEL}metrics.html",
    "Redis": f"{_REDIS}connections.html",
    "RedisCluster": f"{_REDIS}connections.html",
    "Request": f"{_FASTAPI}request/",
    "ScheduleSource": "https://taskiq-python.github.io/guide/scheduling-tasks.html",
    "TextMapPropagator": f"{_OTEL}propagate.html",
    "TracerProvider": f"{_OTEL}trace.html",
    "ULID": "https://python-ulid.readthedocs.io/en/latest/",
    "aiohttp.ClientSession": f"{_AIOHTTP}client_reference.html#aiohttp.ClientSession",
    "asyncio.Future": f"{_PYTHON}asyncio-future.html#asyncio.Future",
    "asyncio.events.AbstractEventLoop": f"{_PYTHON}asyncio-eventloop.html",
    "collections.abc.AsyncIterator": f"{_PYTHON}collections.abc.html#collections.abc.AsyncIterator",
    "concurrent.futures.thread.ThreadPoolExecutor": f"{_PYTHON}concurrent.futures.html",
    "contextlib.AbstractAsyncContextManager": f"{_PYTHON}contextlib.html#contextlib.AbstractAsyncContextManager",
    "datetime.datetime": f"{_PYTHON}datetime.html#datetime.datetime",
    "enum.StrEnum": f"{_PYTHON}enum.html#enum.StrEnum",
    "fastapi.applications.FastAPI": f"{_FASTAPI}fastapi/",
    "fastapi.params.Depends": f"{_FASTAPI}dependencies/",
    "logging.Logger": f"{_PYTHON}logging.html#logging.Logger",
    "logging.LoggerAdapter": f"{_PYTHON}logging.html#logging.LoggerAdapter",
    "os.PathLike": f"{_PYTHON}os.html#os.PathLike",
    "prometheus_client.registry.CollectorRegistry": "https://prometheus.github.io/client_python/",
    "sqlite3.Connection": f"{_PYTHON}sqlite3.html#sqlite3.Connection",
    "ssl.SSLContext": f"{_PYTHON}ssl.html#ssl.SSLContext",
    "ulid.ULID": "https://python-ulid.readthedocs.io/en/latest/",
    "web.Application": f"{_AIOHTTP}web_reference.html#aiohttp.web.Application",
    "web.Request": f"{_AIOHTTP}web_reference.html#aiohttp.web.Request",
    "web.RouteTableDef": f"{_AIOHTTP}web_reference.html#aiohttp.web.RouteTableDef",
    "web.StreamResponse": f"{_AIOHTTP}web_reference.html#aiohttp.web.StreamResponse",
}
OUR_MODULES = ("kodmobi_async", "kodmobi_async.emulator", "kodmobi_async.testing")

# Type variables, and names for types that a description says in words, or that nobody builds: nothing to link to.
nitpick_ignore = [
    ("py:class", name)
    for name in (
        "T",
        "Ts",
        "Requests",
        "WindowScope",
        "JsonObject",
        "InWindow",
        "Existing",
        "Item",
        "RunJournal",
        "kodmobi_async.emulator._events.Events",
        "kodmobi_async.emulator._http.Response",
        "kodmobi_async.emulator._refusals.Refusal",
        "kodmobi_async.integrations.fastapi._client",
    )
]


def _resolve(app: Sphinx, env: Any, node: Any, content: nodes.TextElement) -> nodes.Element | None:
    """Link a name of another project, or a public one that was written without its module."""
    target: str = node.get("reftarget", "")
    if target.startswith("tls."):  # what the client calls the module, whose name is that of an argument
        target = target.replace("tls.", "ssl.")
        content = nodes.literal("", target)
    if target in OUTSIDE:
        return nodes.reference("", "", content, internal=False, refuri=OUTSIDE[target], reftitle=target)
    python = env.get_domain("py")
    for module in OUR_MODULES:
        name = f"{module}.{target}"
        if name in python.objects:
            found: nodes.Element = python.resolve_xref(env, node["refdoc"], app.builder, "obj", name, node, content)
            return found
    return None


_kept: dict[str, list[str]] = {}


def _keep(app: Sphinx, what: str, name: str, value: object, options: object, lines: list[str]) -> None:
    """Keep what is said of an attribute away from Napoleon, which takes words before a colon for a type."""
    if what in ("attribute", "data", "property") and "Raises:" not in lines:
        _kept[name], lines[:] = lines[:], []


def _give_back(app: Sphinx, what: str, name: str, value: object, options: object, lines: list[str]) -> None:
    if name in _kept:
        lines[:] = _kept.pop(name)


_OPTION = re.compile(r"(--[a-z][a-z-]*)")


class Commands(SphinxDirective):
    """The commands of the program with their arguments and options, as the program itself knows them."""

    def run(self) -> list[nodes.Node]:
        """Return a section for each command."""
        program: Any = get_command(_app)
        text = "\n".join(_described(name, command) for name, command in program.commands.items())
        return self.parse_text_to_nodes(text, allow_section_headings=True)


def _described(name: str, command: Any) -> str:
    rows = [
        f"| `{' '.join(each.opts) if each.param_type_name == 'option' else each.name.upper()}` "
        f"| {_marked(getattr(each, 'help', None) or '')} | {_default(each)} |"
        for each in command.params
        if not getattr(each, "hidden", False)
    ]
    words = _marked(" ".join((command.help or "").split()))
    table = "\n".join(["| argument or option | meaning | default |", "|---|---|---|", *rows])
    return f"### kodmobi {name}\n\n{words}\n\n{table}\n"


def _marked(words: str) -> str:
    return _OPTION.sub(r"`\1`", words)


def _default(parameter: Any) -> str:
    shown = getattr(parameter, "show_default", None)
    if isinstance(shown, str):
        return shown
    default = parameter.default
    return "" if default is None or default is False or default == () or callable(default) else f"`{default}`"


def setup(app: Sphinx) -> None:
    """Say what is done beside what the extensions do."""
    app.connect("missing-reference", _resolve)
    app.connect("autodoc-process-docstring", _keep, priority=100)
    app.connect("autodoc-process-docstring", _give_back, priority=900)
    app.add_directive("kodmobi-commands", Commands)
