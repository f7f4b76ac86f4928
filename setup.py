"""The one thing pyproject.toml cannot say: that the data path's inner loop is compiled, where that is possible."""

from setuptools import setup

setup(cffi_modules=["wgdisco/tunnel/_burst_build.py:ffibuilder"])
