"""Drawings of feature maps, kernels, receptive fields, losses and parity, by matplotlib (the extra `plot`).

Each function takes tensors of any backend, draws into the Axes `ax`, and returns it for titles and the rest. Without
`ax` it draws into pyplot's current Axes, `plt.gca()`, as seaborn and xarray do; with `ax`, pyplot isn't even imported.
No function changes the figure, its background or matplotlib's settings.

>>> from matplotlib.figure import Figure
>>> import convlab
>>> ax = Figure().subplots()
>>> convlab.plot.kernels(convlab.filters.sobel(1), ax=ax) is ax
True
>>> [text.get_text() for text in ax.texts]
['-1', '0', '1', '-2', '0', '2', '-1', '0', '1']
"""

from .bounds import parity
from .curves import losses
from .fields import receptive_field
from .maps import feature_maps, kernels

__all__ = ["feature_maps", "kernels", "losses", "parity", "receptive_field"]
