class OptimMixin:
    _stabilize: int | None
