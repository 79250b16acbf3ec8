"""Tests of broch.app. A package, since another folder has tests of the same names."""
