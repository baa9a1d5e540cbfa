from typing_extensions import disjoint_base

@disjoint_base
class CallLock:
    message: str | None
    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...
