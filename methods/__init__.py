"""Weight and statistics in, format out. The table below is the registry: one paper a file, one line here."""

import difflib

from methods.awq import AWQ
from methods.cvxq import CVXQ
from methods.dense import DenseMethod
from methods.gptq import GPTQ
from methods.higgs import HIGGS
from methods.hqq import HQQ
from methods.magnitude import Magnitude
from methods.method import Method
from methods.nowag_p import NoWagP
from methods.nowag_vq import NoWagVQ
from methods.qtip import QTIP
from methods.quip_sharp import QuIPSharp
from methods.rtn import RTN
from methods.sparsegpt import SparseGPT
from methods.wanda import Wanda

METHODS: dict[str, type[Method]] = {
    "dense": DenseMethod,
    "magnitude": Magnitude,
    "wanda": Wanda,
    "sparsegpt": SparseGPT,
    "nowag-p": NoWagP,
    "rtn": RTN,
    "hqq": HQQ,
    "higgs": HIGGS,
    "gptq": GPTQ,
    "awq": AWQ,
    "quip-sharp": QuIPSharp,
    "qtip": QTIP,
    "cvxq": CVXQ,
    "nowag-vq": NoWagVQ,
}


def method_named(name: str) -> type[Method]:
    """The class registered under `name`. LookupError suggests the nearest name and lists them all."""
    if name in METHODS:
        return METHODS[name]
    close = difflib.get_close_matches(name, METHODS, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise LookupError(f"No method {name!r}.{hint} Known: {', '.join(METHODS)}.")
