"""The report as one page of HTML that needs nothing else: its style, scripts and numbers inside.

What comes from a table is escaped, or is JSON in an element that is not executed; a policy in the
page lets only its own script run, by its hash, and nothing be loaded.
"""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from scaling.report import sections

_HERE = Path(__file__).parent
_SCRIPTS = ("chart.js", "law.js", "page.js", "allocation.js")


def page(report: dict[str, Any]) -> str:
    """The whole page, from what scaling.report.collect found."""
    style = (_HERE / "style.css").read_text(encoding="utf-8")
    code = "".join((_HERE / name).read_text(encoding="utf-8") for name in _SCRIPTS)
    script = f'(() => {{\n"use strict";\n{code}}})();\n'
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>Scaling law report</title>\n<style>{style}</style></head>\n"
        f"<body>\n{sections.body(report)}\n"
        f'<script type="application/json" id="data">{embedded(report)}</script>\n'
        f"<script>{script}</script>\n</body></html>\n"
    )


def embedded(report: dict[str, Any]) -> str:
    """JSON that no parser of HTML can take for anything else."""
    text = json.dumps(report, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"
