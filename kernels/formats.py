"""Every format by the name that a checkpoint's header uses."""

from kernels.format import Format
from kernels.outliers import WithOutliers
from kernels.plain import PLAIN

FORMATS: dict[str, type[Format]] = PLAIN | {WithOutliers.name: WithOutliers}
