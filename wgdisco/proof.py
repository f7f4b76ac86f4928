"""What shows that a member itself asks for something: any program of its host speaks from its address.

`shared` is the Diffie-Hellman of the registry's static key and the member's: nobody else can make such a proof.
"""

import hashlib
from dataclasses import dataclass
from typing import Any, Self

from wgdisco.api import parse_body
from wgdisco.keys import PublicKey


def rotation_proof(shared: bytes, next_key: PublicKey) -> str:
    """The member of this key goes over to `next_key`."""
    return hashlib.blake2s(b"wgdisco rotate 1" + next_key.raw, key=shared).hexdigest()


def leaving_proof(shared: bytes, key: PublicKey) -> str:
    """The member of `key` is one no longer."""
    return hashlib.blake2s(b"wgdisco leave 1" + key.raw, key=shared).hexdigest()


@dataclass(frozen=True, slots=True)
class LeaveRequest:
    """A member goes: the body of `DELETE /v1/self`, with its `leaving_proof`."""

    proof: str

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Read a request's body; ValueError says what is wrong with it."""
        proof = parse_body(data).get("proof")
        if not isinstance(proof, str):
            raise ValueError("proof: missing")
        return cls(proof)
