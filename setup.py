"""What pyproject.toml cannot say: that the data path's inner loop is compiled, where that is possible.

It keeps to the stable ABI: one wheel is for every CPython from 3.11 on, but those without a GIL.
"""

import sysconfig

from setuptools import setup

setup(
    cffi_modules=["wgdisco/tunnel/_burst_build.py:ffibuilder"],
    options={} if sysconfig.get_config_var("Py_GIL_DISABLED") else {"bdist_wheel": {"py_limited_api": "cp311"}},
)
