"""How `_burst.c` becomes the module `wgdisco.tunnel._native`: cffi in API mode, linked to libcrypto.

setup.py builds it into the wheel; run as a program, this builds it beside its source.
"""

from pathlib import Path

from cffi import FFI

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

ffibuilder = FFI()
ffibuilder.cdef((HERE / "_burst.h").read_text())
ffibuilder.set_source(
    "wgdisco.tunnel._native",
    '#include <stdint.h>\n#include "_burst.h"\n',
    sources=["wgdisco/tunnel/_burst.c", "wgdisco/tunnel/_burst_io.c"],
    include_dirs=["wgdisco/tunnel"],
    libraries=["crypto"],
    extra_compile_args=["-O3", "-g0"],
    optional=True,  # without a compiler or libcrypto's headers the reference runs
)

if __name__ == "__main__":
    ffibuilder.compile(str(ROOT), verbose=True)
    for left in (HERE / "_native.c", HERE / "_native.o", HERE / "_burst.o", HERE / "_burst_io.o"):
        left.unlink(missing_ok=True)
