"""One HTML file that holds all that it shows, opens from disk, and asks nobody for anything."""

import base64
import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from bokeh.embed import components
from bokeh.models import Model
from bokeh.resources import Resources
from markupsafe import Markup

HERE = Path(__file__).parent
GENERATOR = "jaxmlp"  # a page names it in its head, and is known by it
MARK = f'<meta name="generator" content="{GENERATOR}">'
FRAME_SCRIPT = "page.js"


def render(
    template: str,
    figures: Mapping[str, Model],
    *,
    scripts: Sequence[str] = (),
    data: Any = None,
    **values: Any,
) -> bytes:
    """A page from a template, UTF-8.

    Args:
        template: a name in templates/; what it shows of `values` is escaped.
        figures: by the names that the template has for them; they may share their sources.
        scripts: names in static/, run in this order after the plots are there.
        data: for the scripts, which find it as JSON in the element `data`.
    """
    plots, places = components(dict(figures), wrap_script=False) if figures else ("", {})
    sources = [bokeh_source(), *map(static, (FRAME_SCRIPT, *scripts)), plots]
    page = _templates().get_template(template)
    text = page.render(
        figures={name: Markup(place) for name, place in places.items()},  # Bokeh's own element
        mark=Markup(MARK),
        policy=_policy(sources),
        scripts=[Markup(source) for source in sources],  # ours and Bokeh's; data are no part
        data=as_json(data),
        style=Markup(static("page.css")),
        **values,
    )
    return text.encode()


def as_json(value: Any) -> Markup:
    """JSON that no element of a page ends: it holds no `<`."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c"))


@functools.cache
def static(name: str) -> str:
    """A file of static/."""
    return (HERE / "static" / name).read_text(encoding="utf-8")


@functools.cache
def bokeh_source() -> str:
    """Bokeh's own JavaScript without what no page uses: widgets, tables, formulas."""
    return "\n".join(Resources(mode="inline", components=["bokeh"]).js_raw)


def _policy(scripts: Sequence[str]) -> str:
    """What a browser lets the page do: run these scripts, and fetch nothing."""
    digests = (hashlib.sha256(script.encode()).digest() for script in scripts)
    allowed = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
        "img-src data: blob:; font-src data:; base-uri 'none'; form-action 'none'"
    )


@functools.cache
def _templates() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
