"""The pages of the API reference: one for each public module, with every name in its ``__all__``.

A. An object is documented once, under the shortest path that exports it (`fastbp.sigmoid`), on the page of the module
   that is nearest to its definition (`fastbp.functional.made`). Every other module that exports it has a link.
B. A class has the members that it defines, and those of bases that are not public themselves. What comes from public
   bases is named, with a link.
C. The bridges to PyTorch and JAX import those libraries, which a build of the site does not need: their pages are made
   from the sources, by `ast`.
"""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import check_docstrings
from gallery_pages import write_if_changed
from numpydoc.docscrape_sphinx import SphinxDocString

ROOT = Path(__file__).resolve().parents[2]
FROM_SOURCE = ("fastbp.jax", "fastbp.torch")
# What check_docstrings leaves out: a line is enough for each reference, and the estimators follow scikit-learn's rules.
ADDED = ("fastbp.reference", "fastbp.sklearn")

# After the directive of a module: names that follow are complete, and autosummary warns of its own module's.
NO_MODULE = (".. py:currentmodule:: None", "")


class Home(NamedTuple):
    """Where an object is documented: its path, as users write it, and the module whose page it is on."""

    path: str
    module: str


# ---- what is public --------------------------------------------------------------------------------------------------


def public_modules() -> list[ModuleType]:
    """Return the modules that have a page and are imported for it."""
    found = [module for module in check_docstrings.modules() if not module.__name__.startswith(FROM_SOURCE)]
    return found + [importlib.import_module(name) for name in ADDED]


def exported(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Yield the names of a module's ``__all__`` with their objects."""
    for name in module.__all__:
        yield name, getattr(module, name)


def is_code(value: Any) -> bool:
    return inspect.isclass(value) or inspect.isroutine(value)


def homes(modules: Iterable[ModuleType]) -> dict[int, Home]:
    """Return where each public class and function is documented, by its id."""
    places: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for module in modules:
        for name, value in exported(module):
            if is_code(value):
                places[id(value)].append((f"{module.__name__}.{name}", module.__name__))
    return {key: home(found) for key, found in places.items()}


def home(places: list[tuple[str, str]]) -> Home:
    """Return the shortest path, and the module that is nearest to the definition."""
    return Home(
        min((path for path, _ in places), key=lambda path: path.count(".")),
        max((module for _, module in places), key=lambda module: module.count(".")),
    )


def own_members(cls: type, documented: Mapping[int, Home]) -> list[str]:
    """Return the members to document with a class: its own, and those of bases that have no page."""
    names: list[str] = []
    for base in cls.__mro__:
        if not base.__module__.startswith("fastbp") or (base is not cls and id(base) in documented):
            continue
        for name, value in vars(base).items():
            is_member = check_docstrings.is_method(value) or isinstance(value, property | functools.cached_property)
            if is_member and not name.startswith("_") and inspect.getattr_static(cls, name) is value and value.__doc__:
                names.append(name)
    return list(dict.fromkeys(names))


def public_bases(cls: type, documented: Mapping[int, Home]) -> list[str]:
    return [documented[id(base)].path for base in cls.__mro__[1:] if id(base) in documented]


def paths_of(documented: Mapping[int, Home], modules: Iterable[ModuleType]) -> set[str]:
    """Return the paths of everything that is documented."""
    paths = {f"{name}.{function}" for name in FROM_SOURCE for function in names_in_source(name)}
    for module in modules:
        for _, value in exported(module):
            if is_code(value):
                path = documented[id(value)].path
                paths.add(path)
                if inspect.isclass(value):
                    paths |= {f"{path}.{name}" for name in own_members(value, documented)}
    return paths


# ---- docstrings ------------------------------------------------------------------------------------------------------

CODE = re.compile(r"(``.+?``|(?<![\w:`])`[^`\n]+`(?![`_]))")


class Docstrings:
    """Docstrings as reStructuredText: formulas are no markup, names in backticks are links where they have a place."""

    def __init__(self, paths: Collection[str]) -> None:
        self.paths = paths

    def lines(self, text: Iterable[str], place: str) -> list[str]:
        """Return the lines of an object's docstring; its examples stay as they are."""
        made, in_example = [], False
        for line in text:
            in_example = line.lstrip().startswith(">>>") or (in_example and bool(line.strip()))
            made.append(line if in_example else self.line(line, place))
        return made

    def line(self, text: str, place: str) -> str:
        if text.lstrip().startswith("*"):  # arguments, `*chain : Unit`, which numpydoc escapes itself
            return text
        parts = (self.code(part, place) if i % 2 else escaped(part) for i, part in enumerate(CODE.split(text)))
        return "".join(parts)

    def code(self, part: str, place: str) -> str:
        """Return a piece of code: a link, if it names something of the object, its module or the package."""
        name = part.strip("`")
        steps = place.split(".")
        candidates = (".".join([*steps[:end], name.removeprefix("fastbp.")]) for end in range(len(steps), 0, -1))
        target = None if part.startswith("``") else next((path for path in candidates if path in self.paths), None)
        return f":py:obj:`{name} <{target}>`" if target else f"``{name}``"

    def complete(self, text: str, place: str) -> list[str]:
        """Return a docstring with numpydoc's sections, where autodoc does not do it."""
        return str(SphinxDocString("\n".join(self.lines(text.splitlines(), place)))).splitlines()


def escaped(text: str) -> str:
    return re.sub(r"([|*])", r"\\\1", text)


# ---- pages of modules that are imported ------------------------------------------------------------------------------


def heading(text: str) -> list[str]:
    return [text, "=" * len(text), ""]


def directive(name: str, argument: str = "", *, body: Iterable[str] = (), **options: str) -> list[str]:
    lines = [f".. {name}:: {argument}".rstrip()]
    lines += [f"   :{key.replace('_', '-')}: {value}".rstrip() for key, value in options.items()]
    return [*lines, "", *(f"   {line}".rstrip() for line in body), ""]


def entry(value: Any, path: str, documented: Mapping[int, Home]) -> list[str]:
    """Return the full documentation of a class or function."""
    if not inspect.isclass(value):
        return directive("autofunction", path)
    members, bases = own_members(value, documented), public_bases(value, documented)
    options = {"members": ", ".join(members), "member_order": "bysource"} if members else {}
    links = ", ".join(f":py:class:`~{base}`" for base in bases)
    kind = "autoexception" if issubclass(value, BaseException) else "autoclass"
    return directive(kind, path, body=[f"Further members are those of {links}."] if bases else [], **options)


def contents(module: ModuleType, documented: Mapping[int, Home]) -> list[str]:
    """Return the tables of a module's names, by the pages on which they are documented."""
    by_page: dict[str, dict[str, None]] = defaultdict(dict)
    for _, value in exported(module):
        if is_code(value):
            place = documented[id(value)]
            by_page[place.module][place.path] = None
    lines: list[str] = []
    for page, paths in sorted(by_page.items(), key=lambda item: item[0] != module.__name__):
        lines += [] if page == module.__name__ else [f":doc:`{page}`", ""]
        lines += directive("autosummary", nosignatures="", body=[f"~{path}" for path in paths])
    return lines


def imported_page(module: ModuleType, documented: Mapping[int, Home]) -> str:
    """Return the page of a module that has been imported."""
    name = module.__name__
    lines = [*heading(name), *directive("automodule", name, no_members=""), *NO_MODULE, *contents(module, documented)]
    for attribute, value in exported(module):
        lines += of_page(module, attribute, value, documented)
    return "\n".join(lines)


def of_page(module: ModuleType, name: str, value: Any, documented: Mapping[int, Home]) -> list[str]:
    """Return what a module's page says of one of its names."""
    path = f"{module.__name__}.{name}"
    if isinstance(value, ModuleType):
        return [f"``fastbp.{name}`` is the module :doc:`{value.__name__}`.", ""]
    if not is_code(value):
        return directive("py:data", path, body=[f"``{type(value).__name__}``", "", comment(module, name)])
    place = documented[id(value)]
    if place.module != module.__name__:
        return []
    if place.path.rpartition(".")[2] != name:
        return directive("py:data", path, body=[f"Another name of :py:obj:`~{place.path}`."])
    return entry(value, place.path, documented)


def comment(module: ModuleType, name: str) -> str:
    """Return the comment above an assignment or behind it."""
    found = re.search(rf"^(?:# (.*)\n)?{name}\b[^=\n]*=.*?(?:  # (.*))?$", inspect.getsource(module), re.MULTILINE)
    return next(filter(None, found.groups()), "") if found else ""


# ---- pages of modules that are not imported --------------------------------------------------------------------------


def tree_of(name: str) -> ast.Module:
    path = ROOT / name.replace(".", "/")
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(path.read_text(encoding="utf-8"))


def docstring_of(node: ast.Module | ast.FunctionDef) -> str:
    return ast.get_docstring(node) or ""


def names_in_source(name: str) -> list[str]:
    """Return a module's ``__all__``, a list of strings, from its source."""
    for node in tree_of(name).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    raise ValueError(f"{name} has no __all__")


def functions_in_source(name: str) -> dict[str, ast.FunctionDef]:
    """Return the functions of a module, and those that it imports from modules of its own."""
    found: dict[str, ast.FunctionDef] = {}
    for node in tree_of(name).body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = node
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(f"{name}."):
            there = functions_in_source(node.module)
            found |= {alias.name: there[alias.name] for alias in node.names}
    return found


def signature(function: ast.FunctionDef) -> str:
    """Return the arguments with their defaults, without annotations."""
    given = function.args
    for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg):
        if argument is not None:
            argument.annotation = None
    return f"({ast.unparse(given)})"


def source_page(name: str, docstrings: Docstrings) -> str:
    """Return the page of a module that is not imported."""
    tree, functions = tree_of(name), functions_in_source(name)
    lines = [*heading(name), *directive("py:module", name), *NO_MODULE, *docstrings.complete(docstring_of(tree), name)]
    for function in names_in_source(name):
        node, path = functions[function], f"{name}.{function}"
        lines += directive("py:function", path + signature(node), body=docstrings.complete(docstring_of(node), path))
    return "\n".join(lines)


# ---- all pages -------------------------------------------------------------------------------------------------------


def index(names: Iterable[str], docstrings: Docstrings) -> str:
    """Return the page that lists all others, with the first lines of their modules."""
    lines = [
        *heading("API reference"),
        "Everything public, by module. Users write the short names, ``fastbp.Adam``, which :doc:`fastbp` lists. The",
        "numpy implementations in :doc:`fastbp.reference` have the names and arguments of what they explain. The",
        "command line has :doc:`a page of its own </command>`.",
        "",
        *directive("toctree", hidden="", maxdepth="1", body=names),
    ]
    for name in names:
        first = docstring_of(tree_of(name)).partition("\n")[0]
        lines += [f":doc:`{name}`", f"   {docstrings.line(first, name)}", ""]
    return "\n".join(lines)


def write(app: Any) -> None:
    """Write the pages into docs/api, those that have changed, and tell autodoc how docstrings are read."""
    modules = public_modules()
    documented = homes(modules)
    docstrings = Docstrings(paths_of(documented, modules))

    def process(app: Any, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
        lines[:] = docstrings.lines(lines, name)

    app.connect("autodoc-process-docstring", process, priority=100)  # before numpydoc's
    made = {module.__name__: imported_page(module, documented) for module in modules}
    made |= {name: source_page(name, docstrings) for name in FROM_SOURCE}
    made["index"] = index(sorted(made), docstrings)
    folder = Path(app.srcdir) / "api"
    for old in folder.glob("*.rst"):
        if old.stem not in made:
            old.unlink()
    for name, text in made.items():
        write_if_changed(folder / f"{name}.rst", text)


def setup(app: Any) -> dict[str, bool]:
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
