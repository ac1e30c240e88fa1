"""Templates, and the files beside them: served by us, under names that change with their content."""

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from msgspec import Struct

from controller import __version__
from controller.web.words import FILTERS, STATES, VERDICTS

HERE = Path(__file__).parent
STYLE = "rampart.css"
SCRIPTS = ("htmx.min.js", "sse.min.js", "rampart.js")
MEDIA_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


class Asset(Struct, frozen=True, kw_only=True):
    """`integrity` is what browsers hold the file against."""

    name: str
    body: bytes
    media_type: str
    version: str
    integrity: str

    @property
    def path(self) -> str:
        return f"/assets/{self.version}/{self.name}"


def load_assets() -> Mapping[str, Asset]:
    files = [
        *HERE.joinpath("static").glob("*.css"),
        *HERE.joinpath("static").glob("*.js"),
        *HERE.joinpath("static").glob("*.svg"),
        *HERE.joinpath("static", "vendor").glob("*.js"),
    ]
    return {file.name: _asset(file) for file in files}


def _asset(file: Path) -> Asset:
    body = file.read_bytes()
    digest = hashlib.sha256(body)
    return Asset(
        name=file.name,
        body=body,
        media_type=MEDIA_TYPES[file.suffix],
        version=digest.hexdigest()[:16],
        integrity=f"sha256-{base64.b64encode(digest.digest()).decode()}",
    )


class Renderer:
    def __init__(self) -> None:
        self.assets = load_assets()
        self._templates = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            auto_reload=False,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters |= FILTERS
        self._templates.globals |= {
            "style": self.assets[STYLE],
            "scripts": [self.assets[name] for name in SCRIPTS],
            "icon": self.assets["rampart.svg"],
            "STATES": STATES,
            "VERDICTS": VERDICTS,
            "version": __version__,
        }

    def page(self, template: str, **context: Any) -> str:
        return self._templates.get_template(template).render(context)

    def part(self, template: str, **context: Any) -> Markup:
        """Already escaped: to be put into a page, or sent to one."""
        return Markup(self._templates.get_template(template).render(context))  # noqa: S704 - the template escapes
