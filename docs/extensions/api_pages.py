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
import importlib.util
import inspect
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import check_docstrings  # noqa: E402

FROM_SOURCE = ("fastbp.jax", "fastbp.torch")
ADDED = ("fastbp.sklearn",)  # which check_docstrings leaves to scikit-learn's own rules


class Home(NamedTuple):
    """Where an object is documented: its path, as users write it, and the module whose page it is on."""

    path: str
    module: str


def public_modules() -> list[ModuleType]:
    """Return the modules that have a page and are imported for it."""
    found = [
        module for module in check_docstrings.modules() if module.__name__.split(".")[1:2] not in (["torch"], ["jax"])
    ]
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
    return {
        key: Home(
            min(found, key=lambda place: place[0].count("."))[0], max(found, key=lambda place: place[1].count("."))[1]
        )
        for key, found in places.items()
    }


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


# ---- reStructuredText ------------------------------------------------------------------------------------------------


def heading(text: str, mark: str = "=") -> list[str]:
    return [text, mark * len(text), ""]


def directive(
    name: str, argument: str, options: Mapping[str, str] | None = None, body: Iterable[str] = ()
) -> list[str]:
    lines = [f".. {name}:: {argument}".rstrip()]
    lines += [f"   :{key}: {value}".rstrip() for key, value in (options or {}).items()]
    return [*lines, "", *(f"   {line}".rstrip() for line in body), ""]


def entry(value: Any, home: Home, documented: Mapping[int, Home]) -> list[str]:
    """Return the full documentation of a class or function."""
    if not inspect.isclass(value):
        return directive("autofunction", home.path)
    members, bases = own_members(value, documented), public_bases(value, documented)
    options = {"members": ", ".join(members), "member-order": "bysource"} if members else {}
    body = (
        ["Further members are those of " + ", ".join(f":py:class:`~{path}`" for path in bases) + "."] if bases else []
    )
    kind = "autoexception" if issubclass(value, BaseException) else "autoclass"
    return directive(kind, home.path, options, body)


def summary(paths: Iterable[str]) -> list[str]:
    return directive("autosummary", "", {"nosignatures": ""}, paths)


def contents(module: ModuleType, documented: Mapping[int, Home]) -> list[str]:
    """Return the tables of a module's names, by the pages on which they are documented."""
    by_page: dict[str, list[str]] = defaultdict(list)
    for _, value in exported(module):
        if is_code(value) and documented[id(value)].path not in by_page[documented[id(value)].module]:
            by_page[documented[id(value)].module].append(documented[id(value)].path)
    lines: list[str] = []
    for page, paths in sorted(by_page.items(), key=lambda item: item[0] != module.__name__):
        lines += [] if page == module.__name__ else [f":doc:`{page}`", ""]
        lines += summary(paths)
    return lines


def imported_page(module: ModuleType, documented: Mapping[int, Home]) -> str:
    """Return the page of a module that has been imported."""
    name = module.__name__
    lines = [
        *heading(name),
        *directive("automodule", name, {"no-members": ""}),
        ".. py:currentmodule:: None",
        "",
        *contents(module, documented),
    ]
    for attribute, value in exported(module):
        path = f"{name}.{attribute}"
        if isinstance(value, ModuleType):
            lines += [f":doc:`{value.__name__}` is a module: ``fastbp.{attribute}``.", ""]
        elif not is_code(value):
            lines += directive("py:data", path, {}, [f"{article(value)}, {told(module, attribute)}"])
        elif documented[id(value)] == (path, name) or documented[id(value)].module == name:
            home = documented[id(value)]
            if home.path.rpartition(".")[2] == attribute:
                lines += entry(value, home, documented)
            else:
                lines += directive("py:data", path, {}, [f"Another name of :py:obj:`~{home.path}`."])
    return "\n".join(lines)


def article(value: Any) -> str:
    return f"{type(value).__name__}"


def told(module: ModuleType, name: str) -> str:
    """Return the comment that stands behind an assignment or above it."""
    source = inspect.getsource(module)
    found = re.search(rf"^(?:# (.*)\n)?{name}\b[^=\n]*=.*?(?:  # (.*))?$", source, re.MULTILINE)
    return next(filter(None, found.groups()), "") if found else ""


# ---- modules that are not imported -----------------------------------------------------------------------------------


def tree_of(name: str) -> ast.Module:
    path = ROOT / name.replace(".", "/")
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(path.read_text(encoding="utf-8"))


def names_in_source(name: str) -> list[str]:
    """Return a module's ``__all__``, a list of strings, from its source."""
    for node in tree_of(name).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    raise ValueError(f"{name} has no __all__")


def functions_in_source(name: str) -> dict[str, ast.FunctionDef]:
    """Return the functions of ``__all__``, which stand in the module or in one that it imports them from."""
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
    arguments = ast.parse(ast.unparse(function.args).join(("def f(", "): pass"))).body[0].args  # type: ignore[attr-defined]
    for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg):
        if argument is not None:
            argument.annotation = None
    return f"({ast.unparse(arguments)})"


def source_page(name: str, docstring: Any) -> str:
    """Return the page of a module that is not imported; `docstring` turns a docstring into lines."""
    functions = functions_in_source(name)
    lines = [*heading(name), *directive("py:module", name), *docstring(ast.get_docstring(tree_of(name)) or "")]
    for function in names_in_source(name):
        node = functions[function]
        lines += directive(
            "py:function", f"{name}.{function}{signature(node)}", {}, docstring(ast.get_docstring(node) or "")
        )
    return "\n".join(lines)


# ---- all pages -------------------------------------------------------------------------------------------------------


def first_line(module: str) -> str:
    return (ast.get_docstring(tree_of(module)) or "").partition("\n")[0]


def index(names: list[str]) -> str:
    """Return the page that lists all others, with what their modules say of themselves."""
    lines = heading("API reference")
    lines += [
        "Everything public, by module. Users write the short names, ``fastbp.Adam``, which :doc:`fastbp` lists; the numpy",
        "reference implementations in ``fastbp.reference`` have the same names and arguments as what they explain.",
        "",
    ]
    lines += directive("toctree", "", {"hidden": "", "maxdepth": "1"}, names)
    for name in names:
        lines += [f":doc:`{name}`", f"   {escaped(first_line(name), {})}", ""]
    return "\n".join(lines)


def pages(docstring: Any) -> dict[str, str]:
    """Return the text of each page by its name."""
    modules = public_modules()
    documented = homes(modules)
    made = {module.__name__: imported_page(module, documented) for module in modules}
    made |= {name: source_page(name, docstring) for name in FROM_SOURCE}
    names = sorted(made)
    return {"index": index(names)} | {name: made[name] for name in names}


# ---- docstrings ------------------------------------------------------------------------------------------------------

CODE = re.compile(r"(``.+?``|(?<![\w:`])`[^`\n]+`(?![`_]))")


def escaped(text: str, targets: Mapping[str, str]) -> str:
    """Return a line of a docstring as reStructuredText: formulas are no markup, and names in backticks are links."""
    if text.lstrip().startswith("*"):  # arguments, `*chain : Unit`, which numpydoc escapes itself
        return text
    parts = CODE.split(text)
    return "".join(code(part, targets) if i % 2 else re.sub(r"([|*])", r"\\\1", part) for i, part in enumerate(parts))


def code(part: str, targets: Mapping[str, str]) -> str:
    name = part.strip("`")
    if part.startswith("``"):
        return part
    target = targets.get(name.removeprefix("fastbp."))
    return f":py:obj:`{name} <{target}>`" if target else f"``{name}``"


def escaped_lines(lines: Iterable[str], targets: Mapping[str, str]) -> list[str]:
    """Do so with a docstring, but for its examples."""
    made, in_example = [], False
    for line in lines:
        in_example = line.lstrip().startswith(">>>") or (in_example and bool(line.strip()))
        made.append(line if in_example else escaped(line, targets))
    return made


def link_targets() -> dict[str, str]:
    """Return the paths of the names that `fastbp` exports, for the links of docstrings."""
    modules = public_modules()
    documented = homes(modules)
    return {
        name: documented[id(value)].path
        for module in reversed(modules)
        if module.__name__ not in ADDED
        for name, value in exported(module)
        if is_code(value)
    }


def write(app: Any) -> None:
    """Write the pages into docs/api, those that have changed."""
    from numpydoc.docscrape_sphinx import SphinxDocString

    def docstring(text: str) -> list[str]:
        lines = escaped_lines(text.splitlines(), targets)
        return str(SphinxDocString("\n".join(lines), {"use_blockquotes": False})).splitlines()

    targets = link_targets()
    app.connect(
        "autodoc-process-docstring",
        lambda app, what, name, value, options, lines: lines.__setitem__(slice(None), escaped_lines(lines, targets)),
        priority=100,  # before numpydoc's
    )
    folder = Path(app.srcdir) / "api"
    folder.mkdir(exist_ok=True)
    made = pages(docstring)
    for old in folder.glob("*.rst"):
        if old.stem not in made:
            old.unlink()
    for name, text in made.items():
        path = folder / f"{name}.rst"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def setup(app: Any) -> dict[str, bool]:
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
