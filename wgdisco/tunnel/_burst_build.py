"""How `_burst.c` becomes the module `wgdisco.tunnel._native`: cffi in API mode, linked to libcrypto.

setup.py builds it into the wheel; run as a program, this builds it beside its source.
"""

from pathlib import Path

from cffi import FFI

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
HEADERS = ("_burst.h", "_lanes.h")
SOURCES = ("_burst.c", "_burst_io.c", "_lanes.c")

ffibuilder = FFI()
for header in HEADERS:
    ffibuilder.cdef((HERE / header).read_text())
ffibuilder.set_source(
    "wgdisco.tunnel._native",
    "#include <stdint.h>\n" + "".join(f'#include "{header}"\n' for header in HEADERS),
    sources=[f"wgdisco/tunnel/{source}" for source in SOURCES],
    include_dirs=["wgdisco/tunnel"],
    libraries=["crypto"],
    extra_compile_args=["-O3", "-g0"],
    optional=True,  # without a compiler or libcrypto's headers the reference runs
)

if __name__ == "__main__":
    ffibuilder.compile(str(ROOT), verbose=True)
    for source in ("_native.c", *SOURCES):
        (HERE / source).with_suffix(".o").unlink(missing_ok=True)
    (HERE / "_native.c").unlink(missing_ok=True)
