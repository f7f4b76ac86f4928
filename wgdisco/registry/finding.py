"""What a check found."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: `said` is what is, or what to do."""

    what: str
    ok: bool
    said: str

    def to_text(self) -> str:
        """One line."""
        return f"{'ok  ' if self.ok else 'FAIL'}  {self.what}: {self.said}"
