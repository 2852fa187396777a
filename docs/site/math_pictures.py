"""Formulas as pictures that matplotlib draws, so that no script of another host is needed."""

import base64
import html
import io
from typing import Any

from docutils import nodes
from matplotlib.font_manager import FontProperties
from matplotlib.mathtext import math_to_image

RENDERER = "matplotlib"
FONT = FontProperties(size=12)  # points: as large as the text around it


def picture(latex: str) -> str:
    """HTML of a formula: an SVG image, or the source where matplotlib cannot read it."""
    formula = " ".join(latex.split())
    content = io.BytesIO()
    try:
        depth = math_to_image(f"${formula}$", content, FONT, dpi=72, format="svg")
    except ValueError:
        return f"<code>{html.escape(formula)}</code>"
    data = base64.b64encode(content.getvalue()).decode()
    text = html.escape(formula, quote=True)
    source = f"data:image/svg+xml;base64,{data}"
    return (
        f'<img class="formula" alt="{text}" src="{source}" style="vertical-align:-{depth:.1f}px">'
    )


def _inline(translator: Any, node: nodes.math) -> None:
    translator.body.append(picture(node.astext()))
    raise nodes.SkipNode


def _block(translator: Any, node: nodes.math_block) -> None:
    rows = [picture(row) for row in node.astext().split(r"\\")]
    translator.body.append(f"<p>{'<br>'.join(rows)}</p>")
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, bool]:
    """Register with Sphinx."""
    app.add_html_math_renderer(RENDERER, (_inline, None), (_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
