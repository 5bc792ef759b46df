"""CUDA C++ at run time: compiled by NVRTC for the GPU at hand, launched on PyTorch's current stream.

Both come with PyTorch's CUDA wheels (`cuda-bindings`), so no CUDA toolkit needs to be installed.
"""

import ctypes
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Argument = Tensor | int | float | None


def available() -> bool:
    """Whether the bindings are installed."""
    try:
        return torch.version.cuda is not None and importlib.util.find_spec("cuda.bindings") is not None
    except ModuleNotFoundError:  # not even `cuda` is
        return False


def most_shared_bytes(device: torch.device | int) -> int:
    """Shared memory that a block can have where its kernel asks for it."""
    properties: Any = torch.cuda.get_device_properties(device)  # which the type does not tell of
    return int(properties.shared_memory_per_block_optin)


class Kernel:
    """One function of some files, which are compiled as one text.

    Arguments are tensors (or None: a null pointer), 32-bit ints and 32-bit floats.
    """

    def __init__(self, sources: Sequence[Path], name: str, defines: Sequence[str], device: int) -> None:
        from cuda.bindings import driver

        major, minor = torch.cuda.get_device_capability(device)
        binary = _compile(sources, defines, f"sm_{major}{minor}")
        with torch.cuda.device(device):
            torch.cuda.current_stream()  # the context must exist before a module is loaded
            module = _checked(driver.cuModuleLoadData(binary))
            self._function = _checked(driver.cuModuleGetFunction(module, name.encode()))
        self._attributes = [_early()] if major >= 9 else []
        kinds = driver.CUfunction_attribute
        own = _checked(driver.cuFuncGetAttribute(kinds.CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, self._function))
        limit = kinds.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        _checked(driver.cuFuncSetAttribute(self._function, limit, most_shared_bytes(device) - own))

    def __call__(self, grid: int, threads: int, shared_bytes: int, arguments: Sequence[Argument]) -> None:
        from cuda.bindings import driver

        stream = torch.cuda.current_stream().cuda_stream
        values = tuple(a.data_ptr() if isinstance(a, Tensor) else a or 0 for a in arguments)
        kinds = tuple(
            ctypes.c_void_p
            if a is None or isinstance(a, Tensor)
            else ctypes.c_float
            if isinstance(a, float)
            else ctypes.c_int
            for a in arguments
        )
        config = driver.CUlaunchConfig()
        config.gridDimX, config.gridDimY, config.gridDimZ = grid, 1, 1
        config.blockDimX, config.blockDimY, config.blockDimZ = threads, 1, 1
        config.sharedMemBytes, config.hStream = shared_bytes, stream
        config.attrs, config.numAttrs = self._attributes, len(self._attributes)
        _checked(driver.cuLaunchKernelEx(config, self._function, (values, kinds), 0))


def _early() -> Any:
    """That a launch may begin before the one before it has ended; the kernel itself waits where it must."""
    from cuda.bindings import driver

    attribute = driver.CUlaunchAttribute()
    attribute.id = driver.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
    attribute.value.programmaticStreamSerializationAllowed = 1
    return attribute


def _compile(sources: Sequence[Path], defines: Sequence[str], architecture: str) -> bytes:
    from cuda.bindings import nvrtc

    text = b"\n".join(source.read_bytes() for source in sources)
    program = _checked(nvrtc.nvrtcCreateProgram(text, sources[-1].name.encode(), 0, [], []))
    options = [f"--gpu-architecture={architecture}".encode(), *(f"-D{define}".encode() for define in defines)]
    (status,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        log = bytearray(_checked(nvrtc.nvrtcGetProgramLogSize(program)))
        _checked(nvrtc.nvrtcGetProgramLog(program, log))
        raise RuntimeError(f"{sources[-1].name} does not compile for {architecture}:\n{log.decode()}")
    binary = bytearray(_checked(nvrtc.nvrtcGetCUBINSize(program)))
    _checked(nvrtc.nvrtcGetCUBIN(program, binary))
    _checked(nvrtc.nvrtcDestroyProgram(program))
    return bytes(binary)


def _checked(result: tuple[Any, ...]) -> Any:
    status, *values = result
    if int(status) != 0:
        raise RuntimeError(f"CUDA: {status.name}")
    return values[0] if len(values) == 1 else tuple(values)
