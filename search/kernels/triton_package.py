"""Whether the package triton is there; without it all but the kernels works."""

from importlib.util import find_spec

HAS_TRITON = find_spec("triton") is not None


def require_triton_package(asked: str = "triton=True", otherwise: str = "pass triton=None") -> None:
    """ValueError without it, for what was asked of which argument, with the way out.

    Called where a kernel runs and not before: fake tensors, which the planner counts, need none.
    """
    if not HAS_TRITON:
        raise ValueError(f"{asked} needs the package triton: install it, or {otherwise}.")
