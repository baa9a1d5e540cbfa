"""The documentation site that `make docs` builds: its links, its API reference, and how it looks in a browser.

`make test-docs` runs these tests. The browser is the system's Chromium, which playwright drives; it reaches nothing but
a server of this process. Screenshots go into build/site-screenshots.
"""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import os
import shutil
import threading
import zlib
from collections.abc import Iterator
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

import fastbp

pytestmark = pytest.mark.site

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "build" / "site"
SCREENSHOTS = ROOT / "build" / "site-screenshots"
PAGES = sorted(path.relative_to(SITE).as_posix() for path in SITE.rglob("*.html"))
WIDTHS = {"phone": (390, 844), "desktop": (1280, 900)}
THEMES = ("light", "dark")
FROM_SOURCE = ("fastbp.jax", "fastbp.torch")  # which import libraries that a build of the site does not need
LEAST_CONTRAST = 4.5  # of text, WCAG 2.1 level AA


def test_the_site_is_built() -> None:
    assert "index.html" in PAGES, "make docs builds it"


# ---- files -----------------------------------------------------------------------------------------------------------


class Links(HTMLParser):
    """The anchors of a page, where its links lead, and what the browser loads for it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value for name, value in attrs if value is not None}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if "src" in given:
            self.loaded.append(given["src"])
        if "href" in given:
            (self.links if tag == "a" else self.loaded).append(given["href"])


@functools.cache
def links_of(page: Path) -> Links:
    return Links(page.read_text(encoding="utf-8"))


def broken(page: Path, link: str) -> bool:
    """Whether a link leads to no file of the site, or to no anchor of its page."""
    parts = urlsplit(link)
    target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    if not target.is_file() or not target.is_relative_to(SITE):
        return True
    return bool(parts.fragment) and target.suffix == ".html" and unquote(parts.fragment) not in links_of(target).anchors


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_to_a_page_and_its_anchor(name: str) -> None:
    page = SITE / name
    found = links_of(page)
    internal = [link for link in found.links + found.loaded if not urlsplit(link).scheme and link != "#"]
    assert internal
    assert [link for link in internal if broken(page, link)] == []


@pytest.mark.parametrize("name", PAGES)
def test_a_page_loads_nothing_from_elsewhere(name: str) -> None:
    assert [link for link in links_of(SITE / name).loaded if urlsplit(link).scheme not in ("", "data")] == []


def test_a_missing_page_and_a_missing_anchor_are_broken_links() -> None:
    index = SITE / "index.html"
    assert not broken(index, "tour.html") and not broken(index, "api/fastbp.html#module-fastbp")
    assert broken(index, "no.html") and broken(index, "api/fastbp.html#no") and broken(index, "../../README.md")


# ---- the API reference -----------------------------------------------------------------------------------------------


@functools.cache
def documented() -> dict[str, str]:
    """Return the names of Python objects in the site's inventory, and their pages."""
    lines = (SITE / "objects.inv").read_bytes().split(b"\n", 4)
    entries = [line.split(" ", 4) for line in zlib.decompress(lines[4]).decode().splitlines()]
    return {name: uri.replace("$", name) for name, domain, _, uri, _ in entries if domain.startswith("py:")}


def resolved(name: str) -> Any:
    """Return the object of a dotted name, a property as itself."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        if is_module(parts[:end]):
            value: Any = importlib.import_module(".".join(parts[:end]))
            for part in parts[end:]:
                value = inspect.getattr_static(value, part) if inspect.isclass(value) else getattr(value, part)
            return value
    raise LookupError(name)


def is_module(parts: list[str]) -> bool:
    path = ROOT.joinpath(*parts)
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def exported(module: str) -> list[str]:
    """Return ``__all__`` of a module that is not imported, from its source."""
    path = ROOT.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    raise LookupError(module)


def test_every_public_name_is_on_a_page_of_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "tools")
    names = importlib.import_module("check_docstrings").public_names()
    sklearn = importlib.import_module("fastbp.sklearn")
    wanted = [*names, *(f"fastbp.sklearn.{name}" for name in sklearn.__all__)]
    assert all(page.startswith("api/") for page in documented().values())
    there = {id(resolved(name)) for name in documented() if not name.startswith(FROM_SOURCE)}
    wanted = [name for name in wanted if not name.startswith(FROM_SOURCE)]
    assert len(wanted) > 600
    assert [name for name in wanted if id(resolved(name)) not in there] == []


@pytest.mark.parametrize("module", FROM_SOURCE)
def test_bridges_are_documented_where_their_libraries_are_not_installed(module: str) -> None:
    assert [name for name in exported(module) if f"{module}.{name}" not in documented()] == []


@pytest.mark.parametrize("name", ["Adam", "MLP", "sigmoid", "train"])
def test_the_reference_has_signature_arguments_and_example(name: str) -> None:
    text = (SITE / documented()[f"fastbp.{name}"].partition("#")[0]).read_text(encoding="utf-8")
    entry = text[text.index(f'id="fastbp.{name}"') :]
    for part in ("sig-paren", "Parameters", "Examples", "&gt;&gt;&gt; "):
        assert 0 < entry.find(part) < 60_000, part


# ---- in a browser ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """Serve the site to this machine alone."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            """Write no line for each file."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(SITE)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def chromium() -> str:
    """Return the path of the browser, which `make test-docs` finds; end the tests where there is none."""
    found = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if found is None:
        pytest.exit("no chromium: install it, or set CHROMIUM=/path/to/chrome", returncode=1)
    return found


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield started
        started.close()


class Window:
    """A window of the browser, and what went wrong in it."""

    def __init__(self, browser: Any, address: str, width: str) -> None:
        self.address, self.width = address, width
        self.faults: list[str] = []
        size = dict(zip(("width", "height"), WIDTHS[width], strict=True))
        self.page = browser.new_page(viewport=size, reduced_motion="reduce")
        self.page.on("console", lambda message: self.note(message.text) if message.type == "error" else None)
        self.page.on("pageerror", lambda error: self.note(str(error)))
        self.page.on("requestfailed", lambda request: self.note(f"failed: {request.url}"))
        self.page.on("request", lambda request: self.check(request.url))

    def note(self, fault: str) -> None:
        self.faults.append(fault)

    def check(self, url: str) -> None:
        if not url.startswith((self.address, "data:")):
            self.note(f"asked for {url}")

    def open(self, name: str) -> None:
        self.faults.clear()
        self.page.goto(f"{self.address}/{name}", wait_until="load")


@pytest.fixture(scope="session", params=WIDTHS)
def window(request: pytest.FixtureRequest, browser: Any, address: str) -> Iterator[Window]:
    made = Window(browser, address, request.param)
    yield made
    made.page.close()


# Whatever is wider than the window must lie in a box of the article that scrolls or hides: the theme hides the rest.
WIDER = """() => [...document.querySelectorAll("article *")].filter(e => {
    const box = e.getBoundingClientRect();
    if (box.width === 0 || box.right <= window.innerWidth + 1) return false;
    for (let p = e; p.tagName !== "ARTICLE"; p = p.parentElement)
        if (getComputedStyle(p).overflowX !== "visible" && p.getBoundingClientRect().right <= window.innerWidth + 1)
            return false;
    return true;
}).slice(-5).map(e => `${e.tagName}.${e.className}: ${e.textContent.trim().slice(0, 60)}`)"""

MISSING = "() => [...document.images].filter(i => !(i.complete && i.naturalWidth > 0)).map(i => i.src)"

# The contrast of text with the nearest background behind it that is not transparent, by WCAG; of what is shown.
FAINT = """least => {
    const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
    const known = new Map();
    const rgba = colour => {
        if (!known.has(colour)) {
            canvas.clearRect(0, 0, 1, 1);
            canvas.fillStyle = colour;
            canvas.fillRect(0, 0, 1, 1);
            known.set(colour, [...canvas.getImageData(0, 0, 1, 1).data]);
        }
        return known.get(colour);
    };
    const linear = v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    const light = colour => 0.2126 * linear(colour[0] / 255) + 0.7152 * linear(colour[1] / 255)
        + 0.0722 * linear(colour[2] / 255);
    const behind = element => {
        for (let e = element; e; e = e.parentElement) {
            const colour = rgba(getComputedStyle(e).backgroundColor);
            if (colour[3] > 200) return colour;
        }
        return [255, 255, 255, 255];
    };
    const found = new Map();
    for (const e of document.querySelectorAll("article *, .sidebar-tree *, .toc-tree *")) {
        const hasText = [...e.childNodes].some(n => n.nodeType === Node.TEXT_NODE && n.textContent.trim());
        if (!hasText || !e.checkVisibility()) continue;
        const colours = [rgba(getComputedStyle(e).color), behind(e)].map(light);
        const ratio = (Math.max(...colours) + 0.05) / (Math.min(...colours) + 0.05);
        const name = `${e.tagName}.${e.className} in ${e.parentElement.tagName}`;
        if (ratio < least) found.set(name, `${ratio.toFixed(2)} ${name}: ${e.textContent.trim().slice(0, 30)}`);
    }
    return [...found.values()];
}"""


@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_and_has_its_pictures(window: Window, name: str) -> None:
    window.open(name)
    assert window.page.evaluate("document.scrollingElement.scrollWidth <= window.innerWidth")
    assert window.page.evaluate(WIDER) == []
    assert window.page.evaluate(MISSING) == []
    for theme in THEMES:
        window.page.emulate_media(color_scheme=theme)
        path = SCREENSHOTS / f"{window.width}-{theme}" / f"{name.replace('/', '.').removesuffix('.html')}.png"
        window.page.screenshot(path=path)
        assert window.page.evaluate(FAINT, LEAST_CONTRAST) == [], theme
    assert window.faults == []


def test_the_themes_are_light_and_dark(window: Window) -> None:
    window.open("index.html")
    seen = []
    for theme in THEMES:
        window.page.emulate_media(color_scheme=theme)
        seen.append(window.page.evaluate("getComputedStyle(document.body).backgroundColor"))
    light, dark = ([int(part) for part in colour[4:-1].split(",")] for colour in seen)
    assert min(light) > 240 and max(dark) < 40


def test_the_search_finds_names_and_words(window: Window) -> None:
    found = {"local_response_norm_backward": "api/fastbp.functional.images.html", "roofline": "performance.html"}
    for asked, page in found.items():
        window.open(f"search.html?q={asked}")
        first = window.page.locator("#search-results ul.search a").first
        first.wait_for(timeout=30_000)
        links = window.page.locator("#search-results ul.search a").evaluate_all("found => found.map(a => a.href)")
        assert any(page in link for link in links), (asked, links)
        window.page.screenshot(path=SCREENSHOTS / f"search-{window.width}-{asked}.png")
        assert window.faults == []


def test_faults_of_a_page_are_seen(browser: Any, address: str) -> None:
    """A checker is checked with something wrong."""
    window = Window(browser, address, "phone")
    window.open("index.html")
    window.page.evaluate("""async () => {
        document.querySelector("article").insertAdjacentHTML("beforeend",
            `<p id="wide" style="width: 900px; color: #ccc; background: #fff">wide</p><img src="no.png">`);
        console.error("a fault");
        await new Promise(done => document.querySelector('img[src="no.png"]').onerror = done);
    }""")
    assert "wide" in window.page.evaluate(WIDER)[-1]
    assert [path.rpartition("/")[2] for path in window.page.evaluate(MISSING)] == ["no.png"]
    assert any("wide" in found for found in window.page.evaluate(FAINT, LEAST_CONTRAST))
    assert "a fault" in window.faults
    window.page.close()


def test_the_version_is_that_of_the_package() -> None:
    assert f"fastbp {fastbp.__version__}" in (SITE / "index.html").read_text(encoding="utf-8")
