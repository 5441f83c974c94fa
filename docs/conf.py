"""The site: Markdown pages, which GitHub shows as well, and a reference out of the docstrings. ``make docs``."""

import os
import tempfile

# Whoever imports Airflow gets a home made for him; the reader of docstrings needs none of his own.
os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="pika-docs-")

from airflow_provider_pika import __version__

project = "airflow-provider-pika"
version = release = __version__
project_copyright = "Apache-2.0"

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
# Every heading is a target, as on GitHub.
myst_heading_anchors = 3

autodoc_default_options = {"show-inheritance": True, "member-order": "bysource"}
# The docstrings tell types where they matter; the signatures stay readable.
autodoc_typehints = "none"

html_theme = "furo"
html_title = "airflow-provider-pika"
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
html_show_sphinx = False
