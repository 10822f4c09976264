"""Tests of one module each, without an app or with a trivial one."""
