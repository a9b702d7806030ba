"""Settings of the documentation: ``make docs``."""

import os
import sys
from pathlib import Path

from torchgeo_ctm.version import __version__

sys.path.insert(0, str(Path(__file__).parent / '_extensions'))

project = 'torchgeo-ctm'
author = 'torchgeo-ctm contributors'
project_copyright = author
version = release = __version__

extensions = [
    'ctm_docs',
    'myst_nb',
    'sphinx.ext.autodoc',
    'sphinx.ext.napoleon',
    'sphinx_copybutton',
]
exclude_patterns = ['_build', '_extensions', '**.ipynb_checkpoints']

myst_enable_extensions = ['colon_fence', 'deflist', 'dollarmath', 'fieldlist']
myst_heading_anchors = 3
# notebooks show what they were stored with; running them is their own test's matter
nb_execution_mode = os.environ.get('CTM_DOCS_EXECUTE', 'off')

autodoc_member_order = 'bysource'
autodoc_typehints = 'description'
autodoc_typehints_description_target = 'documented'
autodoc_default_options = {'members': True, 'show-inheritance': True}
autoclass_content = 'both'
napoleon_numpy_docstring = False
napoleon_use_ivar = True
# 'first row, last row: (n, 4)' is no type and no description
napoleon_use_rtype = False

nitpicky = True
# other projects' names resolve through their own sites, where there is a network
nitpick_ignore_regex = [
    (r'py:.*', r'(?!torchgeo_ctm\b).*'),
    (r'py:class', r'torchgeo_ctm\..*\.T'),  # type variables have no page
]
if os.environ.get('CTM_DOCS_ONLINE'):
    extensions.append('sphinx.ext.intersphinx')
    intersphinx_mapping = {
        'lightning': ('https://lightning.ai/docs/pytorch/stable/', None),
        'numpy': ('https://numpy.org/doc/stable/', None),
        'python': ('https://docs.python.org/3', None),
        'rasterio': ('https://rasterio.readthedocs.io/en/stable/', None),
        'torch': ('https://docs.pytorch.org/docs/stable/', None),
        'torchgeo': ('https://torchgeo.readthedocs.io/en/stable/', None),
    }
# notebooks are optional, so a glob of them may be empty
suppress_warnings = ['toc.empty_glob', 'config.cache']

html_math_renderer = 'mathml'
# quotes alone: '--option' must not become a dash
smartquotes_action = 'q'
html_theme = 'pydata_sphinx_theme'
html_title = f'torchgeo-ctm {version}'
html_static_path = ['_static']
html_css_files = ['ctm.css']
html_theme_options = {
    'navigation_with_keys': False,
    'show_toc_level': 2,
    'secondary_sidebar_items': ['page-toc'],
    'navbar_align': 'left',
    'footer_start': ['copyright'],
    'footer_end': ['sphinx-version'],
}
html_sidebars = {'index': [], 'changes': []}
html_show_sourcelink = False
html_copy_source = False
copybutton_prompt_text = '$ '
