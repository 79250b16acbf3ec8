"""Appraisal: from evidence to a result, by a policy.

>>> from broch.attest import Policy
>>> list(Policy(emulated=True).relaxations())
['emulated']
"""

from broch.attest.appraise import Verdict, appraise
from broch.attest.checks import AppraisalError, Check
from broch.attest.policy import Policy

__all__ = ["AppraisalError", "Check", "Policy", "Verdict", "appraise"]
