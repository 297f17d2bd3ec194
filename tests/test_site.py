"""The pages build into a site without a warning, and the reference has the whole public API."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mmd_ddm

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_the_site_builds_and_names_everything(tmp_path):
    """A link to what is not there is a warning, as a page without a place in the navigation is."""
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(build, cwd=ROOT, env=quiet, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    reference = (tmp_path / "reference.html").read_text(encoding="utf-8")
    shown = {
        name.rpartition(".")[2] for name in re.findall(r'<h3 id="mmd_ddm\.([\w.]+)"', reference)
    }
    public = {getattr(mmd_ddm, name) for name in mmd_ddm.__all__ if name != "__version__"}
    public -= {mmd_ddm.bars, mmd_ddm.report}
    assert {one.__name__ for one in public} <= shown
    assert "write_report" in shown
    assert "images drawn for the verdict" in reference  # what a setting means
    assert "Float[Tensor, 'n d']" in reference.replace("&#39;", "'")
    assert list(tmp_path.rglob("*.py")) == []
    pages = [page.read_text(encoding="utf-8") for page in tmp_path.rglob("*.html")]
    assert not [link for page in pages for link in re.findall(r'href="(?:\.\./)*src/[^"]*"', page)]
