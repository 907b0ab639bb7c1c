"""The documentation site: ``python -m sphinx -W -n docs FOLDER`` builds it.

The pages read on GitHub too, so of MyST's own syntax only ``{toctree}`` in index.md, ``{eval-rst}``
in api.md, ``$`` for formulas and ``{literalinclude}`` of the files in benchmarks/, with a link to
each, are used.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from docutils import nodes
from latex2mathml.converter import convert
from numpy.typing import ArrayLike, NDArray
from sphinx.application import Sphinx
from sphinx.util.typing import stringify_annotation
from sphinx.writers.html5 import HTML5Translator

from optuna_lcpruner.version import __version__

project = "optuna-lcpruner"
author = "the optuna-lcpruner authors"
release = version = __version__
html_title = f"{project} {release}"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
include_patterns = ["*.md"]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4  # as on GitHub

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_use_ivar = True  # attributes as a list, not one entry each; their types are above it
napoleon_attr_annotations = False
napoleon_use_rtype = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80

# Types of other packages: building the site needs no network, so there is nothing to link them to.
nitpick_ignore_regex = [
    ("py:.*", r"(optuna|numpy|sqlalchemy)\..*"),
    ("py:.*", r"(collections|concurrent|datetime|logging|pathlib|threading|typing)(\..*)?"),
]
nitpick_ignore = [
    *(("py:class", name) for name in ("Array", "ArrayLike", "IntArray")),
    ("py:exc", "InputError"),  # named without their modules where they are raised
    ("py:exc", "LedgerError"),
    ("py:class", "optuna_lcpruner.decision.decision.Description"),  # of a constructor for us
    ("py:class", "optuna_lcpruner.posterior.interface.Made"),  # a type variable
]

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = html_show_sourcelink = html_show_copyright = False
html_math_renderer = "mathml"

copybutton_prompt_text = "$ "
pygments_style = "friendly"
highlight_language = "text"


ARRAYS = {"ArrayLike": ArrayLike, "Array": NDArray[np.float64], "IntArray": NDArray[np.int64]}


def formula(self: HTML5Translator, node: nodes.Element) -> None:
    """A formula as MathML, which browsers draw themselves: no script, no network."""
    display = "block" if isinstance(node, nodes.math_block) else "inline"
    self.body.append(convert(node.astext(), display=display))
    raise nodes.SkipNode


def readable(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str, returned: str
) -> tuple[str, str] | None:
    """Array types by their names; ``...`` for what a factory makes, and plain numbers."""
    if not signature:
        return None
    for name, alias in ARRAYS.items():
        spelled_out = stringify_annotation(alias, "smart")
        signature = signature.replace(spelled_out, name)
        returned = returned and returned.replace(spelled_out, name)
    signature = signature.replace("<factory>", "...")
    signature = re.sub(r"np\.float64\(([^)]*)\)", lambda m: f"{float(m[1]):.2g}", signature)
    return signature, returned


def in_korean(
    app: Sphinx, page: str, template: str, context: dict[str, Any], document: nodes.Node | None
) -> None:
    """Says which pages are in Korean; browsers and screen readers read them accordingly."""
    if page.endswith("_ko"):
        context["language"] = "ko"


def setup(app: Sphinx) -> None:
    """Registers the above."""
    app.connect("autodoc-process-signature", readable)
    app.connect("html-page-context", in_korean)
    app.add_html_math_renderer("mathml", (formula, None), (formula, None))
