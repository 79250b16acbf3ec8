"""Appraisal: from verified claims to a verdict, by a policy.

>>> from broch.attest import Policy
>>> Policy()
Policy(emulated=False, debug=False)
"""

from broch.attest.appraise import AppraisalError, Check, Verdict, appraise
from broch.attest.policy import Policy

__all__ = ["AppraisalError", "Check", "Policy", "Verdict", "appraise"]
