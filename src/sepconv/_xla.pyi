"""The XLA FFI handlers. Absent where jaxlib was not installed when sepconv was built."""

api_version: tuple[int, int]

def registrations() -> dict[str, object]: ...
