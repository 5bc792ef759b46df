"""Triton kernels. Only the wrappers in `kernels` import them, and only where `kernels.backend.fused` says so."""
