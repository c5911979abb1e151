"""What tests of studies share: the style of figures, and a very small policy to start from."""

from dataclasses import replace

import matplotlib
import pytest

from posttrain.evidence import records, style
from posttrain.models import embedded


@pytest.fixture(scope="module")
def praising(tmp_path_factory, tiny_settings):
    """Folder of a small policy that praises, which studies take while a module is tested."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POSTTRAIN_CACHE", str(tmp_path_factory.getbasetemp() / "praising"))
        patch.setattr(embedded, "PRAISING", replace(tiny_settings, praise=0.8))
        yield embedded.tiny(embedded.PRAISING)


@pytest.fixture(scope="module")
def committed():
    """Finished runs can be kept, as those of committed code are."""
    where = records.machine() | {"commit": "of these tests"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "machine", lambda: where)
        yield where


@pytest.fixture
def drawn():
    """The style of all figures while a test draws; its figures are closed behind it."""
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    with matplotlib.rc_context():
        style.use_style()
        yield
    plt.close("all")
