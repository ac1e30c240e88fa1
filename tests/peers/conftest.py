"""Programs that install.sh took from npm are found first: where Debian's Node is too old, Node is one of them."""

import os

from tests.support.repository import ROOT

os.environ["PATH"] = os.pathsep.join([str(ROOT / "tests" / "peers" / "node_modules" / ".bin"), os.environ["PATH"]])
