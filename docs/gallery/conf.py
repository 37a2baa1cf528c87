"""Sphinx configuration of the gallery. `latentpapers.report.gallery.build` writes the pages.

Nothing here may name an address: the gallery renders without a network.
"""

project = "Latent Papers"
extensions = ["myst_nb", "sphinx_design", "latentpapers.report.mathml"]
exclude_patterns = ["jupyter_execute", "_build"]
language = "en"
smartquotes = False  # printed numbers and ids stay as they are

nb_execution_mode = "off"
nb_ipywidgets_js = {}
nb_merge_streams = True
myst_enable_extensions = ["amsmath", "attrs_inline", "colon_fence", "dollarmath"]
myst_update_mathjax = False
myst_heading_anchors = 3
# Links in notebooks may point at files of the checkout that are no pages.
suppress_warnings = ["myst.xref_missing", "myst.header"]

html_theme = "furo"
html_title = "Latent Papers"
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["gallery.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
html_show_sphinx = False
html_last_updated_fmt = None
html_use_index = False
html_theme_options = {
    "light_css_variables": {"font-stack": "'DejaVu Sans', Arial, sans-serif"},
    "navigation_with_keys": True,
}
